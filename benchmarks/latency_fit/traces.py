"""The operators of each model that a time was published of.

    python -m benchmarks.latency_fit.traces [PART OF PARTS]

Needs timm. It goes on where it was stopped, and takes about an hour on two cores; the result is
benchmarks/data/latency_operators.npz.
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_fit.published import DATA, Published, published

OPERATORS = DATA / "latency_operators.npz"
SINGLE = DATA.parent / ".latency_traces"


class Traces:
    """The packed traces.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path = OPERATORS) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self._names = {str(name): at for at, name in enumerate(arrays["names"])}
            self._ends = np.cumsum(arrays["lengths"])
            self._counts = arrays["counts"].astype(np.int64)
            self._rows = np.stack([arrays[f"column_{at}"] for at in range(arrays["width"])], axis=1)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def of(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and counts of one."""
        at = self._names[name]
        part = slice(self._ends[at - 1] if at else 0, self._ends[at])
        return self._rows[part], self._counts[part]


def main() -> None:
    """Trace what is missing, and pack all."""
    part, parts = (int(sys.argv[1]), int(sys.argv[3])) if len(sys.argv) > 3 else (0, 1)
    SINGLE.mkdir(exist_ok=True)
    for one in _in_turn(published())[part::parts]:
        file = SINGLE / f"{one.traced}.npz"
        if not file.exists():
            _write(one, file)
    if parts == 1:
        pack()


def _in_turn(rows: list[Published]) -> list[Published]:
    """One of each trace; a model of each family first, so that a part of them covers all."""
    by_family: dict[tuple[str, str], dict[str, Published]] = {}
    for row in rows:
        by_family.setdefault((row.family, row.mode), {}).setdefault(row.traced, row)
    turns = zip_longest(*(group.values() for group in by_family.values()))
    return [row for turn in turns for row in turn if row is not None]


def _write(one: Published, file: Path) -> None:
    from timm.models._registry import _deprecated_models as renamed

    from layerbench.api.inputs import what_runs
    from layerbench.errors import LayerbenchError
    from layerbench.profilers.latency.operators import trace_operators
    from layerbench.profilers.latency.table import table_of

    train = one.mode == "train"
    try:
        workload, subject = what_runs(
            f"timm:{renamed.get(one.model, one.model)}",
            f"8x3x{one.size}x{one.size}",
            batch=None,
            channels_last=False,
            seed=0,
            precision=one.precision,  # type: ignore[arg-type]
            mode="train" if train else "eval",
        )
        trace = trace_operators(workload, optimizer="momentum" if train else None, subject=subject)
    except LayerbenchError as error:
        print(f"{one.traced}: {error}", flush=True)
        return
    if trace.batch is not None:
        print(f"{one.traced}: has to run for real", flush=True)
        return
    table = table_of(trace.operators)
    np.savez_compressed(file, rows=table.rows, counts=table.counts)


def pack() -> None:
    """All traces in one file, a column after the other."""
    files = sorted(SINGLE.glob("*.npz"))
    tables = [np.load(file, allow_pickle=False) for file in files]
    rows = np.concatenate([table["rows"] for table in tables])
    columns = {f"column_{at}": _narrow(rows[:, at]) for at in range(rows.shape[1])}
    np.savez_compressed(
        OPERATORS,
        names=np.array([file.stem for file in files]),
        lengths=np.array([len(table["counts"]) for table in tables], dtype=np.int32),
        counts=np.concatenate([table["counts"] for table in tables]).astype(np.int32),
        width=np.array(rows.shape[1]),
        **columns,
    )
    print(f"{len(files)} traces, {len(rows)} rows: {OPERATORS}")


def _narrow(column: NDArray[np.int64]) -> NDArray[np.int64]:
    """In the fewest bytes that hold it."""
    for narrow in (np.uint8, np.int16, np.int32):
        if np.array_equal(column.astype(narrow), column):
            return column.astype(narrow)  # type: ignore[return-value]
    return column


if __name__ == "__main__":
    main()
