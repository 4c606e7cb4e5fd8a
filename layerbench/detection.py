"""Detectors: what training them will take, and a training taken apart.

The names here load torch when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerbench.registry import on_first_use

if TYPE_CHECKING:
    from layerbench.training.detection.estimate import estimate_detectors as estimate_detectors
    from layerbench.training.detection.estimate import estimate_time as estimate_time
    from layerbench.training.detection.memory import (
        get_model_memory_usage as get_model_memory_usage,
    )
    from layerbench.training.detection.models import get_device as get_device
    from layerbench.training.detection.models import get_model as get_model
    from layerbench.training.detection.models import names as names
    from layerbench.training.detection.options import EstimateOptions as EstimateOptions

__getattr__, __all__ = on_first_use(
    __name__,
    "layerbench.training.detection.estimate: estimate_detectors estimate_time",
    "layerbench.training.detection.memory: get_model_memory_usage",
    "layerbench.training.detection.models: get_device get_model names",
    "layerbench.training.detection.options: EstimateOptions",
)


def __dir__() -> list[str]:
    return __all__
