"""Time and memory of every layer of a PyTorch vision model, and whether to trust the number.

Importing this package loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from layerbench._version import __version__

if TYPE_CHECKING:
    from layerbench.analysis.comparison import compare
    from layerbench.api.comparison import compare_live
    from layerbench.api.memory import estimate_memory, memory
    from layerbench.api.structure import structure
    from layerbench.api.sweep import sweep
    from layerbench.api.timing import profile
    from layerbench.api.training import estimate_training_time, profile_training, train
    from layerbench.profilers.user_loop import time_layers
    from layerbench.records.comparison import Comparison
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.sweep import Sweep
    from layerbench.records.timing import LayerRow, Profile
    from layerbench.records.training_estimate import TrainingEstimate
    from layerbench.records.training_run import Recipe, TrainingRun
    from layerbench.records.training_step import TrainingProfile
    from layerbench.records.workload import Plan, Workload
    from layerbench.store.reading import read

_HOMES = {
    "compare": "layerbench.analysis.comparison",
    "compare_live": "layerbench.api.comparison",
    "estimate_memory": "layerbench.api.memory",
    "estimate_training_time": "layerbench.api.training",
    "memory": "layerbench.api.memory",
    "profile": "layerbench.api.timing",
    "profile_training": "layerbench.api.training",
    "structure": "layerbench.api.structure",
    "sweep": "layerbench.api.sweep",
    "time_layers": "layerbench.profilers.user_loop",
    "train": "layerbench.api.training",
    "read": "layerbench.store.reading",
    "Comparison": "layerbench.records.comparison",
    "LayerRow": "layerbench.records.timing",
    "MemoryEstimate": "layerbench.records.memory",
    "MemoryReport": "layerbench.records.memory",
    "Profile": "layerbench.records.timing",
    "Structure": "layerbench.records.structure",
    "TrainingProfile": "layerbench.records.training_step",
    "Recipe": "layerbench.records.training_run",
    "Sweep": "layerbench.records.sweep",
    "TrainingEstimate": "layerbench.records.training_estimate",
    "TrainingRun": "layerbench.records.training_run",
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
    "TrainingEstimate",
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
