"""The frozen result types. SI units inside: seconds and bytes. No torch.

One file for each kind of record: `timing`, `structure`, `memory`, `comparison`. A value that is not
known is ``None`` and the record says why; it is never 0.
"""

from layerbench.records.comparison import (
    CHANGES,
    Change,
    ComparedRow,
    Comparison,
    Difference,
    Method,
    Side,
)
from layerbench.records.memory import (
    CATEGORIES,
    PHASES,
    AllocatorFigures,
    Category,
    Fit,
    Interval,
    MemoryEstimate,
    MemoryReport,
    MemoryRow,
    Peak,
    Phase,
    ProcessMemory,
    TensorRow,
    TimelinePoint,
    Totals,
    Workspace,
)
from layerbench.records.structure import Operator, Structure, StructureRow
from layerbench.records.timing import (
    SCHEMA,
    Kind,
    LayerRow,
    Profile,
    Reconciliation,
    Shape,
    StopReason,
    Summary,
    Verdict,
)

__all__ = [
    "CATEGORIES",
    "CHANGES",
    "PHASES",
    "SCHEMA",
    "AllocatorFigures",
    "Category",
    "Change",
    "ComparedRow",
    "Comparison",
    "Difference",
    "Fit",
    "Interval",
    "Kind",
    "LayerRow",
    "MemoryEstimate",
    "MemoryReport",
    "MemoryRow",
    "Method",
    "Operator",
    "Peak",
    "Phase",
    "ProcessMemory",
    "Profile",
    "Reconciliation",
    "Shape",
    "Side",
    "StopReason",
    "Structure",
    "StructureRow",
    "Summary",
    "TensorRow",
    "TimelinePoint",
    "Totals",
    "Verdict",
    "Workspace",
]
