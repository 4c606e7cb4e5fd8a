"""What an accelerator did while its user's own loop ran a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from layerbench.environment import devices
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.errors import first_line
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.kernel_timer import KernelTimer
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.modules import ModuleFacts
from layerbench.profilers.device_rounds import clock_of_layers
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


class LoopOnDevice:
    """The whole of each forward on the device's clock, and the kernels of some.

    The modules of the others are marked on the host's clock, without an event.

    Args:
        device: where the model runs; the profiler sees its kernels.
        clock: the device's.

    Attributes:
        traced: the forwards that ran under the profiler.
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

    def look(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        timed: frozenset[str],
        call: Callable[[], object],
        outputs: Sequence[object],
    ) -> str:
        """Run one forward under the profiler, which must be free.

        Args:
            model: whose modules have no other instrument on them.
            facts: of its modules, by their indices.
            timed: paths of those with ranges.
            call: runs the model.
            outputs: holds what the model gave, as soon as it has.

        Returns:
            why nothing was seen; empty where the kernels were. What fails after the model has
            given its output is a fault of ours, which the loop's owner must not meet.
        """
        timer = KernelTimer(model, _paths(facts), timed, self._device)
        try:
            self.traced.append(timer.run(call, shapes=True))
        except Exception as error:
            if not outputs:
                raise
            return f"a look at the kernels failed: {first_line(error)}"
        return ""

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


@dataclass(frozen=True)
class Surroundings:
    """What a loop is timed with.

    Attributes:
        device: where the model runs.
        clock: for marks at modules.
        side: the device's, where the profiler sees its kernels.
        conditions: looks at the device between forwards.
    """

    device: Device
    clock: Clock
    side: LoopOnDevice | None
    conditions: ConditionsWatch


def surroundings_of_loop(model: nn.Module, inputs: object, clock: Clock | None) -> Surroundings:
    """What a loop is timed with.

    Args:
        model: that it runs, where it is now.
        inputs: any nesting of what the model is called with: one without parameters is where
            they are.
        clock: the loop's owner's own; ``None`` for that of the model's device.
    """
    device = devices.of_module(model, inputs)
    if clock is not None:
        return Surroundings(device, clock, None, ConditionsWatch())
    on_device = device.clock()
    of_layers = clock_of_layers(device, on_device)
    side = None if of_layers is on_device else LoopOnDevice(device, on_device)
    return Surroundings(device, of_layers, side, ConditionsWatch(device.look))


def _paths(facts: Sequence[ModuleFacts]) -> list[str]:
    return [fact.path for fact in facts]
