"""Rows for spreadsheets and data frames: fields of records as they are, seconds and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from layerbench.records.bounds import Shape
from layerbench.records.environment import Environment
from layerbench.records.workload import Frozen, Workload, precision_of
from layerbench.units import by_x

if TYPE_CHECKING:
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.sweep import Sweep
    from layerbench.records.timing import Profile, Summary
    from layerbench.records.training_step import TrainingProfile

Cells = dict[str, object]
"""Values by the name of the column; ``None`` where something was not measured."""
Rows = tuple[Cells, Sequence[Cells]]
"""What all rows have in common, and the rows."""


def fields(row: Frozen, *names: str) -> Cells:
    """Fields by their names, all of them where none is named."""
    return {name: cell(name, getattr(row, name)) for name in names or type(row).model_fields}


def cell(name: str, value: object) -> object:
    """A field's value; several texts, shapes or sizes in one cell."""
    if not isinstance(value, tuple):
        return value
    if name == "kernel_size":
        return by_x(value)
    return shapes(value) if name.endswith("_shapes") else "; ".join(value)


def shapes(shapes: Iterable[Shape]) -> str:
    """Shapes as the command line reads them: ``1x3x500x334``; several with a blank between."""
    return " ".join(map(by_x, shapes))


def what_ran(workload: Workload, *more: str) -> Cells:
    """The workload's usual fields, and others of its by name."""
    usual = fields(workload, "model", "input", "batch")
    return usual | formats(workload) | fields(workload, "memory_format", "mode", *more)


def formats(work: Workload | Sweep) -> Cells:
    """Number format of the weights, and the precision by the name that a command line has."""
    return {"dtype": work.dtype, "precision": work.precision or precision_of(work.dtype)}


def modules(record: Structure | MemoryReport | MemoryEstimate) -> Rows:
    """A row a module, with all that is known of it."""
    return what_ran(record.workload), [fields(row) for row in record.rows]


def place(environment: Environment) -> Cells:
    """Device and threads."""
    return {"device": environment.device.name, "threads": environment.machine.threads}


def origin(record: Profile | TrainingProfile, *code: str) -> Cells:
    """Place, versions and date, and as much of the code's state as is named."""
    environment = record.environment
    return {
        "device": environment.device.name,
        "threads": environment.machine.threads or record.plan.threads,
        "torch": environment.software.packages.get("torch"),
        **fields(environment.software, *code),
        "started": environment.started,
    }


def figures(name: str, summary: Summary | None, *which: str) -> Cells:
    """Figures of a summary, each with the name of what it is of: ``forward_mean_s``."""
    return {f"{name}_{figure}_s": getattr(summary, figure, None) for figure in which}


def durations(row: Frozen, *names: str) -> Cells:
    """Durations and the ends of their intervals."""
    ends = {"_s": "value", "_low_s": "low", "_high_s": "high"}
    return {
        f"{name}{ending}": getattr(getattr(row, name), end)
        for name in names
        for ending, end in ends.items()
    }
