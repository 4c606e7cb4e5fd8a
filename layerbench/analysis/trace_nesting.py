"""Events of a trace set into each other: whose time each stretch is. No torch.

Events of a thread nest. All threads are walked through together, in the order of time, so that a
forward's operators are known when their nodes of the backward come, in whatever thread these run.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from layerbench.analysis import trace_places
from layerbench.analysis.trace_places import ROOT, Named, Places, is_step, named, phase_of
from layerbench.records.trace_events import (
    FRAME,
    KERNEL,
    LAUNCH,
    NONE,
    OPERATOR,
    RANGE,
    TraceEvents,
)
from layerbench.records.trace_profile import TracePhaseName

_NODE = "autograd::engine::evaluate_function: "
# Times of older traces are whole microseconds, so that ends may cross by one.
_ROUNDING_NS = 1_000
# Events that are Python's integers at a time: all of them would take eight times the columns.
_CHUNK = 65_536

MOST_STEPS = 2_000
"""Of a trace that count: more would tell no more, and take memory for their intervals."""
MOST_SAMPLES = 2**20
"""Places times steps."""

# What an event is for the walk.
_SKIPPED, _PLACED, _OPERATED, _NODED, _LAUNCHED = range(5)

Intervals = NDArray[np.int64]
"""Starts and ends in nanoseconds, shape (n, 2)."""
Key = tuple[int, int]
"""A place and a step."""


@dataclass(frozen=True)
class Steps:
    """The samples of a trace: profiler steps in order of time, or all of it as one.

    Attributes:
        start_ns, end_ns: of each.
        marked: whether the trace has marks of them.
        thread: that they are marked in; of a trace without, the one with most events.
        beyond: how many further ones are left out.
    """

    start_ns: list[int]
    end_ns: list[int]
    marked: bool
    thread: int
    beyond: int = 0

    @property
    def number(self) -> int:
        """How many."""
        return len(self.start_ns)

    def of(self, time_ns: int) -> int:
        """The step in which a moment lies; `NONE` between them."""
        at = bisect_right(self.start_ns, time_ns) - 1
        return at if at >= 0 and time_ns < self.end_ns[at] else NONE

    def held_by(self, start_ns: int, end_ns: int) -> bool:
        """Whether a stretch has a whole step in it."""
        at = bisect_right(self.start_ns, start_ns - 1)
        return at < self.number and self.end_ns[at] <= end_ns


@dataclass
class Launches:
    """What launched kernels: numbers that kernels repeat, the place, the step, and the phase."""

    number: array[int] = field(default_factory=lambda: array("q"))
    place: array[int] = field(default_factory=lambda: array("q"))
    step: array[int] = field(default_factory=lambda: array("q"))
    backward: array[int] = field(default_factory=lambda: array("q"))

    def add(self, number: int, place: int, step: int, backward: bool) -> None:
        """Note one."""
        self.number.append(number)
        self.place.append(place)
        self.step.append(step)
        self.backward.append(backward)


@dataclass
class Nesting:
    """Whose the times of a trace are, in nanoseconds.

    Attributes:
        places: modules and ranges.
        steps: the samples.
        calls, time, time_self, backward_self: by place and step; the root has no time of its own
            here.
        top: by step, what is in a module or range, or a node, of the steps' own thread.
        phases: by phase and step.
        operators: by name, calls and nanoseconds of its own.
        modules, ranges, others: stretches of the outermost ones, as starts and ends in turn.
        by_correlation, by_external: what launched kernels.
        held: names of ranges that hold whole steps, and name nothing.
        placed_nodes, nodes: nodes of the backward whose forward is known, and all of them.
        overlapping: events that end after the one that they began in.
        elsewhere: threads besides the steps' own in which modules or ranges ran.
    """

    places: Places
    steps: Steps
    calls: Counter[Key] = field(default_factory=Counter)
    time: Counter[Key] = field(default_factory=Counter)
    time_self: Counter[Key] = field(default_factory=Counter)
    backward_self: Counter[Key] = field(default_factory=Counter)
    top: Counter[int] = field(default_factory=Counter)
    phases: Counter[tuple[TracePhaseName, int]] = field(default_factory=Counter)
    operators: dict[str, list[int]] = field(default_factory=dict)
    modules: array[int] = field(default_factory=lambda: array("q"))
    ranges: array[int] = field(default_factory=lambda: array("q"))
    others: array[int] = field(default_factory=lambda: array("q"))
    by_correlation: Launches = field(default_factory=Launches)
    by_external: Launches = field(default_factory=Launches)
    held: dict[str, None] = field(default_factory=dict)
    placed_nodes: int = 0
    nodes: int = 0
    overlapping: int = 0
    elsewhere: set[int] = field(default_factory=set)

    @property
    def forward_known(self) -> bool:
        """Whether any node of the backward has its forward in the trace."""
        return self.placed_nodes > 0


@dataclass(slots=True)
class _Open:
    """An event that has begun.

    Attributes:
        what: of the kinds of the walk.
        place: innermost; ``backward``: whether it is part of a node.
        holder: the innermost one around it that is placed or a node.
        operator: the innermost operator or node around it.
        inside: nanoseconds of what is placed in it, or a node; ``operated`` of operators.
        in_module: whether a module, or a node, is around it.
    """

    what: int
    start: int
    end: int
    place: int
    step: int
    backward: bool
    sequence: int
    holder: _Open | None
    operator: _Open | None
    in_module: bool
    name: str
    phase: TracePhaseName | None
    inside: int = 0
    operated: int = 0


def nested(events: TraceEvents) -> Nesting:
    """Set the events into each other."""
    return _Walk(events).nesting


def steps_of(events: TraceEvents) -> Steps:
    """The samples of a trace."""
    marks = [
        number
        for number, (kind, name) in enumerate(events.labels)
        if kind in (RANGE, OPERATOR) and is_step(name)
    ]
    at = np.flatnonzero(np.isin(events.label, marks))
    if len(at):
        # Several processes or threads may mark steps: those of the first are the samples.
        thread = int(events.thread[at[np.argmin(events.start_ns[at])]])
        at = at[events.thread[at] == thread]
        at = at[np.argsort(events.start_ns[at], kind="stable")]
        starts = events.start_ns[at]
        ends = starts + events.duration_ns[at]
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
        kept = slice(MOST_STEPS)
        beyond = max(0, len(starts) - MOST_STEPS)
        return Steps(starts[kept].tolist(), ends[kept].tolist(), True, thread, beyond)
    kinds = np.array([kind for kind, _ in events.labels])[events.label]
    host = kinds != KERNEL
    chosen = host if host.any() else ~host
    starts, ends = events.start_ns[chosen], (events.start_ns + events.duration_ns)[chosen]
    thread = int(np.bincount(events.thread[chosen]).argmax())
    return Steps([int(starts.min())], [max(int(ends.max()), int(starts.min()) + 1)], False, thread)


class _Walk:
    """One way through all events of the host."""

    def __init__(self, events: TraceEvents) -> None:
        steps = steps_of(events)
        most = min(trace_places.MOST_PLACES, max(1, MOST_SAMPLES // steps.number))
        self.nesting = Nesting(Places(most=most), steps)
        self._events = events
        self._what = [_what(kind, name) for kind, name in events.labels]
        self._named: list[Named | None] = [
            named(name) if kind in (RANGE, FRAME) else None for kind, name in events.labels
        ]
        self._phase = [phase_of(name) if kind == RANGE else None for kind, name in events.labels]
        self._open: dict[int, list[_Open]] = {}
        # Of the operators of forwards: by thread and number the place, and which threads have it.
        self._forward: dict[tuple[int, int], int] = {}
        self._threads: dict[int, set[int]] = {}
        self._votes: dict[int, Counter[int]] = {}
        kinds = {kind for kind, _ in events.labels}
        self._has_kernels = KERNEL in kinds
        for values in self._in_order():
            self._begin(*values)
        for thread, stack in self._open.items():
            while stack:
                self._close(stack, thread)

    def _in_order(self) -> Iterator[tuple[int, int, int, int, int, int, int, int]]:
        """The events of the host in order of time, what holds others before them."""
        events = self._events
        skipped = [number for number, what in enumerate(self._what) if what == _SKIPPED]
        there = np.flatnonzero(~np.isin(events.label, skipped))
        order = there[np.lexsort((-events.duration_ns[there], events.start_ns[there]))]
        columns = (
            *(events.label, events.thread, events.start_ns, events.duration_ns),
            *(events.external, events.correlation, events.sequence, events.forward_thread),
        )
        for at in range(0, len(order), _CHUNK):
            part = order[at : at + _CHUNK]
            yield from zip(*(column[part].tolist() for column in columns), strict=True)

    def _begin(
        self,
        label: int,
        thread: int,
        start: int,
        duration: int,
        external: int,
        correlation: int,
        sequence: int,
        forward_thread: int,
    ) -> None:
        nesting = self.nesting
        stack = self._open.setdefault(thread, [])
        while stack and stack[-1].end <= start:
            self._close(stack, thread)
        top = stack[-1] if stack else None
        end = start + duration
        if top is not None and end > top.end:
            nesting.overlapping += end > top.end + _ROUNDING_NS
            end = top.end
        place = top.place if top else ROOT
        backward = top.backward if top else False
        step = nesting.steps.of(start)
        what = self._what[label]
        if what == _LAUNCHED:
            nesting.by_correlation.add(correlation, place, step, backward)
            return
        if what == _NODED or (what == _OPERATED and forward_thread > 0 and sequence >= 0):
            # The node itself lies in the engine's call of it, with the same number.
            is_inner = top is not None and top.backward and sequence in (top.sequence, NONE)
            what = _OPERATED if is_inner else _NODED
        if what == _PLACED:
            inner = self._named[label]
            assert inner is not None
            if nesting.steps.marked and nesting.steps.held_by(start, end):
                nesting.held[inner.name] = None
                return
            outer, place = place, nesting.places.within(place, inner)
            if place == outer:
                return
            if thread != nesting.steps.thread and not backward:
                nesting.elsewhere.add(thread)
        elif what == _NODED:
            found = self._place_of_node(sequence, forward_thread)
            nesting.nodes += 1
            nesting.placed_nodes += found is not None
            place, backward = (ROOT if found is None else found), True
        elif sequence >= 0 and forward_thread <= 0:
            self._forward[thread, sequence] = place
            self._threads.setdefault(sequence, set()).add(thread)
        if self._has_kernels and external >= 0:
            nesting.by_external.add(external, place, step, backward)
        holder = top if top is None or top.what != _OPERATED else top.holder
        operator = top if top is None or top.what != _PLACED else None
        opened = _Open(
            what,
            start,
            end,
            place,
            step,
            backward,
            sequence,
            holder,
            operator,
            bool(holder and holder.in_module),
            self._events.labels[label][1],
            self._phase[label],
        )
        self._note_outermost(opened)
        stack.append(opened)

    def _note_outermost(self, opened: _Open) -> None:
        """Note the stretch of what has no better name around it."""
        nesting, around = self.nesting, opened.holder
        place = nesting.places.every[opened.place]
        if opened.what == _OPERATED:
            if around is None and opened.operator is None:
                nesting.others.extend((opened.start, opened.end))
            return
        is_module = place.named.kind == "module" if opened.what == _PLACED else place.in_module
        if is_module and not opened.in_module:
            nesting.modules.extend((opened.start, opened.end))
            opened.in_module = True
            if opened.what == _PLACED and not opened.backward:
                self._phase_of("forward", opened)
        elif opened.place == ROOT:
            nesting.others.extend((opened.start, opened.end))
        elif around is None or around.place == ROOT:
            nesting.ranges.extend((opened.start, opened.end))
        if opened.phase is not None:
            self._phase_of(opened.phase, opened)
        if opened.what == _NODED and not (around and around.backward):
            self._phase_of("backward", opened)

    def _phase_of(self, phase: TracePhaseName, opened: _Open) -> None:
        """Count a stretch for a phase, and no more for the one around it.

        A closure, as Lightning has one, is called by the optimizer's step.
        """
        duration, around = opened.end - opened.start, opened.holder
        self.nesting.phases[phase, opened.step] += duration
        while around is not None and around.phase is None:
            around = around.holder
        if around is not None and around.phase is not None:
            self.nesting.phases[around.phase, around.step] -= duration

    def _place_of_node(self, sequence: int, forward_thread: int) -> int | None:
        """Where the operator of the forward ran that put a node into the graph."""
        threads = self._threads.get(sequence, ())
        if not threads:
            return None
        votes = self._votes.setdefault(forward_thread, Counter())
        if len(threads) == 1:
            (thread,) = threads
            votes[thread] += 1
            return self._forward[thread, sequence]
        # Each thread counts for itself: the one that other nodes of this forward are of.
        thread, number = max(((one, votes[one]) for one in threads), key=lambda pair: pair[1])
        return self._forward[thread, sequence] if number else None

    def _close(self, stack: list[_Open], thread: int) -> None:
        nesting, closed = self.nesting, stack.pop()
        duration = closed.end - closed.start
        key = (closed.place, closed.step)
        if closed.what == _OPERATED:
            counted = nesting.operators.setdefault(closed.name, [0, 0])
            if closed.step != NONE:
                counted[0] += 1
                counted[1] += max(0, duration - closed.operated)
            _pass_on(closed, duration)
            return
        own = max(0, duration - closed.inside)
        _pass_on(closed, duration)
        if closed.holder is not None:
            closed.holder.inside += duration
        elif thread == nesting.steps.thread:
            nesting.top[closed.step] += duration
        if closed.step == NONE:
            return
        if closed.backward:
            nesting.backward_self[key] += own
            return
        nesting.calls[key] += 1
        nesting.time[key] += duration
        nesting.time_self[key] += own


def _pass_on(closed: _Open, duration: int) -> None:
    """Take a time from the operator around it."""
    if closed.operator is not None:
        closed.operator.operated += duration


def _what(kind: int, name: str) -> int:
    if kind == KERNEL or is_step(name):
        return _SKIPPED
    if kind == LAUNCH:
        return _LAUNCHED
    if kind == OPERATOR:
        return _NODED if name.startswith(_NODE) else _OPERATED
    return _PLACED
