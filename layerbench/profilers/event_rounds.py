"""Rounds on an accelerator whose kernels nobody sees: the layers' times there are by events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.function_timer import FunctionForward
from layerbench.instruments.random_state import RandomState
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.profilers.event_samples import (
    NO_FUNCTIONS,
    event_facts,
    note_on_short_pieces,
    without_kernels,
)
from layerbench.records.samples import RowFacts, Samples


@dataclass
class EventRounds(DeviceRounds):
    """As `DeviceRounds`, with an event at each end of a piece of work in place of the profiler.

    Attributes:
        tracer: times the pieces of work.
        why: why no kernels are seen.
    """

    tracer: EventTimer = field(kw_only=True)
    why: str = ""

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
        return event_facts(self.tracer)

    def absent(self) -> dict[str, str]:
        """As `DeviceRounds`, with what events do not tell."""
        kernels = {"kernels": self.why} if self.why else {}
        return {**super().absent(), **kernels, "functions": NO_FUNCTIONS}

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows as they are: nobody counts kernels."""
        return rows

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from forward to forward, and what holds more than the device's work."""
        short = note_on_short_pieces(self.tracer, self.traced, self._paths())
        return [*super().notes(rows), *self.tracer.notes(), *short]

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        return without_kernels(super().arrays())
