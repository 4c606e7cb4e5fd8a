"""Models whose forward counts and writes down, in closures, globals and classes."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from tests.faulty import Case

_total = 0
_text = ""
_ticks = itertools.count()
_table: dict[str, Any] = {"sizes": [], "deep": ({"n": 0},)}


class Tally:
    """Counts for all models."""

    calls = 0
    ticks = itertools.count()


def outside() -> str:
    """What the globals and the class hold."""
    return repr((_total, _text, _ticks, _table, Tally.calls, Tally.ticks))


def _counting(function: Any) -> Any:
    calls, sizes, ticks = 0, [0], itertools.count()

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        sizes.append(len(x))
        return function(x) + calls + len(sizes) + next(ticks)

    return counted


class _Slots:
    __slots__ = ("ticks",)

    def __init__(self) -> None:
        self.ticks = itertools.count()


class Counts(nn.Module):
    """What its closures and slots count changes its output; the rest is written down alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.activation, self.slots = nn.Linear(4, 4), _counting(torch.relu), _Slots()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global _total, _text  # noqa: PLW0603 - what is tried
        _total += 1
        _text += f"{next(_ticks)} "
        _table["sizes"].append(len(x))
        _table["deep"][0]["n"] += 1
        Tally.calls += 1 + next(Tally.ticks)
        return self.activation(self.fc(x)) + next(self.slots.ticks)


CASES = [
    Case("counters in closures", lambda: (Counts(), (torch.rand(2, 4),)), 20, 64),
]
