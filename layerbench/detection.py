"""Detectors: what training them will take, and a training taken apart.

The names here load torch when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerbench.training.detection.estimate import estimate_detectors, estimate_time
    from layerbench.training.detection.memory import get_model_memory_usage
    from layerbench.training.detection.models import get_device, get_model, names
    from layerbench.training.detection.options import EstimateOptions

__all__ = [
    "EstimateOptions",
    "estimate_detectors",
    "estimate_time",
    "get_device",
    "get_model",
    "get_model_memory_usage",
    "names",
]

_HOMES = {
    "EstimateOptions": "options",
    "estimate_detectors": "estimate",
    "estimate_time": "estimate",
    "get_device": "models",
    "get_model": "models",
    "get_model_memory_usage": "memory",
    "names": "models",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"layerbench.training.detection.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
