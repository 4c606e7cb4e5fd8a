"""Progress of long work: the runner reports it, a command line may show it."""

from __future__ import annotations

from typing import Protocol

from layerbench.environment.conditions import ConditionsWatch

# What a record says of work that was still to come when it was written.
TO_COME = "not measured yet when this was written"

MEASURING = "measuring"
"""The phase of the rounds that are kept."""


class Progress(Protocol):
    """Hears of each step of a measurement."""

    def step(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of ``phase`` are finished; ``total`` may grow."""


class Silent:
    """Shows nothing: the default."""

    def step(self, phase: str, done: int, total: int) -> None:
        """Nothing to show."""


class Looking:
    """Passes each step on, and looks at the device between the measured rounds.

    Args:
        listener: hears of each step.
        conditions: of the device.
    """

    def __init__(self, listener: Progress, conditions: ConditionsWatch) -> None:
        self._listener = listener
        self._conditions = conditions

    def step(self, phase: str, done: int, total: int) -> None:
        """Pass it on; a round may just have ended."""
        self._listener.step(phase, done, total)
        if phase == MEASURING and done:
            self._conditions.take()
