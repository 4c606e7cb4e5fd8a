"""Rounds of a model under `torch.compile`: the compiled forward untouched, and kernel by kernel.

The instrumented forward runs the same kernels with the clock read around each. On an accelerator
that gives the host's times, and a device round the kernels' own (docs/decisions/0034).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from layerbench.environment.notices import logged_notices_kept_back
from layerbench.instruments.compilation import Compilation
from layerbench.instruments.compiled_kernels import CompiledKernelTimer
from layerbench.instruments.dynamo_log import DynamoLog
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.layer_timer import Folded, TimedForward, run_untouched
from layerbench.instruments.modules import Call, CallFacts
from layerbench.profilers.compiled_sharing import SharedTimes, Sharing, Times
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.profilers.kernel_samples import spans_of
from layerbench.profilers.rounds import Layers, Rounds
from layerbench.records import compilation as told
from layerbench.records import samples
from layerbench.records.samples import RowFacts, Samples
from layerbench.records.timing import COMPILED_LATE, GIVEN_UP, NOTHING_COMPILED
from layerbench.records.workload import CompileMode


class Compiled:
    """A model compiled for a measurement, and what is told of the compilation.

    Args:
        model: as it runs in Python.
        mode: of `torch.compile`.
        observed: calls of the model's modules in one forward of Python's.

    Attributes:
        runs: takes the place of the model.
        code: its graphs and kernels.
        observed: as given.
        seconds: of the first call.
    """

    def __init__(
        self, model: nn.Module, mode: CompileMode, observed: Mapping[str, CallFacts]
    ) -> None:
        self._mode = mode
        self._log = DynamoLog()
        self.code = Compilation(model, mode)
        self.runs = self.code.runs
        self.observed = observed
        self.seconds = 0.0
        self._settled: int | None = None

    def run(self, call: Call) -> None:
        """Run for the first time: that compiles."""
        start = time.perf_counter()
        with logged_notices_kept_back():
            call()
        self.seconds = time.perf_counter() - start

    def settle(self) -> None:
        """Warm-up is over: what is compiled from now on takes time of measured rounds."""
        self._settled = self.code.traced

    def notes(self) -> Iterator[str]:
        """What makes the figures others than those of compiled code."""
        if self.code.tells and not self.code.traced:
            yield NOTHING_COMPILED
        if self._settled is not None and self.code.traced > self._settled:
            yield COMPILED_LATE

    @property
    def why_no_kernels(self) -> str:
        """Why no kernels can be timed; empty where they can."""
        if self.code.failed:
            return self.code.failed
        if not any(graph.kernels for graph in self.code.graphs):
            return "torch.compile made no kernel of the model, so only the whole is timed"
        return ""

    def facts(self, **of_kernels: Any) -> told.Compilation:  # noqa: ANN401 - of many kinds
        """What is told of it; ``of_kernels``: the fields that only timed kernels have."""
        return told.Compilation(
            mode=self._mode,
            seconds=round(self.seconds, 3),
            graphs=len(self.code.graphs),
            breaks=self._log.breaks(),
            recompilations=self._log.recompilations(),
            **of_kernels,
        )

    def sharing(self, layers: Layers) -> Sharing:
        """Which of the timed modules a kernel's time goes to."""
        return Sharing(layers.modules, self.observed, self.code.kernel)


class _Rounds(Rounds, ABC):
    """What rounds of compiled code have in common: their kernels say all else."""

    compiled: Compiled
    _sharing: Sharing

    @abstractmethod
    def _seen(self) -> tuple[Sequence[Times], Sequence[int]]:
        """Of each forward whose kernels were timed these times, and that of the whole."""

    @cached_property
    def shown(self) -> SharedTimes:
        """What the rounds showed; asked after the last one."""
        return SharedTimes(self._sharing, *self._seen())

    def facts(self) -> dict[str, Any]:
        """What the rows of kernels are, and how the model was compiled."""
        return {
            "kernels": self.shown.kernels(),
            "compilation": self.compiled.facts(**self.shown.counts()),
        }

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.compiled.settle()

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward]:
        """What modules of these paths did themselves, and what no kernel took."""
        return self.shown.functions(with_rows)

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows with their kernels, and how much of their time is shared."""
        return self.shown.with_kernels(rows)

    def with_shares(self, functions: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The functions' rows with their kernels, and how much of their time is shared."""
        return self.shown.with_shares(functions)


@dataclass
class CompiledRounds(_Rounds):
    """Runs the compiled forward untouched and with its kernels timed, in alternating order.

    Attributes:
        compiled: the model's compilation.
        timed: of each instrumented forward calls and nanoseconds of the kernels that ran.
    """

    compiled: Compiled = field(kw_only=True)
    timed: list[Times] = field(default_factory=list)
    # Whether the last one ran no graph: neither one that was there, nor one made for it.
    _in_python: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.layers is not None
        self._sharing = self.compiled.sharing(self.layers)

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.timed.clear()

    def run_instrumented(self) -> None:
        """One forward with the clock read around each kernel."""
        self.renew_inputs()
        self.meter.begin()
        traced = self.compiled.code.traced
        with self.compiled.code.attached():
            whole, _ = run_untouched(self.call, self.clock)
        self.note_wait(samples.INSTRUMENTED)
        times = self.compiled.code.times_ns()
        self.timed.append(times)
        self._in_python = not times and traced == self.compiled.code.traced > 0
        self.forwards.append(TimedForward(self._sharing.added_up(times, whole), None))

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and whether compiled code still ran."""
        return [*super().notes(rows), *[GIVEN_UP] * self._in_python]

    def _kinds(self) -> list[list[Any]]:
        return [*super()._kinds(), self.timed]

    def _seen(self) -> tuple[Sequence[Times], Sequence[int]]:
        return self.timed, [int(forward.device.inclusive_ns[0]) for forward in self.forwards]

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        return {**super().arrays(), samples.KERNELS: self.shown.samples()}


@dataclass
class CompiledDeviceRounds(_Rounds, DeviceRounds):
    """As `DeviceRounds`, of compiled code: its kernels take the place of modules.

    Attributes:
        compiled: the model's compilation.
        tracer: gives each of the device's kernels to the compiled one that launched it.
    """

    compiled: Compiled = field(kw_only=True)
    tracer: CompiledKernelTimer = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.layers is not None
        self._sharing = self.compiled.sharing(self.layers)

    def _time_host(self, whole: Call, first: Call, last: Call) -> TimedForward:
        code = self.compiled.code
        with code.attached():
            first()
            code.forget()
            start = time.perf_counter_ns()
            whole()
            taken = time.perf_counter_ns() - start
            last()
        return TimedForward(self._sharing.added_up(code.times_ns(), taken), None)

    def _seen(self) -> tuple[Sequence[Times], Sequence[int]]:
        times = [self.tracer.times_ns(forward) for forward in self.traced]
        return times, [int(forward.inclusive_ns[0]) for forward in self.traced]

    def facts(self) -> dict[str, Any]:
        """What the rows of kernels are, and where times on the device are from."""
        return {**super().facts(), "device_times": "kernels"}

    def added_up(self) -> Sequence[Folded]:
        """The device rounds."""
        pairs = zip(self.shown.timed, self.shown.wholes, strict=True)
        return [self._sharing.added_up(times, worked) for times, worked in pairs]

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and which kernels nobody knows the layers of."""
        return [*super().notes(rows), *self.tracer.notes()]

    def _device_arrays(self) -> dict[str, Samples]:
        forwards = self.added_up()
        return {
            samples.INCLUSIVE: np.stack([forward.inclusive_ns for forward in forwards]),
            samples.SELF: np.stack([forward.self_ns for forward in forwards]),
            **spans_of(self.traced),
            samples.KERNELS: self.shown.samples(),
        }
