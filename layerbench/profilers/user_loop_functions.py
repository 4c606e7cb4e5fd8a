"""Functions of a model, from those forwards of its user's own loop in which they were timed."""

from __future__ import annotations

from layerbench.instruments.function_timer import FunctionForward


class LoopFunctions:
    """Keeps the forwards that ran the same functions as the loop's first.

    Attributes:
        forwards: those kept.
    """

    def __init__(self) -> None:
        self.forwards: list[FunctionForward] = []
        self._first: FunctionForward | None = None

    def add(self, sampled: FunctionForward) -> None:
        """Add the next one. The first was taken cold, and goes where another has run the same."""
        if self._first is None:
            self._first = sampled
            self.forwards.append(sampled)
        elif sampled.facts == self._first.facts:  # work that depends on data varies
            self.forwards = [one for one in self.forwards if one is not self._first]
            self.forwards.append(sampled)

    def clear(self) -> None:
        """Forget them all."""
        self.forwards.clear()
