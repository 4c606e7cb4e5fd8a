"""What one process measured, before statistics: plain facts and arrays of nanoseconds.

A run travels between processes as one JSON file and one ``.npz``; no torch is needed to read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from layerbench.contention import Waits
from layerbench.environment import Environment
from layerbench.records import Kind, Shape, StopReason
from layerbench.workload import Frozen

Samples = NDArray[np.int64]
Arrays = Mapping[str, Samples]

UNTOUCHED = "untouched"
INSTRUMENTED = "instrumented"
INCLUSIVE = "inclusive"
SELF = "self"
HOST = "host_"
FUNCTIONS = "functions"
WAITED = "waited_"
PLACEMENT = "placement_"


class RowFacts(Frozen):
    """What a row is, apart from its times; fields as in `layerbench.records.LayerRow`.

    Attributes:
        order: when it was first called, among the children of its parent.
        module: for a function, the path of the module that runs it.
    """

    path: str
    type: str
    kind: Kind
    depth: int
    order: int | None
    calls: int
    block: bool
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: int | None = None
    module: str | None = None
    note: str = ""


class RunFacts(Frozen):
    """What one process found, apart from its samples."""

    model_type: str
    parameters: int
    modules: tuple[RowFacts, ...]
    functions: tuple[RowFacts, ...]
    environment: Environment
    stop: StopReason
    mark_cost_s: float
    wrapper_cost_s: float
    absent: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One process's measurement.

    ``arrays`` holds, in integer nanoseconds, one row per iteration:

    ``untouched``, ``instrumented``
        shape (rounds,): the whole forward.
    ``inclusive``, ``self``
        shape (rounds, modules).
    ``functions``
        shape (function iterations, functions): from the pass of its own.
    ``host_untouched``, ``host_inclusive``, ``host_self``
        the same on the host's clock, where the device has its own.
    ``waited_untouched``, ``waited_instrumented``, ``waited_functions``
        what the process's threads waited for a core in each of these forwards; 0 for next to
        nothing. Missing where the system does not say.
    ``placement_untouched``, ``placement_instrumented``, ``placement_functions``
        of a live comparison: the number of the place in memory that the weights then had.
    """

    facts: RunFacts
    arrays: Arrays = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``facts.json`` and ``arrays.npz`` into an existing folder."""
        # numpy's stub takes the arrays' names for its option allow_pickle
        np.savez(folder / "arrays.npz", **dict(self.arrays))  # type: ignore[arg-type]
        (folder / "facts.json").write_text(self.facts.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read what `save` wrote."""
        facts = RunFacts.model_validate_json((folder / "facts.json").read_text(encoding="utf-8"))
        with np.load(folder / "arrays.npz") as arrays:
            return cls(facts, {name: arrays[name] for name in arrays.files})


def waits_of(arrays: Sequence[Arrays]) -> Waits | None:
    """How much the untouched forwards of all processes waited; ``None`` where nothing says."""
    name = WAITED + UNTOUCHED
    if not arrays or any(name not in run or not len(run[name]) for run in arrays):
        return None
    waited = np.concatenate([run[name] for run in arrays])
    times = np.concatenate([run[UNTOUCHED] for run in arrays])
    share = int(waited.sum()) / max(1, int(times.sum()))
    return Waits(
        rounds=round(int(np.count_nonzero(waited)) / len(waited), 4),
        time=round(min(1.0, share), 4),
    )
