"""Rounds on an accelerator whose kernels nobody sees: the layers' times there are by events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerbench.instruments.attach import NAMED_AT_MOST
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.random_state import RandomState
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.records import samples
from layerbench.records.samples import RowFacts, Samples
from layerbench.units import NANOSECOND

SHORT_PIECES = "longer than the clock's resolution, but made up of pieces of work that are not"
NO_FUNCTIONS = "nobody sees which kernels an operator launches on this device"


@dataclass
class EventRounds(DeviceRounds):
    """As `DeviceRounds`, with an event at each end of a piece of work in place of the profiler.

    Attributes:
        tracer: times the pieces of work.
    """

    tracer: EventTimer = field(kw_only=True)

    def forget(self) -> None:
        """Throw away the samples so far, and what there was to say of them."""
        super().forget()
        self.tracer.forget()

    def _run_device(self) -> None:
        if not self.tracer.has_run:
            # Its first forward is the one that is observed, which is no sample.
            draws = RandomState()
            self.tracer.run(self.call)
            self.tracer.forget()
            draws.put_back()
            self.renew_inputs()
        super()._run_device()

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward]:  # noqa: ARG002
        """None: their operators are within their modules' pieces of work."""
        return []

    def facts(self) -> dict[str, Any]:
        """Where device times come from, and what they can tell."""
        shortest = self.tracer.resolution_ns * NANOSECOND
        return {"device_times": "events", "resolution_s": shortest or None}

    def absent(self) -> dict[str, str]:
        """As `DeviceRounds`, with what events do not tell."""
        return {**super().absent(), "functions": NO_FUNCTIONS}

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows as they are: nobody counts kernels."""
        return rows

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and what holds more than the device's work."""
        return [*super().notes(rows), *self.tracer.notes(), *self._note_on_short_pieces()]

    def _note_on_short_pieces(self) -> Sequence[str]:
        """The rows that only look long enough for the clock; a report marks shorter ones itself."""
        if not self.traced:
            return ()
        times = np.median(np.stack([forward.inclusive_ns for forward in self.traced]), axis=0)
        named = [
            self._paths()[index] or "the model itself"
            for index in self.tracer.below_resolution(self.traced)
            if times[index] >= self.tracer.resolution_ns
        ]
        more = len(named) - NAMED_AT_MOST
        others = f" and {more} more" if more > 0 else ""
        return [f"{SHORT_PIECES}: {', '.join(named[:NAMED_AT_MOST])}{others}"] if named else ()

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        unknown = (samples.IDLE, samples.KERNELS)
        return {name: array for name, array in super().arrays().items() if name not in unknown}
