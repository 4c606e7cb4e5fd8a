"""PyTorch's profiler, of which a process has one: who else uses it, and what its library prints.

A second profiler ends the first, or cancels one that is about to start, and its owner loses the
trace. So it is asked first.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile as autograd_profile

RUNS = "another profiler is running"
WARMS_UP = "another profiler is in the warm-up of its schedule, and ours would cancel its trace"

_LOG_LEVEL = "KINETO_LOG_LEVEL"
_SILENT = 99
# The level that PyTorch gives the library when that is first used; before it is 0.
_ERRORS = 4
_LEVEL_IN_LIBRARY = "_ZN9libkineto6Logger14severityLevel_E"
# Under which name PyTorch counts the steps of a `torch.profiler.profile` that has begun.
_STEPS = "ProfilerStep"


def other_profiler(*, thorough: bool = False) -> str:
    """Why the profiler is not free; empty where it is.

    Args:
        thorough: whether all objects are looked through, a tenth of a second for a million. Else
            that is done only where PyTorch counts the steps of a profiler.
    """
    if is_profiling():
        return RUNS
    if (thorough or _STEPS in _steps()) and _is_prepared():
        return WARMS_UP
    return ""


def is_profiling() -> bool:
    """Whether a profiler runs in any thread: a second one would end it and lose what it has."""
    here = bool(torch.autograd._profiler_enabled())  # type: ignore[attr-defined]
    # PyTorch tells of this thread's alone; its Python module keeps a flag for the process.
    return here or bool(getattr(torch.autograd.profiler, "_is_profiler_enabled", False))


def _is_prepared() -> bool:
    """Whether a profiler has been prepared and not started, as while its schedule warms up.

    PyTorch's library has no question for that, and its Python module no flag: only the profiler's
    own object shows it.
    """
    return any(
        isinstance(one, autograd_profile)
        and getattr(one, "entered", False)
        and getattr(one, "kineto_results", None) is None
        and getattr(one, "profiling_start_time_ns", None) == 0
        for one in gc.get_referrers(autograd_profile)
    )


def _steps() -> dict[str, int]:
    tracker = getattr(torch.autograd.profiler, "KinetoStepTracker", None)
    steps: dict[str, int] = getattr(tracker, "_step_dict", {})
    return steps


@contextmanager
def steps_kept() -> Iterator[None]:
    """Let PyTorch count on as before the block: a profiler of ours would take away that count."""
    steps = _steps()
    before = steps.get(_STEPS)
    try:
        yield
    finally:
        if before is not None:
            steps[_STEPS] = before


@contextmanager
def library_silent() -> Iterator[None]:
    """Without it the profiler's library writes lines to stderr, also where nothing is wrong.

    On its first use it asks the environment, which is the process's owner's and is left as it was;
    where that says something, it counts. Afterwards the level is in the library's memory, where it
    is set for the block.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    level = _level_in_library()
    before = _ERRORS if level is None else level.value or _ERRORS
    os.environ[_LOG_LEVEL] = str(_SILENT)
    if level is not None:
        level.value = _SILENT
    try:
        yield
    finally:
        os.environ.pop(_LOG_LEVEL, None)
        if level is not None:
            level.value = before


def _level_in_library() -> Any:  # noqa: ANN401 - a number of ctypes
    """The level from which on the profiler's library prints; ``None`` where it is not to be had."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        library = Path(torch.__file__).parent / "lib" / name
        if library.exists():
            try:
                return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), _LEVEL_IN_LIBRARY)
            except (OSError, ValueError):
                return None
    return None
