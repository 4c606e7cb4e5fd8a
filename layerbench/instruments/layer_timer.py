"""Time per module: inclusive and self, from marks at entry and exit of each ``forward``.

Known limitations: a scripted or compiled module is timed as one, its inside runs outside Python;
calls in other threads than the one that runs the model (threads that a forward starts,
`torch.nn.DataParallel`) are not timed: their time is part of whoever waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import chain
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import (
    Attachment,
    Forward,
    Replacement,
    function_at,
    has_property_for_forward,
    usual_place,
)
from layerbench.instruments.global_hooks import has_any_global_hook
from layerbench.instruments.modules import Call, modules_at
from layerbench.records import samples

Entry = tuple[int, int, int]
"""(module's index, mark at entry, mark at exit), or the same with positions for marks."""

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


@dataclass(frozen=True)
class Spans:
    """One forward's calls, marks turned into positions: compact, to be kept by the thousand.

    Attributes:
        device: shape (calls, 3), integers: module's index, start and end in nanoseconds, in the
            order in which the calls ended.
        host: the same on the host's clock, where the device has its own.
    """

    device: NDArray[np.int64]
    host: NDArray[np.int64] | None


def spans_of(entries: Sequence[Entry], clock: Clock) -> Spans:
    """Turn marks into positions; the clock must have been synchronized since the last mark."""
    calls = len(entries)
    flat = np.fromiter(chain.from_iterable(entries), dtype=np.int64, count=3 * calls)
    table = flat.reshape(calls, 3)
    marks = table[:, 1:].ravel().tolist()
    host = clock.resolve_host(marks)
    return Spans(
        _with_positions(table, clock.resolve(marks)),
        None if host is None else _with_positions(table, host),
    )


def _with_positions(table: NDArray[np.int64], positions: Sequence[int]) -> NDArray[np.int64]:
    return np.column_stack([table[:, 0], np.array(positions, dtype=np.int64).reshape(-1, 2)])


def fold_spans(spans: Spans, modules: int) -> TimedForward:
    """Add one forward up, on the device's clock and the host's."""
    return TimedForward(
        device=fold(spans.device.tolist(), modules),
        host=None if spans.host is None else fold(spans.host.tolist(), modules),
    )


def fold(spans: Iterable[Sequence[int]], modules: int) -> Folded:
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


class Recording:
    """Where timed calls are noted, and whether they are.

    Attributes:
        entries: of the calls so far, in the order in which they ended.
        thread: holds the identity of the thread whose calls are noted; empty, none are.
        elsewhere: indices of modules called by other threads meanwhile: their spans would not nest.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.thread: set[int] = set()
        self.elsewhere: set[int] = set()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Note the calls of this thread for the duration of a ``with`` block."""
        self.thread.add(get_ident())
        try:
            yield
        finally:
            self.thread.clear()


def timed(original: Forward, index: int, mark: Callable[[], int], recording: Recording) -> Forward:
    """A forward that marks its entry and exit, also when it raises, and changes nothing else.

    Written for cold caches: between two calls a convolution has swept them, so what counts is how
    little memory and code a call touches. A tuple appended by method costs half of what three
    appends to an ``array`` cost there, though those look cheaper in a tight loop
    (docs/decisions/0007). Where Dynamo traces it, it is the original.
    """
    entries, thread = recording.entries, recording.thread

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        if is_dynamo_compiling() or get_ident() not in thread:
            if thread and not is_dynamo_compiling():  # which refuses what reaches outside
                recording.elsewhere.add(index)
            return original(*args, **kwargs)
        start = mark()
        try:
            return original(*args, **kwargs)
        finally:
            entries.append((index, start, mark()))

    return forward


def timed_call(
    module: nn.Module, index: int, mark: Callable[[], int], recording: Recording
) -> Forward:
    """As `timed`, in the place of the module's ``_call_impl``.

    A module that has come to have hooks, another ``forward`` or another class is called as PyTorch
    calls it.
    """
    entries, thread = recording.entries, recording.thread
    beneath: Forward | None = module.__dict__.get("_call_impl")
    on_entry, on_exit, on_grad, on_grad_entry = (getattr(module, name) for name in _HOOKS)
    as_pytorch = beneath or function_at(module, "_call_impl")
    no_short_cut = beneath is not None or has_property_for_forward(type(module))

    @wraps(as_pytorch if no_short_cut else module.forward)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        if is_dynamo_compiling() or get_ident() not in thread:
            if thread and not is_dynamo_compiling():  # which refuses what reaches outside
                recording.elsewhere.add(index)
            return as_pytorch(*args, **kwargs)
        changed = on_entry or on_exit or on_grad or on_grad_entry or no_short_cut
        start = mark()
        try:
            if changed:
                return as_pytorch(*args, **kwargs)
            # By the instance and its present class: either may have got another one.
            return module.forward(*args, **kwargs)
        finally:
            entries.append((index, start, mark()))

    return call


# What nn.Module's call asks before it takes its short path to forward.
_HOOKS = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
# The short cut needs a call that looks _call_impl up on the instance, as torch 2.1 and later do.
_HAS_SHORT_CUT = "_call_impl" in getattr(nn.Module.__call__, "__code__", timed.__code__).co_names


def place_to_time(module: nn.Module, called_directly: bool = False) -> str:
    """The attribute of the instance whose replacement times the module.

    ``_call_impl`` where a module has no hooks: its place is taken by the timed forward itself,
    which saves as much (a frame, and looking for hooks in eight dictionaries) as timing adds.
    ``forward`` where there are hooks, or where somebody calls ``module.forward(...)`` by name. A
    module compiled in place is timed around its compiled call. (docs/decisions/0007)
    """
    if usual_place(module) != "forward":
        return usual_place(module)
    cls = type(module)
    usual = cls.__call__ is nn.Module.__call__ and cls._call_impl is nn.Module._call_impl
    everywhere = has_any_global_hook()
    hooked = everywhere or any(getattr(module, name) for name in _HOOKS)
    if called_directly or hooked or not usual or not _HAS_SHORT_CUT:
        return "forward"
    return "_call_impl"


def replacement(
    module: nn.Module, place: str, index: int, mark: Callable[[], int], recording: Recording
) -> Replacement:
    """What times a module, for `layerbench.instruments.attach`.

    Args:
        module, index, mark, recording: as for `timed`.
        place: an attribute of the module: ``_call_impl``, ``forward`` or ``_compiled_call_impl``.
    """
    if place == "_call_impl":
        return module, place, timed_call(module, index, mark, recording)
    return module, place, timed(function_at(module, place), index, mark, recording)


class LayerTimer:
    """Times the modules of a model by replacing what their call runs.

    The root is not touched: whoever calls the model marks before and after the call, as for the
    untouched forward, so that both wholes are taken at the same two points.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those to time; a call of any other counts as part of its caller.
        clock: where marks come from.
        called_directly: paths of modules whose ``forward`` is called by name.
        short_cut: whether `place_to_time` decides; else ``forward`` is replaced, so that another
            instrument made while this one is attached sees it.
        open_to_user: whether a user's own code runs while it is attached.

    Attributes:
        recording: what the timed calls are noted in; whoever attaches the timer turns it on.
        entries: of the calls so far; whoever runs the model adds the root's and clears it.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        timed_paths: frozenset[str],
        clock: Clock,
        called_directly: frozenset[str] = frozenset(),
        short_cut: bool = True,
        open_to_user: bool = False,
    ) -> None:
        self._clock = clock
        self._modules = len(paths)
        self.recording = Recording()
        self.entries = self.recording.entries
        index_of = {path: index for index, path in enumerate(paths)}
        replaced = [
            replacement(
                module,
                place_to_time(module, path in called_directly)
                if short_cut
                else usual_place(module),
                index_of[path],
                clock.mark,
                self.recording,
            )
            for path, module in modules_at(model, timed_paths - {""}).items()
        ]
        self._attachment = Attachment(replaced, open_to_user=open_to_user)

    def attached(self) -> AbstractContextManager[None]:
        """Time the modules for the duration of a ``with`` block, while `recording` is on."""
        return self._attachment.attached()

    def run(
        self, call: Call, marks: int, first: Call = lambda: None, last: Call = lambda: None
    ) -> TimedForward:
        """Run one instrumented forward of at most about ``marks`` marks and add it up.

        Args:
            call: runs the model once.
            marks: are made ready, if the clock needs that.
            first: runs before it, when all is attached; what it marks is not kept.
            last: runs right after it.
        """
        clock = self._clock
        mark = clock.mark
        clock.reserve(marks)
        with self.attached(), self.recording.on():
            first()
            self.entries.clear()
            start = mark()
            call()
            end = mark()
            last()
        clock.synchronize()
        self.entries.append((ROOT, start, end))
        try:
            return fold_spans(spans_of(self.entries, clock), self._modules)
        finally:
            clock.release()


def notes_on_threads(paths: Sequence[str], elsewhere: set[int]) -> tuple[str, ...]:
    """One sentence where modules were called in other threads, which are not timed."""
    names = ", ".join(paths[index] for index in sorted(elsewhere))
    return (f"called in other threads, whose work is not timed: {names}",) if names else ()


def arrays_of(forwards: Sequence[TimedForward]) -> dict[str, samples.Samples]:
    """The forwards' samples under the names of `layerbench.records.samples`; empty for none."""
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
    """Calls of each module in one forward: the most common number.

    Of a module that not every forward ran, the most common among those that did: with 0 calls it
    would have no time, and the rows would no longer add up to the whole.
    """
    calls = np.stack([forward.device.calls for forward in forwards])
    return [_most_common(column[column > 0]) for column in calls.T]


def _most_common(counts: NDArray[np.int64]) -> int:
    return int(np.bincount(counts).argmax()) if len(counts) else 0


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
