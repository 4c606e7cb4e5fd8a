"""Progress of long work: the runner reports it, a command line may show it."""

from __future__ import annotations

from typing import Protocol

# What a record says of work that was still to come when it was written.
TO_COME = "not measured yet when this was written"


class Progress(Protocol):
    """Hears of each step of a measurement."""

    def step(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of ``phase`` are finished; ``total`` may grow."""


class Silent:
    """Shows nothing: the default."""

    def step(self, phase: str, done: int, total: int) -> None:
        """Nothing to show."""
