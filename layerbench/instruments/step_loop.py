"""A training step that its user's own loop runs: what happened when, and which phase that was.

Nobody hands the step over in pieces here. Whatever can be seen is noted with its begin and its end:
fetches of batches, forwards, backwards, updates of the optimizer, cleared gradients. The time
between two of them belongs to a phase by what comes before and after it (`phases_of`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import get_ident
from typing import Literal

import torch
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]

from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import attributes_replaced
from layerbench.instruments.layer_timer import fold
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.step_nodes import Node, let_go
from layerbench.instruments.step_places import ROOT, Call, Places
from layerbench.instruments.step_timer import OF_MICRO_BATCH, StepTimer, TimedStep, added
from layerbench.records.training_step import STEP_PHASES, StepPhase

Kind = Literal["fetch", "forward", "backward", "update", "clear", "evaluation", "other", "ours"]
"""``update``: the optimizer's; ``clear``: of gradients; ``evaluation``: a forward without training;
``other``: what else ends a phase and is none; ``ours``: what is no part of the loop."""


@dataclass(frozen=True)
class Happening:
    """Something that was seen, between two positions or marks."""

    kind: Kind
    begin: int
    end: int


@dataclass(frozen=True)
class LoopPhases:
    """The phases of one step, nanoseconds.

    Attributes:
        micro_batches_ns: of each micro-batch, those before the optimizer.
        optimizer_ns: of the step.
        between_ns: what lies between the phases, such as logging and evaluation.
        fetched: whether a batch was seen to be fetched; else ``data`` has all before the forward.
        within: what was seen inside a forward, a backward or a fetch, and is a part of that.
    """

    micro_batches_ns: tuple[tuple[int, ...], ...]
    optimizer_ns: int
    between_ns: int
    fetched: bool
    within: frozenset[Kind] = frozenset()

    @property
    def phases_ns(self) -> tuple[int, ...]:
        """In the order of `STEP_PHASES`."""
        return (*map(sum, zip(*self.micro_batches_ns, strict=True)), self.optimizer_ns)


def phases_of(happenings: Sequence[Happening], start: int, end: int) -> LoopPhases:
    """Part the time of a step.

    ============================  ==================================================
    phase                         what belongs to it
    ============================  ==================================================
    data                          fetches; where none is seen, all before the forward
    copy                          from the fetch to the forward
    forward, backward             themselves
    loss                          from the forward to the next one, or to the backward
    optimizer                     from the backward to the update's end, between an update's
                                  closures, too; clearing gradients
    ============================  ==================================================

    All else is between the phases. A micro-batch begins with the first forward after a backward,
    unless the optimizer has made an update since, or makes both in one update (by a closure).

    Args:
        happenings: in any order; an update that runs the forward (a closure) holds it.
        start, end: of the step.
    """
    return _Parting(_without_closures(happenings)).run(start, end)


# With the number of the update that it is a part of.
_Placed = tuple[Happening, int | None]


def _without_closures(happenings: Sequence[Happening]) -> list[_Placed]:
    """An update that ran forward and backward itself begins when these have ended."""
    updates = [one for one in happenings if one.kind == "update"]
    flat: list[_Placed] = []
    for one in happenings:
        if one.kind == "update":
            inside = [two.end for two in happenings if _holds(one, two)]
            flat.append((replace(one, begin=max(inside)) if inside else one, None))
        else:
            around = (at for at, update in enumerate(updates) if _holds(update, one))
            flat.append((one, next(around, None)))
    return sorted(flat, key=lambda placed: (placed[0].begin, placed[0].end))


def _holds(update: Happening, one: Happening) -> bool:
    return one is not update and update.begin <= one.begin and one.end <= update.end


class _Parting:
    """Parts one step; see `phases_of`."""

    def __init__(self, placed: Sequence[_Placed]) -> None:
        self._happenings = [one for one, _ in placed]
        self._updates = [update for _, update in placed]
        self._fetched = any(one.kind == "fetch" for one in self._happenings)
        self._done: list[dict[StepPhase, int]] = []
        self._present: dict[StepPhase, int] = {}
        self._coming: dict[StepPhase, int] = {}
        self._optimizer = 0
        self._before: Kind | None = None
        self._has_batch = False
        self._has_updated = False
        self._last_update: int | None = None

    def run(self, start: int, end: int) -> LoopPhases:
        at = start
        for number, one in enumerate(self._happenings):
            self._add(self._gap(number), one.begin - at)
            self._add(self._phase(number, one), one.end - max(at, one.begin))
            self._pass(one)
            at = max(at, one.end)
        self._close()
        parts = tuple(
            tuple(part.get(name, 0) for name in STEP_PHASES[:OF_MICRO_BATCH]) for part in self._done
        )
        counted = sum(map(sum, parts)) + self._optimizer
        ours = sum(one.end - one.begin for one in self._happenings if one.kind == "ours")
        return LoopPhases(parts, self._optimizer, end - start - counted - ours, self._fetched)

    def _following(self, number: int) -> Kind | None:
        rest = self._happenings[number:]
        return next((one.kind for one in rest if one.kind != "ours"), None)

    def _phase(self, number: int, one: Happening) -> StepPhase | None:
        if one.kind == "forward":
            self._begin_forward(self._updates[number])
            return "forward"
        if one.kind == "fetch":
            return "data" if self._is_for_training(number) else None
        if one.kind in ("update", "clear"):
            return "optimizer"
        return "backward" if one.kind == "backward" else None

    def _is_for_training(self, number: int) -> bool:
        """Whether what comes after a fetch is a forward, perhaps with an evaluation before it."""
        is_evaluated = False
        for one in self._happenings[number + 1 :]:
            if one.kind == "evaluation":
                is_evaluated = True
            elif one.kind == "fetch" and not is_evaluated:
                continue
            elif one.kind not in ("clear", "ours"):
                return one.kind == "forward"
        return False

    def _gap(self, number: int) -> StepPhase | None:
        """The phase that the time from what was before to this happening belongs to."""
        before, following = self._before, self._following(number)
        to_forward = following in ("forward", "clear")
        update = self._updates[number]
        again = update is not None and number > 0 and update == self._updates[number - 1]
        if again and to_forward and before == "backward":
            # Between two closures the optimizer thinks: where to step next, or how far.
            return "optimizer"
        if self._has_batch and (to_forward or self._is_evaluated(number)):
            return "copy"
        if following == "backward" or (to_forward and before == "forward"):
            return "loss"
        if following in ("update", "clear") and before in ("backward", "update", "clear"):
            return "optimizer"
        fetches = before == "fetch" == following and self._is_for_training(number)
        waits = fetches or (to_forward and not self._fetched)
        return "data" if waits else None

    def _is_evaluated(self, number: int) -> bool:
        """Whether a batch is evaluated, and then goes to a forward."""
        return self._following(number) == "evaluation" and self._is_for_training(number - 1)

    def _pass(self, one: Happening) -> None:
        if one.kind == "ours":
            return
        if one.kind == "fetch":
            self._has_batch = True
        elif one.kind not in ("clear", "evaluation"):
            self._has_batch = False
            if one.kind in ("update", "backward"):
                self._has_updated = one.kind == "update"
        # Clearing gradients may come anywhere; it is no sign of what the loop is at.
        if one.kind != "clear" or self._before in (None, "evaluation", "other"):
            self._before = one.kind

    def _begin_forward(self, update: int | None) -> None:
        within = update is not None and update == self._last_update
        if "backward" in self._present and not self._has_updated and not within:
            self._close()
        self._last_update = update
        for name, spent in self._coming.items():
            self._present[name] = self._present.get(name, 0) + spent
        self._coming = {}

    def _close(self) -> None:
        """A forward that no backward followed is no micro-batch."""
        if "backward" in self._present:
            self._done.append(self._present)
        self._present = {}

    def _add(self, phase: StepPhase | None, spent: int) -> None:
        if phase is None:
            return
        if phase == "optimizer":
            self._optimizer += spent
            return
        to = self._coming if phase in ("data", "copy") else self._present
        to[phase] = to.get(phase, 0) + spent


class StepLog:
    """Notes what happens in one step, by a clock's marks.

    Attributes:
        is_whole: false where something in it raised.
        start: mark of its begin.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mark = clock.mark
        self._thread = get_ident()
        self._open: list[tuple[Kind, int]] = []
        self._noted: list[Happening] = []
        self._within: set[Kind] = set()
        self._ended = 0
        self.is_whole = True
        self.start = clock.mark()

    def begin(self, kind: Kind) -> int:
        """Something of this kind begins, perhaps within something else; gives the mark.

        In another thread it is within what this one waits for, and not marked.
        """
        if get_ident() != self._thread:
            self._within.add(kind)
            return self.start
        mark = self._mark()
        self._open.append((kind, mark))
        return mark

    def end(self, kind: Kind | None = None) -> int:
        """What began last has ended.

        What is inside anything but an update, which runs closures, is a part of that: an optimizer
        that updates in the backward, a data set that reads from another loader.

        Args:
            kind: that it turned out to be; ``None`` for the kind with which it began.
        """
        if get_ident() != self._thread:
            return self.start
        mark = self._mark()
        if self._open:  # of what raised, the end may never have been told, or too late
            seemed, begin = self._open.pop()
            self._ended += 1
            if all(around == "update" for around, _ in self._open):
                self._noted.append(Happening(kind or seemed, begin, mark))
            else:
                self._within.add(kind or seemed)
        return mark

    @contextmanager
    def during(self, kind: Kind) -> Iterator[None]:
        """Something of this kind happens in the ``with`` block."""
        self.begin(kind)
        became: Kind | None = None
        try:
            yield
        except StopIteration:
            became = "other"  # there are no more batches
            raise
        except BaseException:
            self.is_whole = self.is_whole and kind in ("evaluation", "other")
            raise
        finally:
            self.end(became)

    def is_inside(self, kind: Kind) -> bool:
        """Whether something of this kind goes on."""
        return any(one == kind for one, _ in self._open)

    def has(self, kind: Kind) -> bool:
        """Whether something of this kind has happened."""
        return kind in self._within or any(one.kind == kind for one in self._noted)

    @property
    def has_ended(self) -> bool:
        """Whether nothing raised, and nothing goes on."""
        return self.is_whole and not self._open

    @property
    def marks(self) -> int:
        """How many were taken."""
        return 2 * self._ended + 2

    def phases(self, end: int, origin: int) -> LoopPhases:
        """The phases; the clock must have been synchronized.

        Args:
            end: mark of the step's end.
            origin: mark at position 0.
        """
        noted = [mark for one in self._noted for mark in (one.begin, one.end)]
        begin, last, *flat = self._clock.resolve([self.start, end, *noted], origin)
        pairs = zip(self._noted, flat[::2], flat[1::2], strict=True)
        phases = phases_of([Happening(one.kind, *at) for one, *at in pairs], begin, last)
        return replace(phases, within=frozenset(self._within))


@dataclass
class _Backward:
    """A backward: the marks around it, and what was marked in it."""

    begin: int
    places: Places
    taken: Sequence[tuple[int, int]]
    end: int


@dataclass
class _Passed:
    """A micro-batch: the calls of its forwards, between numbers of autograd, and its backwards."""

    calls: list[Call]
    first: int
    last: int
    backwards: list[_Backward] = field(default_factory=list)


class LoopStepTimer(StepTimer):
    """Times forward and backward by row in a step that a user's loop runs.

    Whoever sees the loop's forwards and backwards tells of them; all else is as in `StepTimer`.
    """

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time the rows for the duration of a ``with`` block around one step."""
        self._passed: list[_Passed] = []
        self._held: deque[Node] = deque()
        self.counts = False
        with (
            recomputations_told(self._again),
            attributes_replaced(self._replaced, open_to_user=True),
        ):
            try:
                yield
            finally:
                let_go(self._held)

    def before_forward(self) -> None:
        """A forward of the model is about to begin."""
        self._number = _get_sequence_nr()
        if not self._passed or self._passed[-1].backwards:
            self._calls = []
            self._passed.append(_Passed(self._calls, self._number, self._number))
        self.counts = True

    def after_forward(self, begin: int, end: int) -> None:
        """It has ended.

        Args:
            begin, end: marks around it.
        """
        self.counts = False
        self._passed[-1].last = _get_sequence_nr()
        self._calls.append((ROOT, begin, end, self._number, self._passed[-1].last))

    @contextmanager
    def hooked(self, losses: Sequence[torch.Tensor]) -> Iterator[None]:
        """Hooks on the nodes of the backward that comes, for the duration of a ``with`` block."""
        present = self._passed[-1]
        let_go(self._held)
        with ExitStack() as handles:
            self._handles = handles
            self._places = Places(present.calls, self._above, present.first, present.last)
            self._held.extend(self._nodes.hook(losses, self._places, handles))
            handles.enter_context(self._again.backward(self._places))
            yield

    def after_backward(self, begin: int, end: int) -> None:
        """A backward has ended, within `hooked`.

        Args:
            begin, end: marks around it.
        """
        one = _Backward(begin, self._places, self._nodes.taken, end)
        self._passed[-1].backwards.append(one)

    @property
    def marks(self) -> int:
        """How many the step has taken besides those of its log."""
        backwards = [one for passed in self._passed for one in passed.backwards]
        calls = sum(2 * len(passed.calls) for passed in self._passed)
        return calls + sum(len(one.taken) for one in backwards)

    def step(self, phases: LoopPhases, origin: int) -> TimedStep:
        """The step that has ended; the clock must have been synchronized.

        Args:
            phases: of the same step.
            origin: mark at position 0.
        """
        done = [self._of_micro_batch(one, origin) for one in self._passed if one.backwards]
        return replace(added(done), phases_ns=phases.phases_ns)

    def _of_micro_batch(self, one: _Passed, origin: int) -> TimedStep:
        flat = self._clock.resolve([mark for call in one.calls for mark in call[1:3]], origin)
        spans = [
            (call[0], begin, end)
            for call, begin, end in zip(one.calls, flat[::2], flat[1::2], strict=True)
        ]
        folded = fold(spans, self._rows)
        each = [self._of_backward(backward, origin) for backward in one.backwards]
        return added([replace(backward, forward=folded) for backward in each[:1]] + each[1:])

    def _of_backward(self, one: _Backward, origin: int) -> TimedStep:
        marks = [one.begin, *(mark for _, mark in one.taken), one.end]
        return self._backward_by_row(one, self._clock.resolve(marks, origin))
