"""Time every layer of a PyTorch vision model, and know whether to trust the number.

Importing this package loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerbench.api import profile, time_layers
    from layerbench.records import LayerRow, Profile
    from layerbench.workload import Plan, Workload

_HOMES = {
    "profile": "layerbench.api",
    "time_layers": "layerbench.api",
    "LayerRow": "layerbench.records",
    "Profile": "layerbench.records",
    "Plan": "layerbench.workload",
    "Workload": "layerbench.workload",
}

__all__ = ["LayerRow", "Plan", "Profile", "Workload", "__version__", "profile", "time_layers"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in _HOMES:
        raise AttributeError(f"module 'layerbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
