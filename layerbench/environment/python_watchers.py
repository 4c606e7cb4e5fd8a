"""What watches Python's calls and lines: coverage, profilers, debuggers. Loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

# Of those that `sys.monitoring` has room for.
TOOLS = range(6)


@contextmanager
def unwatched() -> Iterator[None]:
    """Suspend what traces or profiles Python, such as the measurement of a suite's coverage.

    It would slow each call of a module, and a record may be from a run without it. From Python 3.12
    on some of them, as cProfile, are tools of `sys.monitoring`.
    """
    with ExitStack() as stack:
        _suspend(sys.gettrace(), sys.settrace, stack)
        _suspend(sys.getprofile(), sys.setprofile, stack)
        events = _monitored()
        stack.callback(_monitor, events)
        _monitor(dict.fromkeys(events, 0))
        yield


def _suspend(watcher: Any, set_: Callable[[Any], object], stack: ExitStack) -> None:  # noqa: ANN401
    """Take off the function that hears of every call, until the stack ends."""
    if watcher is None:
        return
    if callable(watcher):
        stack.callback(set_, watcher)
        set_(None)
    elif hasattr(watcher, "enable") and hasattr(watcher, "disable"):
        # cProfile before Python 3.12, whose function is C's: Python cannot set it again.
        stack.callback(watcher.enable)
        watcher.disable()
    # Any other one could not be put back, so it stays.


def _monitored() -> dict[int, int]:
    """The events that each tool hears of everywhere; none before Python 3.12."""
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is None:
        return {}
    return {tool: monitoring.get_events(tool) for tool in TOOLS if monitoring.get_tool(tool)}


def _monitor(events: dict[int, int]) -> None:
    monitoring: Any = getattr(sys, "monitoring", None)
    for tool, which in events.items():
        # One that has ended meanwhile hears nothing any more.
        if monitoring.get_tool(tool):
            monitoring.set_events(tool, which)
