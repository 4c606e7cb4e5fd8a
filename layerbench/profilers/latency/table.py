"""Operators as rows of integers, equal ones once: what the model of times reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerbench.profilers.latency.kinds import KINDS
from layerbench.profilers.latency.operators import Operator

FORMATS = ("float32", "float16", "bfloat16", "float64")
"""Formats by their codes; the code of any other is that of the first."""

AMOUNTS = ("flops", "read", "written", "m", "n", "k", "groups")
"""Each takes two columns: what is fixed, and what each image adds."""

FACTS = ("kind", "format", "window", "stride", "strided", "backward", "changed")
"""Each takes one column, after the amounts."""

_KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}
_FORMAT_CODES = {name: code for code, name in enumerate(FORMATS)}


class Table(NamedTuple):
    """The operators of a trace.

    Attributes:
        rows: int64, one row for operators that are equal in all that counts.
        counts: how many there are of each, int64.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]


def table_of(operators: Sequence[Operator]) -> Table:
    """Equal operators once."""
    counted = Counter(map(row_of, operators))
    width = 2 * len(AMOUNTS) + len(FACTS)
    rows = np.array(list(counted), dtype=np.int64).reshape(-1, width)
    return Table(rows, np.array(list(counted.values()), dtype=np.int64))


def row_of(operator: Operator) -> tuple[int, ...]:
    """An operator's row."""
    return (
        *operator.flops,
        *operator.read,
        *operator.written,
        *operator.m,
        *operator.n,
        *operator.k,
        *operator.groups,
        _KIND_CODES[operator.kind],
        _FORMAT_CODES.get(operator.format, 0),
        operator.window,
        operator.stride,
        operator.strided,
        operator.backward,
        operator.changed,
    )


class Columns:
    """The columns of a table's rows with a number of images; all are float64."""

    def __init__(self, rows: NDArray[np.int64], batch: int) -> None:
        self._rows = rows
        self._batch = batch

    def amount(self, name: str) -> NDArray[np.float64]:
        """One of `AMOUNTS`."""
        at = 2 * AMOUNTS.index(name)
        fixed, each = self._rows[:, at], self._rows[:, at + 1]
        return fixed.astype(np.float64) + each.astype(np.float64) * self._batch

    def fact(self, name: str) -> NDArray[np.int64]:
        """One of `FACTS`."""
        return self._rows[:, 2 * len(AMOUNTS) + FACTS.index(name)]
