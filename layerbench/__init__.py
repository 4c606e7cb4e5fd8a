"""Time and memory of every layer of a PyTorch vision model, and whether to trust the number.

Importing this package loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerbench.analysis.comparison import compare
    from layerbench.api import (
        compare_live,
        estimate_memory,
        estimate_training_time,
        memory,
        profile,
        profile_training,
        structure,
        sweep,
        time_layers,
        train,
    )
    from layerbench.records import (
        Comparison,
        LayerRow,
        MemoryEstimate,
        MemoryReport,
        Profile,
        Recipe,
        Structure,
        Sweep,
        TrainingForecast,
        TrainingProfile,
        TrainingRun,
    )
    from layerbench.records.workload import Plan, Workload
    from layerbench.store import read

_HOMES = {
    "compare": "layerbench.analysis.comparison",
    "compare_live": "layerbench.api",
    "estimate_memory": "layerbench.api",
    "estimate_training_time": "layerbench.api",
    "memory": "layerbench.api",
    "profile": "layerbench.api",
    "profile_training": "layerbench.api",
    "structure": "layerbench.api",
    "sweep": "layerbench.api",
    "time_layers": "layerbench.api",
    "train": "layerbench.api",
    "read": "layerbench.store",
    "Comparison": "layerbench.records",
    "LayerRow": "layerbench.records",
    "MemoryEstimate": "layerbench.records",
    "MemoryReport": "layerbench.records",
    "Profile": "layerbench.records",
    "Structure": "layerbench.records",
    "TrainingProfile": "layerbench.records",
    "Recipe": "layerbench.records",
    "Sweep": "layerbench.records",
    "TrainingForecast": "layerbench.records",
    "TrainingRun": "layerbench.records",
    "Plan": "layerbench.records.workload",
    "Workload": "layerbench.records.workload",
}

__all__ = [
    "Comparison",
    "LayerRow",
    "MemoryEstimate",
    "MemoryReport",
    "Plan",
    "Profile",
    "Recipe",
    "Structure",
    "Sweep",
    "TrainingForecast",
    "TrainingProfile",
    "TrainingRun",
    "Workload",
    "__version__",
    "compare",
    "compare_live",
    "estimate_memory",
    "estimate_training_time",
    "memory",
    "profile",
    "profile_training",
    "read",
    "structure",
    "sweep",
    "time_layers",
    "train",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in _HOMES:
        raise AttributeError(f"module 'layerbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
