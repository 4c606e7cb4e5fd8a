"""What runs on a node before it is known whether layerbench is installed there.

Ray sends these functions as they are, so they import the standard library only.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def describe() -> dict[str, Any]:
    """The node's devices and versions, as `layerbench.cluster.description` says them.

    Returns:
        the description, or why there is none under ``problem``.
    """
    try:
        from layerbench.cluster import measuring
    except ImportError as error:
        # Another version may be there, without this module.
        what = (error.name or "layerbench").partition(".")[0]
        return {"problem": f"has no {what} that can measure: install it for {sys.executable}"}
    try:
        return measuring.describe()
    except Exception as error:
        return {"problem": f"cannot be described: {error}"}


def answer() -> bool:
    """Whether a node is there."""
    return True


def node_variables() -> dict[str, str]:
    """The environment that the node was started in: Ray limits threads and hides GPUs in workers.

    What a task's runtime environment adds stays.
    """
    ours = dict(os.environ)
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            pairs = [one.partition(b"=") for one in file.read().split(b"\0") if b"=" in one]
    except OSError:
        return ours
    theirs = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    kept = ("PYTHONPATH", "PATH")
    return _without_rays_allocator(
        {**theirs, **{name: ours[name] for name in kept if name in ours}}
    )


def _without_rays_allocator(variables: dict[str, str]) -> dict[str, str]:
    """Without the library that Ray's own processes allocate by; what else is preloaded stays."""
    libraries = variables.get("LD_PRELOAD", "").replace(":", " ").split()
    left = [one for one in libraries if not one.endswith("/ray/core/libjemalloc.so")]
    others = {name: value for name, value in variables.items() if name != "LD_PRELOAD"}
    return {**others, "LD_PRELOAD": ":".join(left)} if left else others
