"""Time per module: inclusive and self, from marks at entry and exit of each ``forward``.

Known limitations: a scripted module is timed as one, its inside runs outside Python; a module
called from several threads at once (`torch.nn.DataParallel`) is not supported.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from layerbench import samples
from layerbench.clocks import Clock
from layerbench.instruments.attach import Forward, forwards_replaced
from layerbench.instruments.structure import Call, modules_at

Span = tuple[int, int, int]
"""(module's index, its start, its end)."""

Entries = Sequence[int]
"""Flat triples (module's index, mark at entry, mark at exit), in the order the calls ended.

Flat integers rather than tuples: kept by the hundred thousand, tuples would cost memory and
have the garbage collector look through them inside the forwards.
"""

ROOT = 0


@dataclass(frozen=True)
class Folded:
    """One forward, added up per module.

    Attributes:
        inclusive_ns, self_ns: shape (modules,), integer nanoseconds; the self times of all
            modules add up to the root's inclusive time exactly.
        calls: shape (modules,).
    """

    inclusive_ns: NDArray[np.int64]
    self_ns: NDArray[np.int64]
    calls: NDArray[np.int64]


@dataclass(frozen=True)
class TimedForward:
    """One instrumented forward: on the device's clock, and on the host's where that is another."""

    device: Folded
    host: Folded | None


def fold(spans: Iterable[Span], modules: int) -> Folded:
    """Add up calls per module.

    ``spans`` holds (module, start, end) in the order in which the calls ended, so whatever a
    call did not find claimed by an inner call, and began after it, is its own child. A module
    that calls itself has the inner call's time once in its inclusive time, not twice.
    """
    inclusive = [0] * modules
    own = [0] * modules
    calls = [0] * modules
    unclaimed: list[tuple[int, int]] = []
    same_module: dict[int, list[tuple[int, int]]] = {}
    for index, start, end in spans:
        duration = end - start
        children = 0
        while unclaimed and unclaimed[-1][0] >= start:
            children += unclaimed.pop()[1]
        unclaimed.append((start, duration))
        own[index] += duration - children
        calls[index] += 1
        earlier = same_module.setdefault(index, [])
        while earlier and earlier[-1][0] >= start:
            inclusive[index] -= earlier.pop()[1]
        earlier.append((start, duration))
        inclusive[index] += duration
    return Folded(
        np.array(inclusive, dtype=np.int64),
        np.array(own, dtype=np.int64),
        np.array(calls, dtype=np.int64),
    )


def fold_marks(entries: Entries, clock: Clock, modules: int) -> TimedForward:
    """Turn marks into positions and add them up, on the device's clock and the host's.

    The clock must have been synchronized since the last mark.
    """
    indexes, starts, ends = entries[::3], entries[1::3], entries[2::3]
    marks = [*starts, *ends]
    host = clock.resolve_host(marks)
    return TimedForward(
        device=_fold_positions(indexes, clock.resolve(marks), modules),
        host=None if host is None else _fold_positions(indexes, host, modules),
    )


def _fold_positions(indexes: Sequence[int], positions: Sequence[int], modules: int) -> Folded:
    """``positions`` holds all starts, then all ends."""
    calls = len(indexes)
    return fold(zip(indexes, positions[:calls], positions[calls:], strict=True), modules)


def timed(
    original: Forward, index: int, mark: Callable[[], int], append: Callable[[int], None]
) -> Forward:
    """A forward that marks its entry and exit, also when it raises, and changes nothing else."""

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        start = mark()
        try:
            return original(*args, **kwargs)
        finally:
            append(index)
            append(start)
            append(mark())

    return forward


class LayerTimer:
    """Times the modules of a model by wrapping their ``forward``.

    The root is not wrapped: whoever calls the model marks before and after the call, as for the
    untouched forward, so that both wholes are taken at the same two points.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those to wrap; a call of any other counts as part of its caller.
        clock: where marks come from.

    Attributes:
        entries: the triples of `Entries`; whoever runs the model adds the root's and clears it.
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], timed_paths: frozenset[str], clock: Clock
    ) -> None:
        self._clock = clock
        self._modules = len(paths)
        self.entries = array("q")
        index_of = {path: index for index, path in enumerate(paths)}
        self._wrapped = {
            module: timed(module.forward, index_of[path], clock.mark, self.entries.append)
            for path, module in modules_at(model, timed_paths - {""}).items()
        }

    def attached(self) -> AbstractContextManager[None]:
        """Wrap the modules for the duration of a ``with`` block."""
        return forwards_replaced(self._wrapped)

    def run(self, call: Call, marks: int) -> TimedForward:
        """Run one instrumented forward of at most about ``marks`` marks and add it up."""
        clock = self._clock
        mark = clock.mark
        clock.reserve(marks)
        del self.entries[:]
        with self.attached():
            start = mark()
            call()
            end = mark()
        clock.synchronize()
        self.entries.extend((ROOT, start, end))
        try:
            return fold_marks(self.entries, clock, self._modules)
        finally:
            clock.release()


def arrays_of(forwards: Sequence[TimedForward]) -> dict[str, samples.Samples]:
    """The forwards' samples under the names of `layerbench.samples`; empty for none."""
    if not forwards:
        return {}
    inclusive = np.stack([forward.device.inclusive_ns for forward in forwards])
    arrays = {
        samples.INSTRUMENTED: inclusive[:, ROOT].copy(),
        samples.INCLUSIVE: inclusive,
        samples.SELF: np.stack([forward.device.self_ns for forward in forwards]),
    }
    hosts = [forward.host for forward in forwards if forward.host is not None]
    if hosts:
        arrays[samples.HOST + samples.INCLUSIVE] = np.stack([h.inclusive_ns for h in hosts])
        arrays[samples.HOST + samples.SELF] = np.stack([h.self_ns for h in hosts])
    return arrays


def typical_calls(forwards: Sequence[TimedForward]) -> list[int]:
    """Calls of each module in one forward: the most common number."""
    calls = np.stack([forward.device.calls for forward in forwards])
    return [int(np.bincount(column).argmax()) for column in calls.T]


def run_untouched(call: Call, clock: Clock) -> tuple[int, int | None]:
    """Run one forward with nothing attached.

    Returns:
        nanoseconds on the device's clock, and on the host's where that is another.
    """
    mark = clock.mark
    clock.reserve(2)
    start = mark()
    call()
    end = mark()
    clock.synchronize()
    try:
        first, last = clock.resolve([start, end])
        host = clock.resolve_host([start, end])
        return last - first, None if host is None else host[1] - host[0]
    finally:
        clock.release()
