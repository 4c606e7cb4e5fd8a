"""Rounds on an accelerator whose kernels nobody sees: the layers' times there are by events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.random_state import RandomState
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.records import samples
from layerbench.records.samples import RowFacts, Samples
from layerbench.units import NANOSECOND

SHORT_PIECES = "adds up pieces of work that are below the clock's resolution"
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
        """The modules' rows, with a note on those that only look long enough for the clock.

        Reports mark the rows that are shorter than its resolution.
        """
        times = np.median(np.stack([forward.inclusive_ns for forward in self.traced]), axis=0)
        short = set(self.tracer.below_resolution(self.traced))
        return tuple(
            _noted(row) if index in short and times[index] >= self.tracer.resolution_ns else row
            for index, row in enumerate(rows)
        )

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and what holds more than the device's work."""
        return [*super().notes(rows), *self.tracer.notes()]

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        unknown = (samples.IDLE, samples.KERNELS)
        return {name: array for name, array in super().arrays().items() if name not in unknown}


def _noted(row: RowFacts) -> RowFacts:
    note = f"{row.note}; {SHORT_PIECES}" if row.note else SHORT_PIECES
    return row.model_copy(update={"note": note})
