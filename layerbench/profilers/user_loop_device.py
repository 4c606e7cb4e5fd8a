"""What an accelerator did while its user's own loop ran a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from layerbench.environment import devices
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.errors import first_line
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.kernel_timer import KernelTimer, sees_kernels, why_unseen
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.modules import Call, ModuleFacts
from layerbench.instruments.profiler_use import other_profiler
from layerbench.profilers.choice_of_rounds import clock_for
from layerbench.profilers.event_samples import (
    NO_FUNCTIONS,
    event_facts,
    note_on_short_pieces,
    without_kernels,
)
from layerbench.profilers.kernel_samples import (
    device_arrays,
    function_forwards,
    kernel_facts,
    with_kernels,
)
from layerbench.profilers.user_loop_record import Seen
from layerbench.records import samples
from layerbench.records.samples import Arrays, Samples

FORWARDS = 512
"""So many have their events at once; then the device is waited for."""
AFTER_THE_OBSERVED = 3
"""The first forward whose layers have times by events."""
HOST_ONLY = "no forward was timed on the device: all times are the host's"


class LoopOnDevice(ABC):
    """The whole of each forward on the device's clock, and some in which its layers are looked at.

    The modules of the others are marked on the host's clock, without an event.

    Args:
        device: where the model runs.
        clock: the device's.

    Attributes:
        traced: the forwards whose layers have times on the device.
    """

    def __init__(self, device: Device, clock: Clock) -> None:
        self.traced: list[KernelForward] = []
        self._device = device
        self._clock = clock
        self._pending: list[tuple[int, int]] = []

    def whole(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward between two events."""

        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            self._clock.reserve(2 if self._pending else 2 * FORWARDS)
            start = self._clock.mark()
            output = forward(*args, **kwargs)
            self._pending.append((start, self._clock.mark()))
            return output

        return marked

    @property
    def is_full(self) -> bool:
        """Whether there is no further event without making one."""
        return len(self._pending) >= FORWARDS

    def drained(self) -> list[int]:
        """Nanoseconds of each forward since the last time; waits for the device."""
        self._clock.synchronize()
        times = []
        for start, end in self._pending:
            first, last = self._clock.resolve([start, end])
            times.append(last - first)
        self._pending.clear()
        self._clock.release()
        return times

    def looks_at(self, number: int) -> bool:
        """Whether a forward's layers are looked at: of 2, 4, 8, ... from 0."""
        return is_power_of_two(number)

    def look(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        timed: frozenset[str],
        call: Callable[[], object],
        outputs: Sequence[object],
    ) -> dict[str, str]:
        """Run one forward, with its layers timed on the device if that can be now.

        Args:
            model: whose modules have no other instrument on them.
            facts: of its modules, by their indices.
            timed: paths of those that are told apart.
            call: runs the model.
            outputs: holds what the model gave, as soon as it has.

        Returns:
            what has no figures, and why. What fails before the model runs, or after it has given
            its output, is a fault of ours, which the loop's owner must not meet.
        """
        taken = self._taken()
        if taken:
            call()
            return {"kernels of some forwards": taken}
        run, failed = None, {}
        try:
            run = self._prepared(model, _paths(facts), timed)
        except Exception as error:
            failed = self._failed(error)
        if run is None:
            call()  # not above: an error of the owner's would seem to come from ours
            return failed
        try:
            self._keep(run(call))
        except Exception as error:
            if not outputs:
                raise
            return self._failed(error)
        return {}

    @staticmethod
    def _failed(error: Exception) -> dict[str, str]:
        return {"device times": f"a look at the device failed: {first_line(error)}"}

    def _taken(self) -> str:
        """Why a forward cannot be looked at now; empty where it can."""
        return ""

    @abstractmethod
    def _prepared(
        self, model: nn.Module, paths: Sequence[str], timed: frozenset[str]
    ) -> Callable[[Call], KernelForward]:
        """What runs a forward with its layers timed."""

    def _keep(self, forward: KernelForward) -> None:
        self.traced.append(forward)

    @abstractmethod
    def functions(
        self, facts: Sequence[ModuleFacts], with_rows: frozenset[str]
    ) -> list[FunctionForward]:
        """What launched work, for modules of these paths: forwards that ran the same."""

    @abstractmethod
    def shown(self, seen: Seen) -> Seen:
        """What the loop showed, with what there is to say of the device."""

    def notes(self, paths: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - of the modules
        """What a reader of the rows must know."""
        return () if self.traced else (HOST_ONLY,)

    def arrays(self, host: Arrays, whole: Sequence[int]) -> dict[str, Samples]:
        """The samples of a record.

        Args:
            host: those of the forwards whose modules were marked on the host's clock.
            whole: the same forwards' nanoseconds on the device.
        """
        inclusive = host[samples.INCLUSIVE]
        return {
            samples.HOST + samples.INCLUSIVE: inclusive,
            samples.HOST + samples.SELF: host[samples.SELF],
            samples.HOST + samples.UNTOUCHED: inclusive[:, 0].copy(),
            samples.UNTOUCHED: np.array(whole, dtype=np.int64),
            **device_arrays(self.traced),
        }


class LoopWithKernels(LoopOnDevice):
    """Looks at forwards under the profiler, which sees the device's kernels."""

    def _taken(self) -> str:
        """Who else uses the profiler, and would lose a trace by ours."""
        return other_profiler()

    def _prepared(
        self, model: nn.Module, paths: Sequence[str], timed: frozenset[str]
    ) -> Callable[[Call], KernelForward]:
        return partial(KernelTimer(model, paths, timed, self._device).run, shapes=True)

    def functions(
        self, facts: Sequence[ModuleFacts], with_rows: frozenset[str]
    ) -> list[FunctionForward]:
        """What launched kernels, for modules of these paths: forwards that ran the same."""
        forwards = function_forwards(self.traced, _paths(facts), with_rows)
        return [forward for forward in forwards if forward.facts == forwards[-1].facts]

    def shown(self, seen: Seen) -> Seen:
        """What the loop showed, with the kernels of its modules."""
        facts = {
            "kernels": kernel_facts(self.traced, [row.path for row in seen.modules]),
            "device_times": "kernels",
        }
        return replace(seen, modules=with_kernels(seen.modules, self.traced), device=facts)


class LoopByEvents(LoopOnDevice):
    """Looks at forwards with an event at each end of a piece of work, behind a blocked queue.

    Forward 2 only shows the way, and how long the host takes; 3, 4, 8, 16, ... have times. The
    queue is blocked by work of a bounded length, that reads and writes nothing of the loop's.

    Args:
        device: where the model runs.
        clock: the device's.
        observes: whether a mode may see the operators of a forward.
        why: why no kernels are seen.
    """

    def __init__(self, device: Device, clock: Clock, *, observes: bool, why: str = "") -> None:
        super().__init__(device, clock)
        self._observes = observes
        self._why = why
        self._timer: EventTimer | None = None
        self._was_first = False

    def looks_at(self, number: int) -> bool:
        """Whether a forward's layers are looked at."""
        return number == AFTER_THE_OBSERVED or super().looks_at(number)

    def _prepared(
        self, model: nn.Module, paths: Sequence[str], timed: frozenset[str]
    ) -> Callable[[Call], KernelForward]:
        if self._timer is None:
            self._timer = EventTimer(model, paths, timed, self._device, observes=self._observes)
        else:
            self._timer.look_anew(model, timed)
        _ = self._timer.event_cost_ns  # measured at the first look
        self._was_first = not self._timer.has_run
        return self._timer.run

    def _keep(self, forward: KernelForward) -> None:
        assert self._timer is not None
        if self._was_first:
            self._timer.forget()
        else:
            super()._keep(forward)

    def functions(
        self,
        facts: Sequence[ModuleFacts],  # noqa: ARG002
        with_rows: frozenset[str],  # noqa: ARG002
    ) -> list[FunctionForward]:
        """None: their operators are within their modules' pieces of work."""
        return []

    def shown(self, seen: Seen) -> Seen:
        """What the loop showed, with what events cannot tell."""
        timer = self._timer
        assert timer is not None
        kernels = {"kernels": self._why} if self._why else {}
        absent = {**seen.absent, **kernels, "functions": NO_FUNCTIONS}
        return replace(seen, absent=absent, device=event_facts(timer))

    def notes(self, paths: Sequence[str]) -> tuple[str, ...]:
        """What a reader of the rows must know."""
        if self._timer is None or not self.traced:
            return super().notes(paths)
        short = note_on_short_pieces(self._timer, self.traced, paths)
        return (*self._timer.notes(), *short)

    def arrays(self, host: Arrays, whole: Sequence[int]) -> dict[str, Samples]:
        """The samples of a record."""
        return without_kernels(super().arrays(host, whole))


@dataclass(frozen=True)
class Surroundings:
    """What a loop is timed with.

    Attributes:
        device: where the model runs.
        clock: for marks at modules.
        side: the device's, where it has a queue with a clock of its own.
        conditions: looks at the device between forwards.
    """

    device: Device
    clock: Clock
    side: LoopOnDevice | None
    conditions: ConditionsWatch


def surroundings_of_loop(
    model: nn.Module, inputs: object, clock: Clock | None, *, observes: bool
) -> Surroundings:
    """What a loop is timed with.

    Args:
        model: that it runs, where it is now.
        inputs: any nesting of what the model is called with: one without parameters is where
            they are.
        clock: the loop's owner's own; ``None`` for that of the model's device.
        observes: whether a mode may see the operators of a forward.
    """
    device = devices.of_module(model, inputs)
    if clock is not None:
        return Surroundings(device, clock, None, ConditionsWatch())
    on_device = device.clock()
    of_layers = clock_for(on_device)
    side: LoopOnDevice | None = None
    if of_layers is not on_device:
        side = (
            LoopWithKernels(device, on_device)
            if sees_kernels(device)
            else LoopByEvents(device, on_device, observes=observes, why=why_unseen(device))
        )
    return Surroundings(device, of_layers, side, ConditionsWatch(device.look))


def _paths(facts: Sequence[ModuleFacts]) -> list[str]:
    return [fact.path for fact in facts]


def is_power_of_two(number: int) -> bool:
    """Of 2, 4, 8, ..."""
    return number >= 2 and number & (number - 1) == 0
