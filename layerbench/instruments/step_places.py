"""Where in a forward the nodes of its graph were made: in which call of which module.

A forward that runs again within the backward has places of its own, a *recomputation*'s: what is
spent there is told apart from what is spent in the backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ROOT = 0
OUTSIDE = -1

# Of a module: row, marks at start and end, and the numbers that autograd had come to there.
Call = tuple[int, int, int, int, int]


class Places:
    """Where in a forward a node of its graph was made: in which call, and in which around that.

    Place 0 is the model's own; place k + 1 the call k; those of rows that no call is of follow.

    Args:
        calls: of the forward, in the order in which they ended: row, marks at start and end, and
            the numbers that autograd had come to there.
        above: of each row the one that holds it.
        begin, end: the numbers of the whole forward.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        above: Mapping[int, int],
        begin: int,
        end: int,
    ) -> None:
        self._rows = [ROOT, *(call[0] for call in calls)]
        self._around = [OUTSIDE, *self._callers(calls)]
        self._above = above
        self._begin = begin
        self._of_number = [0] * (end - begin)
        # Painted backwards, so that inner calls come last.
        for place in range(len(calls), 0, -1):
            first, last = calls[place - 1][3:]
            self._of_number[first - begin : last - begin] = [place] * (last - first)
        self._recomputed: set[int] = set()
        self._home = {ROOT: 0}
        for place in sorted(range(1, len(calls) + 1), key=lambda place: calls[place - 1][1]):
            self._home.setdefault(self._rows[place], place)

    @staticmethod
    def _callers(calls: Sequence[Call]) -> list[int]:
        """The enclosing place of each call. It may be wrong for a call that made no node."""
        around = [0] * len(calls)
        unclaimed: list[int] = []
        for number, call in enumerate(calls):
            while unclaimed and calls[unclaimed[-1]][3] >= call[3]:
                around[unclaimed.pop()] = number + 1
            unclaimed.append(number)
        return around

    def of_number(self, number: int) -> int:
        """The innermost call that was running when the node of this number was made."""
        at = number - self._begin
        return self._of_number[at] if 0 <= at < len(self._of_number) else OUTSIDE

    def row(self, place: int) -> int:
        """The row of a place; `OUTSIDE` of none."""
        return OUTSIDE if place == OUTSIDE else self._rows[place]

    def home(self, row: int) -> int:
        """The row's first call; for a row without calls, a new place within its parent's."""
        if row not in self._home:
            # First, as it may append rows itself.
            around = self.home(self._above[row]) if row in self._above else 0
            self._rows.append(row)
            self._around.append(around)
            self._home[row] = len(self._rows) - 1
        return self._home[row]

    def running_at(self, number: int, row: int) -> int:
        """The innermost call of this row that was running when autograd had come to this number."""
        place = self.of_number(number)
        while place != OUTSIDE and self._rows[place] != row:
            place = self._around[place]
        return self.home(row) if place == OUTSIDE else place

    def recomputing(self, row: int, around: int) -> int:
        """A new place: of what runs again for this row, within that place."""
        place = self._new(row, around)
        self._recomputed.add(place)
        return place

    def backward_of(self, recomputing: int) -> int:
        """A new place: of the backward of what ran again there."""
        return self._new(self._rows[recomputing], self._around[recomputing])

    def is_recomputed(self, place: int) -> bool:
        """Whether a place is of a recomputation."""
        return place in self._recomputed

    def _new(self, row: int, around: int) -> int:
        self._rows.append(row)
        self._around.append(around)
        return len(self._rows) - 1

    def added_up(
        self, spent: Mapping[int, int], rows: int, *, recomputed: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """By row what was spent in its calls: in them alone, and with the calls in them.

        Args:
            spent: by place.
            rows: how many there are.
            recomputed: whether in recomputations alone, or in all else.
        """
        own, inclusive = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for place, value in spent.items():
            if (place in self._recomputed) is not recomputed:
                continue
            own[self._rows[place]] += value
            for row in self._running(place):
                inclusive[row] += value
        return own, inclusive

    def _running(self, place: int) -> Iterable[int]:
        places: dict[int, None] = {}
        while place != OUTSIDE:
            places[self._rows[place]] = None
            place = self._around[place]
        return places
