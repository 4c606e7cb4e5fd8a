"""The frozen result types. SI units inside: seconds and bytes. No torch.

One file for each kind of record, loaded when one of its names is first asked for: who compares two
profiles does not wait for all other kinds. A value that is not known is ``None`` and the record
says why; it is never 0.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerbench.records.bounds import Shape
    from layerbench.records.bundle import Bundle
    from layerbench.records.comparison import (
        CHANGES,
        Change,
        ComparedRow,
        Comparison,
        Difference,
        Method,
        Side,
    )
    from layerbench.records.detection_estimate import (
        BoxesFrom,
        ContentFit,
        ContentPoint,
        DetectionEstimates,
        DetectorEstimate,
        DetectorFailure,
        DetectorMemory,
        Found,
        Labels,
        PartRow,
    )
    from layerbench.records.detection_run import (
        BOTTLENECKS,
        Bottleneck,
        BottleneckKind,
        DetectionEpoch,
        DetectionRecipe,
        DetectionRun,
        OperatorRow,
        TunePoint,
        Tuning,
        Usage,
        UsageSample,
    )
    from layerbench.records.memory import (
        CATEGORIES,
        OUTSIDE_ROW,
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
    from layerbench.records.sweep import FinishedRun, Sweep, SweepEnd, SweepPoint
    from layerbench.records.timing import (
        SCHEMA,
        Ceilings,
        Kind,
        LayerRow,
        Profile,
        Reconciliation,
        StopReason,
        Summary,
        Verdict,
    )
    from layerbench.records.training_estimate import Seconds, TrainingEstimate
    from layerbench.records.training_run import (
        PRECISIONS,
        EpochRow,
        Outcome,
        Precision,
        RankTimes,
        Recipe,
        TrainingRun,
        Unreadable,
    )
    from layerbench.records.training_step import (
        STEP_PHASES,
        PhaseRow,
        StepPhase,
        TrainingMemory,
        TrainingProfile,
        TrainingRow,
    )

__all__ = [
    "BOTTLENECKS",
    "CATEGORIES",
    "CHANGES",
    "OUTSIDE_ROW",
    "PHASES",
    "PRECISIONS",
    "SCHEMA",
    "STEP_PHASES",
    "AllocatorFigures",
    "Bottleneck",
    "BottleneckKind",
    "BoxesFrom",
    "Bundle",
    "Category",
    "Ceilings",
    "Change",
    "ComparedRow",
    "Comparison",
    "ContentFit",
    "ContentPoint",
    "DetectionEpoch",
    "DetectionEstimates",
    "DetectionRecipe",
    "DetectionRun",
    "DetectorEstimate",
    "DetectorFailure",
    "DetectorMemory",
    "Difference",
    "EpochRow",
    "FinishedRun",
    "Fit",
    "Found",
    "Interval",
    "Kind",
    "Labels",
    "LayerRow",
    "MemoryEstimate",
    "MemoryReport",
    "MemoryRow",
    "Method",
    "Operator",
    "OperatorRow",
    "Outcome",
    "PartRow",
    "Peak",
    "Phase",
    "PhaseRow",
    "Precision",
    "ProcessMemory",
    "Profile",
    "RankTimes",
    "Recipe",
    "Reconciliation",
    "Seconds",
    "Shape",
    "Side",
    "StepPhase",
    "StopReason",
    "Structure",
    "StructureRow",
    "Summary",
    "Sweep",
    "SweepEnd",
    "SweepPoint",
    "TensorRow",
    "TimelinePoint",
    "Totals",
    "TrainingEstimate",
    "TrainingMemory",
    "TrainingProfile",
    "TrainingRow",
    "TrainingRun",
    "TunePoint",
    "Tuning",
    "Unreadable",
    "Usage",
    "UsageSample",
    "Verdict",
    "Workspace",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "bundle": ("Bundle",),
    "comparison": (
        "CHANGES",
        "Change",
        "ComparedRow",
        "Comparison",
        "Difference",
        "Method",
        "Side",
    ),
    "detection_estimate": (
        "BoxesFrom",
        "ContentFit",
        "ContentPoint",
        "DetectionEstimates",
        "DetectorEstimate",
        "DetectorFailure",
        "DetectorMemory",
        "Found",
        "Labels",
        "PartRow",
    ),
    "detection_run": (
        "BOTTLENECKS",
        "Bottleneck",
        "BottleneckKind",
        "DetectionEpoch",
        "DetectionRecipe",
        "DetectionRun",
        "OperatorRow",
        "TunePoint",
        "Tuning",
        "Usage",
        "UsageSample",
    ),
    "training_estimate": (
        "Seconds",
        "TrainingEstimate",
    ),
    "memory": (
        "CATEGORIES",
        "OUTSIDE_ROW",
        "PHASES",
        "AllocatorFigures",
        "Category",
        "Fit",
        "Interval",
        "MemoryEstimate",
        "MemoryReport",
        "MemoryRow",
        "Peak",
        "Phase",
        "ProcessMemory",
        "TensorRow",
        "TimelinePoint",
        "Totals",
        "Workspace",
    ),
    "training_run": (
        "PRECISIONS",
        "EpochRow",
        "Outcome",
        "Precision",
        "RankTimes",
        "Recipe",
        "TrainingRun",
        "Unreadable",
    ),
    "structure": (
        "Operator",
        "Structure",
        "StructureRow",
    ),
    "sweep": (
        "FinishedRun",
        "Sweep",
        "SweepEnd",
        "SweepPoint",
    ),
    "timing": (
        "SCHEMA",
        "Ceilings",
        "Kind",
        "LayerRow",
        "Profile",
        "Reconciliation",
        "Shape",
        "StopReason",
        "Summary",
        "Verdict",
    ),
    "training_step": (
        "STEP_PHASES",
        "PhaseRow",
        "StepPhase",
        "TrainingMemory",
        "TrainingProfile",
        "TrainingRow",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
