"""Rounds of a model under `torch.compile`: the compiled forward untouched, and kernel by kernel.

The instrumented forward runs the same kernels with the clock read around each. A kernel's time goes
to the layers in it (`layerbench.instruments.provenance`). What no kernel takes is a row of its own.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from layerbench.instruments.compilation import Compilation, CompiledKernel
from layerbench.instruments.dynamo_log import DynamoLog
from layerbench.instruments.function_timer import FunctionFacts, FunctionForward
from layerbench.instruments.layer_timer import Folded, TimedForward, run_untouched
from layerbench.instruments.modules import Call, CallFacts
from layerbench.instruments.provenance import Part
from layerbench.profilers.rounds import Rounds
from layerbench.records import compilation as told
from layerbench.records import samples
from layerbench.records.samples import KernelFacts, RowFacts, Samples
from layerbench.records.workload import CompileMode

BETWEEN = "between_kernels"
"""The model's function row of what the compiled forward does besides its kernels."""

Number = tuple[int, int]
"""A graph's, and that of a kernel in it."""
_ROOT = ""


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

    def run(self, call: Call) -> None:
        """Run for the first time: that compiles."""
        start = time.perf_counter()
        call()
        self.seconds = time.perf_counter() - start

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


@dataclass
class CompiledRounds(Rounds):
    """Runs the compiled forward untouched and with its kernels timed, in alternating order.

    Attributes:
        compiled: the model's compilation.
        timed: of each instrumented forward calls and nanoseconds of the kernels that ran.
    """

    compiled: Compiled = field(kw_only=True)
    timed: list[dict[Number, tuple[int, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.layers is not None
        self._paths = [fact.path for fact in self.layers.modules]
        self._index = {path: index for index, path in enumerate(self._paths)}
        observed = self.compiled.observed
        calls = [observed[path].calls if path in observed else 0 for path in self._paths]
        self._calls = np.array(calls, dtype=np.int64)

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.timed.clear()

    def run_instrumented(self) -> None:
        """One forward with the clock read around each kernel."""
        self.renew_inputs()
        self.meter.begin()
        with self.compiled.code.attached():
            whole, _ = run_untouched(self.call, self.clock)
        self.note_wait(samples.INSTRUMENTED)
        times = self.compiled.code.times_ns()
        self.timed.append(times)
        self.forwards.append(TimedForward(self._added_up(times, whole), None))

    def _kinds(self) -> list[list[Any]]:
        return [*super()._kinds(), self.timed]

    def _added_up(self, times: Mapping[Number, tuple[int, int]], whole: int) -> Folded:
        """A forward's kernels by module; the model itself has what no module has."""
        own, inclusive = (np.zeros(len(self._paths), dtype=np.int64) for _ in range(2))
        for number, (_, taken) in times.items():
            for part, nanoseconds in _shared(taken, self._kernel(number).parts):
                inside = self._inside(part)
                own[inside[-1]] += nanoseconds
                for index in inside:
                    inclusive[index] += nanoseconds
        own[0] += whole - own.sum()
        inclusive[0] = whole
        return Folded(inclusive, own, self._calls)

    def _inside(self, part: Part) -> list[int]:
        """Indices of the timed modules that a part of a kernel lies in, the innermost last."""
        inside = [self._index[path] for path in part.spot.modules if path in self._index]
        return [0, *(index for index in inside if index)]

    def _kernel(self, number: Number) -> CompiledKernel:
        graph, kernel = number
        return self.compiled.code.graphs[graph].kernels[kernel]

    @cached_property
    def _numbers(self) -> list[Number]:
        """Of the kernels that ran, in the order of the code; asked after the last round."""
        return sorted({number for times in self.timed for number in times})

    @cached_property
    def _sums(self) -> dict[Number, int]:
        """Nanoseconds of each kernel in all rounds."""
        return {
            number: sum(times.get(number, (0, 0))[1] for times in self.timed)
            for number in self._numbers
        }

    # --- what the rounds showed ------------------------------------------------------------

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        times = [[one.get(number, (0, 0))[1] for number in self._numbers] for one in self.timed]
        kernels = np.array(times, dtype=np.int64).reshape(len(self.timed), len(self._numbers))
        return {**super().arrays(), samples.KERNELS: kernels}

    def facts(self) -> dict[str, Any]:
        """What the rows of kernels are, and how the model was compiled."""
        kernels = [self._kernel(number) for number in self._numbers]
        whole = sum(self._sums.values())
        known = sum(
            taken * sum(part.share for part in self._kernel(number).parts if part.spot.modules)
            for number, taken in self._sums.items()
        )
        facts = self.compiled.facts(
            kernels=sum(count for count, _ in self.timed[-1].values()) if self.timed else 0,
            fused=sum(len(_layers_in(kernel)) > 1 for kernel in kernels),
            attributed=round(min(known / whole, 1.0), 4) if whole else None,
        )
        return {
            "kernels": tuple(map(self._kernel_facts, self._numbers)),
            "compilation": facts,
        }

    def _kernel_facts(self, number: Number) -> KernelFacts:
        kernel = self._kernel(number)
        calls = [times[number][0] for times in self.timed if number in times]
        known = [part for part in kernel.parts if part.spot.modules]
        return KernelFacts(
            module=known[0].spot.module if known else _ROOT,
            function=known[0].spot.function if known else "",
            name=kernel.name,
            calls=int(np.bincount(calls).argmax()),
            layers=tuple(
                told.KernelPart(
                    module=part.spot.module,
                    function=part.spot.function,
                    share=round(part.share, 4),
                )
                for part in known
            ),
        )

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward]:
        """What modules of these paths did themselves, and what no kernel took."""
        spots = self._functions(with_rows | {_ROOT})
        return [
            FunctionForward(facts=tuple(spots.values()), times_ns=times, module_order=self._order)
            for times in self._function_times(list(spots))
        ]

    def _functions(self, with_rows: frozenset[str]) -> dict[tuple[str, str], FunctionFacts]:
        """The functions by module and name, in the order of their first calls."""
        sources: dict[tuple[str, str], set[str]] = {}
        order: dict[tuple[str, str], int] = {}
        for part in self._in_order():
            spot = self._spot(part)
            self._step_to(part, order, spot)
            sources.setdefault(spot, set()).update(part.sources)
        order[_ROOT, BETWEEN] = max([*order.values(), *self._order.values()], default=0) + 1
        return {
            spot: FunctionFacts(
                module=spot[0],
                name=spot[1],
                order=at,
                calls=len(sources.get(spot, ())) or 1,
                input_shapes=(),
                output_shapes=(),
            )
            for spot, at in sorted(order.items(), key=lambda item: item[1])
            if spot[0] in with_rows and spot[1]
        }

    def _step_to(
        self, part: Part, order: dict[tuple[str, str], int], spot: tuple[str, str]
    ) -> None:
        """Count a function behind the module that began last before it."""
        begun = [self._order[path] for path in part.spot.modules if path in self._order]
        latest = max([*begun, *order.values()], default=0)
        order.setdefault(spot, latest + 1)

    @cached_property
    def _order(self) -> dict[str, int]:
        """First calls of the modules, with room between them for functions."""
        room = 2 * len(self._numbers) * len(self._paths) + 2
        return {path: room * calls.order for path, calls in self.compiled.observed.items()}

    def _in_order(self) -> list[Part]:
        """The parts of all kernels in the order of the graphs' operators."""
        parts = [
            (number[0], part.order, part)
            for number in self._numbers
            for part in self._kernel(number).parts
        ]
        return [part for *_, part in sorted(parts, key=lambda one: one[:2])]

    def _spot(self, part: Part) -> tuple[str, str]:
        return self._paths[self._inside(part)[-1]], part.spot.function

    def _function_times(self, spots: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
        every = []
        for times, forward in zip(self.timed, self.forwards, strict=True):
            sums: defaultdict[tuple[str, str], int] = defaultdict(int)
            for number, (_, taken) in times.items():
                for part, nanoseconds in _shared(taken, self._kernel(number).parts):
                    sums[self._spot(part)] += nanoseconds
            taken_by_all = sum(taken for _, taken in times.values())
            sums[_ROOT, BETWEEN] = int(forward.device.inclusive_ns[0]) - taken_by_all
            every.append(tuple(sums[spot] for spot in spots))
        return every

    # --- kernels and shares of rows --------------------------------------------------------

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows with their kernels, and how much of their time is shared."""
        inclusive: defaultdict[int, _Taken] = defaultdict(_Taken)
        own: defaultdict[int, _Taken] = defaultdict(_Taken)
        for number, taken in self._sums.items():
            parts = self._kernel(number).parts
            inside: defaultdict[int, float] = defaultdict(float)
            itself: defaultdict[int, float] = defaultdict(float)
            for part in parts:
                for index in set(self._inside(part)):
                    inside[index] += part.share
                itself[self._inside(part)[-1]] += part.share
            for sums, shares in ((inclusive, inside), (own, itself)):
                for index, share in shares.items():
                    sums[index].add(taken, share)
        return tuple(
            row.model_copy(
                update={
                    "kernels": inclusive[index].kernels,
                    # All that runs belongs to the model.
                    "shared": inclusive[index].shared if index else None,
                    "self_shared": own[index].shared,
                }
            )
            for index, row in enumerate(rows)
        )

    def with_shares(self, functions: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The functions' rows with their kernels, and how much of their time is shared."""
        sums: defaultdict[tuple[str, str], _Taken] = defaultdict(_Taken)
        for number, taken in self._sums.items():
            shares: defaultdict[tuple[str, str], float] = defaultdict(float)
            for part in self._kernel(number).parts:
                shares[self._spot(part)] += part.share
            for spot, share in shares.items():
                sums[spot].add(taken, share)
        return tuple(
            row.model_copy(
                update={"kernels": one.kernels, "shared": one.shared, "self_shared": one.shared}
            )
            for row in functions
            for one in [sums[row.module or _ROOT, row.type]]
        )


@dataclass
class _Taken:
    """What a row has of its kernels' time.

    Attributes:
        kernels: how many have a part of it.
        time, shared_time: nanoseconds in all rounds; of those in which other rows have parts.
    """

    kernels: int = 0
    time: float = 0.0
    shared_time: float = 0.0

    def add(self, taken: int, share: float) -> None:
        self.kernels += 1
        self.time += taken * share
        if share < _ALL:
            self.shared_time += taken * share

    @property
    def shared(self) -> float | None:
        part = round(self.shared_time / self.time, 4) if self.time else 0.0
        return part or None


# Shares are sums of fractions.
_ALL = 1 - 1e-9


def _layers_in(kernel: CompiledKernel) -> set[tuple[str, str]]:
    return {(part.spot.module, part.spot.function) for part in kernel.parts}


def _shared(taken: int, parts: Sequence[Part]) -> list[tuple[Part, int]]:
    """A kernel's time among its parts, in whole nanoseconds that add up to it."""
    shares, given, result = 0.0, 0, []
    for number, part in enumerate(parts, 1):
        shares += part.share
        until = taken if number == len(parts) else int(taken * min(shares, 1.0))
        result.append((part, until - given))
        given = until
    return result
