"""Whether a notebook shows what this process has to say. Loads nothing for it."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any:  # noqa: ANN401 - IPython's shell, or None
    """The notebook's shell; ``None`` outside of one, also in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    running = ipython.get_ipython() if ipython is not None else None
    return running if getattr(running, "kernel", None) is not None else None


def is_running() -> bool:
    """Whether this process is the kernel of a notebook."""
    return shell() is not None
