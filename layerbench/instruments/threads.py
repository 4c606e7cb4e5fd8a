"""Work in threads that a forward starts: what watches the forward must see it there, too.

Dispatch modes belong to a thread, and so does what is running. Whoever starts a thread, or hands a
task to a pool, while modes are on takes them along; and where a module is called in a thread that
was there before, they are put on for the call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from multiprocessing.pool import ThreadPool
from typing import Any

from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from layerbench.instruments.module_tracker import RunningModule

# Where a pool takes a task, whose first argument is the function to run.
_TASKS = (
    (ThreadPoolExecutor, "submit"),
    (ThreadPool, "apply_async"),
    (ThreadPool, "_map_async"),
    (ThreadPool, "imap"),
    (ThreadPool, "imap_unordered"),
)
# What a pool's own threads run: they outlive the forward, their tasks bring the modes.
_POOLS = ("concurrent.futures.thread", "multiprocessing.pool")


class Carrier:
    """Takes the modes that are on now, and the calls that are running, into other threads.

    Made in the thread that runs the forward.

    Args:
        running: what is to know which module runs.
    """

    def __init__(self, running: RunningModule) -> None:
        self._running = running
        self._thread = threading.get_ident()
        self._modes = _get_current_dispatch_mode_stack()
        self._calls = running.stack()
        self._on = True

    def is_elsewhere(self) -> bool:
        """Whether this thread is another one."""
        return threading.get_ident() != self._thread

    @contextmanager
    def present(self) -> Iterator[None]:
        """The modes on and the calls running in this thread, if they are not."""
        with self._as_in(self._modes, self._calls):
            yield

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let threads and tasks started in the block take everything along; never after it."""
        if not self._modes:
            yield
            return
        before: list[tuple[Any, str, Any]] = [(threading.Thread, "start", threading.Thread.start)]
        before += [(kind, name, getattr(kind, name)) for kind, name in _TASKS]
        try:
            for kind, name, function in before:
                wrapped = self._start if kind is threading.Thread else self._task
                setattr(kind, name, wrapped(function))
            yield
        finally:
            self._on = False
            for kind, name, function in before:
                setattr(kind, name, function)

    def _start(self, start: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(start)
        def started(thread: threading.Thread) -> None:
            target = getattr(thread, "_target", None)
            if getattr(target, "__module__", None) not in _POOLS:
                run = self._taken_along(thread.run)
                thread.run = run  # type: ignore[method-assign]
            start(thread)

        return started

    def _task(self, give: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(give)
        def given(
            pool: Any,  # noqa: ANN401 - one of several kinds
            function: Callable[..., Any],
            /,
            *args: Any,  # noqa: ANN401 - the function's own
            **kwargs: Any,  # noqa: ANN401 - the function's own
        ) -> Any:  # noqa: ANN401 - what stands for the result
            return give(pool, self._taken_along(function), *args, **kwargs)

        return given

    def _taken_along(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function to be run elsewhere, as if it ran here."""
        modes, calls = _get_current_dispatch_mode_stack(), self._running.stack()
        if not modes:
            return function

        def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any function
            with self._as_in(modes, calls):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def _as_in(self, modes: Sequence[TorchDispatchMode], calls: Sequence[int]) -> Iterator[None]:
        here = _get_current_dispatch_mode_stack()
        missing = [mode for mode in modes if mode not in here] if self._on else []
        with self._running.within(calls):
            for mode in missing:
                _push_mode(mode)
            try:
                yield
            finally:
                for mode in reversed(missing):
                    _pop_mode(getattr(mode, "_mode_key", None))
