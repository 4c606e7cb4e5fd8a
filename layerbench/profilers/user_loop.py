"""Time the layers of a model while the user's own loop runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from itertools import pairwise
from threading import get_ident
from typing import Any

import numpy as np
from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.utils.hooks import RemovableHandle

from layerbench.environment.devices.clocks import Clock
from layerbench.errors import first_line
from layerbench.instruments.attach import Forward, attributes_replaced, function_at, usual_place
from layerbench.instruments.blocks import find_blocks
from layerbench.instruments.compiled import (
    COMPILED,
    any_compiled,
    inside_compiled,
    is_compiled,
    is_traced,
)
from layerbench.instruments.flops import FlopCounter
from layerbench.instruments.function_timer import FunctionTimer
from layerbench.instruments.layer_timer import (
    ROOT,
    LayerTimer,
    Spans,
    arrays_of,
    fold_spans,
    notes_on_threads,
    spans_of,
    typical_calls,
)
from layerbench.instruments.modes import Observing
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import (
    CallFacts,
    CallObserver,
    ObservedCalls,
    checked_module,
    module_facts,
    named_instances,
    shapes_of,
    without_reach,
)
from layerbench.instruments.overlay import compilation_told
from layerbench.instruments.rows import function_rows, module_rows
from layerbench.instruments.work import Work, counted_work, with_work
from layerbench.profilers.ceilings import with_ceilings
from layerbench.profilers.user_loop_compiled import LATER, CompiledOutside
from layerbench.profilers.user_loop_device import is_power_of_two, surroundings_of_loop
from layerbench.profilers.user_loop_functions import LoopFunctions
from layerbench.profilers.user_loop_record import Moment, Seen, record_of, workload_of
from layerbench.records import samples
from layerbench.records.bounds import Shape
from layerbench.records.presented import Presented
from layerbench.records.timing import CHANGED, ONCE, LayerRow, Profile
from layerbench.records.workload import Workload

# Marks are made compact in bulk: seldom enough that it disappears beside the forwards.
DRAIN_AT = 100_000
# Those of a device are events, of which few are made, all at once and between two forwards. A drain
# of so many calls makes the device wait for less than a hundredth of what they take.
DRAIN_EVENTS_AT = 4_096
# A very long loop keeps every second forward, then every fourth, ...: memory stays bounded, and
# the kept ones are spread over the whole loop.
KEEP_AT_MOST = 20_000


class LiveLayers(Presented):
    """What `time_layers` has seen so far; it is shown and saved as its `record`.

    The first forward is looked at closely (shapes, FLOPs, functions) and its times are kept only
    if no other follows; forward 2, 4, 8, ... (from 0) time the functions; all others the modules.

    Args:
        model: what will run; it is looked at when it first does.
        clock: ``None`` takes that of the device that its parameters are on by then.
        flops: whether FLOPs are counted.

    Attributes:
        forwards: forwards of the model that ended without an error.
        absent: what has no figures, and why: ``layers``, ``functions``, ``flops``.
    """

    def __init__(self, model: nn.Module, clock: Clock | None = None, *, flops: bool = True) -> None:
        self.forwards = 0
        self.absent: dict[str, str] = {} if flops else {"flops": "not asked for"}
        self._model = checked_module(model)
        self._given = clock
        self._observes = flops
        self._look()
        self._timing = ExitStack()
        self._handles = RemovableHandle.next_id
        self._timer: LayerTimer  # of the first forward on
        self._elsewhere: set[int] = set()
        self._inside = False
        self._outside = CompiledOutside(model, lambda: self._inside)
        self._attached = False
        self._ends: list[int] = []  # where each pending forward's entries end
        self._drain_at = DRAIN_AT
        self._marks = 0  # of a forward
        self._first: Spans | None = None
        self._kept: list[Spans] = []
        self._whole: list[int] = []  # on an accelerator, the same forwards on its clock
        self._drained = 0
        self._stride = 1
        self._functions = LoopFunctions()
        self._seen: dict[str, CallFacts] = {}
        self._work: Work = {}
        self._came_in: tuple[Shape, ...] = ()
        self._changed = False
        self._ceilings = False
        self._workload: Workload | None = None
        self._began = self._ended = Moment.now()
        self._made: tuple[int, Profile] | None = None

    def _look(self, inputs: object = ()) -> None:
        """See what the model consists of, and where it is."""
        model = self._model
        given, observes = self._given, self._observes
        self._where = surroundings_of_loop(model, inputs, given, observes=observes)
        self._clock, self._on_device = self._where.clock, self._where.side
        self._mark = self._clock.mark
        self._facts = module_facts(model)
        self._modules = named_instances(model)
        self._view = find_blocks(model)
        self._with_functions = frozenset(f.path for f in self._facts if f.composite) | {""}
        self._note_compiled()

    def _note_compiled(self) -> None:
        if is_compiled(self._model):
            self.absent["layers"] = self.absent["functions"] = self.absent["flops"] = COMPILED
        elif any_compiled(self._model):
            self.absent["functions in compiled parts"] = self.absent["flops"] = COMPILED

    def _new_timer(self, short_cut: bool) -> LayerTimer:
        return LayerTimer(
            self._model,
            [fact.path for fact in self._facts],
            self._paths_to_time(),
            self._clock,
            called_directly=frozenset(p for p, c in self._seen.items() if c.direct)
            if short_cut
            else frozenset(),
            short_cut=short_cut,
            open_to_user=True,
        )

    def _paths_to_time(self) -> frozenset[str]:
        """Those under which the modules of the beginning still are."""
        there = named_instances(self._model)
        return frozenset(
            fact.path
            for fact in self._facts
            if fact.reachable and there.get(fact.path) is self._modules[fact.path]
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time the model for the duration of a ``with`` block."""
        place = usual_place(self._model)
        root = (self._model, place, self._root_forward(function_at(self._model, place)))
        with (
            attributes_replaced([root], open_to_user=True),
            compilation_told(self._compiled_meanwhile),
            self._outside.noticed(),
            self._timing,
        ):
            if self._first is not None:
                self._attach()
            self._attached = True
            try:
                yield
            finally:
                self._attached = False
                self._ended = Moment.now()
                self.absent |= self._outside.absent(self.forwards)

    def _compiled_meanwhile(self, module: nn.Module) -> None:
        """Out of the way of what the loop's owner compiles: it would be compiled again later."""
        if module is self._model:
            self._attached = False
            self.absent[LATER] = "the model was compiled while it was timed"
        self._timing.close()
        self._handles = -1

    def _leave_out(self, compiled: set[int]) -> None:
        self._facts = without_reach(self._facts, self._model, compiled)
        if compiled and not is_compiled(self._model):
            self.absent["functions in compiled parts"] = COMPILED

    def _attach(self) -> None:
        self._timing.enter_context(self._timer.attached())

    def _renew_timer(self) -> None:
        """Look again which modules have hooks; the model must be without instruments."""
        self._drain()
        if self._handles < 0:
            self._leave_out(inside_compiled(self._model))
        self._handles = RemovableHandle.next_id
        self._elsewhere |= self._timer.recording.elsewhere
        self._timer = self._new_timer(short_cut=True)

    def _root_forward(self, original: Forward) -> Forward:
        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            # Of a model that calls itself the outer call counts; what traces it must not see us.
            if is_dynamo_compiling() or self._inside or not self._attached or is_traced():
                return original(*args, **kwargs)
            self._inside = True
            try:
                output = self._forward(original, args, kwargs)
            finally:
                self._inside = False
            self.forwards += 1
            self._where.conditions.take()
            return output

        return forward

    def _forward(self, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        number = self.forwards
        if self._first is None:
            output = self._first_forward(original, args, kwargs)
            self._renew_timer()
            self._attach()
            return output
        if RemovableHandle.next_id != self._handles:  # somebody has registered a hook
            self._timing.close()
            self._renew_timer()
            self._attach()
        if is_power_of_two(number):
            self._changed = self._changed or shapes_of((args, kwargs)) != self._came_in
        if self._looks_at(number):
            return self._function_forward(original, args, kwargs)
        return self._timed_forward(original, args, kwargs)

    def _looks_at(self, number: int) -> bool:
        if self._on_device is not None:
            return self._on_device.looks_at(number)
        return "functions" not in self.absent and is_power_of_two(number)

    def _timed_forward(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        self._clock.reserve(self._marks)
        thread = self._timer.recording.thread
        thread.add(get_ident())
        run = forward if self._on_device is None else self._on_device.whole(forward)
        start = self._mark()
        try:
            output = run(*args, **kwargs)
        except BaseException:
            del self._timer.entries[self._pending() :]  # half a forward is no sample
            raise
        finally:
            end = self._mark()
            thread.clear()
        entries = self._timer.entries
        entries.append((ROOT, start, end))
        self._ends.append(len(entries))
        if len(entries) >= self._drain_at or (self._on_device and self._on_device.is_full):
            self._drain()
        return output

    def _pending(self) -> int:
        """How much of the timer's entries belongs to forwards that have ended."""
        return self._ends[-1] if self._ends else 0

    def _first_forward(
        self, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        outputs: list[Any] = []

        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self._look_at_functions(lambda: outputs.append(original(*args, **kwargs)), outputs)
            return outputs[0]

        def observed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with counting.on() if "flops" not in self.absent else nullcontext():
                self._seen = observer.observe(forward, args, kwargs, within=True)
            return outputs[0]

        self._look((args, kwargs))  # again: its owner may have moved it, or replaced a layer
        self._timer = self._new_timer(short_cut=False)
        self._workload = workload_of(self._model, args, kwargs)
        self._came_in = shapes_of((args, kwargs))
        running = RunningModule(self._model)
        counter = FlopCounter(running)
        counting = Observing(counter)
        with self._timer.attached():
            # Each instrument wraps what is on the modules when it is made, so these three nest.
            observer = CallObserver(self._model, self._facts, running)
            output = self._timed_forward(observed, args, kwargs)
        self._keep_work(counter, counting.unseen)
        self._drain()
        self._first = self._kept.pop()
        self._whole.clear()
        self._drained = 0
        self._leave_out(observer.compiled)
        self._make_room()
        return output

    def _make_room(self) -> None:
        """Make what the marks of the forwards to come need, as many as are kept until a drain."""
        if self._first is None or self._clock.resolve_host([]) is None:
            return
        calls = len(self._first.device)
        self._marks = 2 * calls
        self._drain_at = max(DRAIN_EVENTS_AT, 2 * calls)
        self._clock.reserve(2 * (self._drain_at + calls))

    def _keep_work(self, counter: FlopCounter, unseen: str) -> None:
        if unseen:
            self.absent["flops"] = unseen
        if "flops" in self.absent or not isinstance(self._seen, ObservedCalls):
            return
        try:
            self._work = counted_work(self._modules, self._seen, counter)
        except Exception as error:  # which the loop's owner must not meet
            self.absent["flops"] = f"they could not be told: {first_line(error)}"

    def _function_forward(
        self, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        self._drain()
        self._timing.close()
        outputs: list[Any] = []
        try:
            self._look_at_functions(lambda: outputs.append(original(*args, **kwargs)), outputs)
        finally:
            # Anew, so that what others have put there meanwhile lies beneath and is called.
            self._renew_timer()
            self._attach()
        return outputs[0]

    def _look_at_functions(self, call: Callable[[], None], outputs: list[Any]) -> None:
        """Run a forward, with its functions timed where that can be.

        What is raised after the forward has given its output is a fault of ours, and the loop's
        owner must not meet it.
        """
        device = self._on_device
        if self._first is not None and device is not None:
            timed = self._paths_to_time()
            self.absent |= device.look(self._model, self._facts, timed, call, outputs)
            return
        if "functions" in self.absent:
            call()
            return
        timer = FunctionTimer(self._model, self._facts, self._with_functions, self._clock)
        try:
            sampled = timer.run(call, release=self._first is not None)
        except Exception as error:
            if not outputs:
                raise
            self._leave_functions(f"a look at the functions failed: {first_line(error)}")
            return
        if sampled.unseen:
            self._leave_functions(sampled.unseen)
        else:
            self._functions.add(sampled)

    def _leave_functions(self, why: str) -> None:
        self.absent["functions"] = why
        self._functions.clear()

    def _drain(self) -> None:
        """Turn the pending marks into positions, and give the marks back."""
        if not self._ends:
            return
        entries = self._timer.entries
        whole = [0] * len(self._ends) if self._on_device is None else self._on_device.drained()
        for (start, end), time in zip(pairwise((0, *self._ends)), whole, strict=True):
            self._clock.wait(entries[end - 1][2])
            self._marks = max(self._marks, 2 * (end - start))
            if self._drained % self._stride == 0:
                self._kept.append(spans_of(entries[start:end], self._clock))
                self._whole.append(time)
            self._drained += 1
        if len(self._kept) > KEEP_AT_MOST:
            self._kept, self._whole = self._kept[::2], self._whole[::2]
            self._stride *= 2
        self._clock.release()
        del entries[: self._pending()]
        self._ends.clear()

    @property
    def rows(self) -> tuple[LayerRow, ...]:
        """A row for every module and for the functions that composite modules run themselves.

        Empty before the first forward has ended. May be asked for inside the loop.
        """
        nothing = self._first is None or self._workload is None
        return () if nothing else self.record.layers  # which is not made anew at each question

    @property
    def record(self) -> Profile:
        """The rows with the whole, what ran and where, as `layerbench.profile` gives them.

        Raises:
            UsageError: no forward has ended yet.
        """
        if self._made is None or self._made[0] != self.forwards:
            ended = Moment.now() if self._attached else self._ended
            seen = self._seen_so_far()
            if seen is None:
                raise self._outside.no_forward()
            made = record_of(seen, self._began, ended, self._where.device, self._where.conditions)
            if self._ceilings:
                made = with_ceilings(made, self._where.device)
            self._made = (self.forwards, made)
        return self._made[1]

    def measure_ceilings(self) -> None:
        """Measure what the device reaches at best, which says what bounds a layer: about 0.5 s.

        The record has it from now on, once in a process for each number format. Call it while the
        device has nothing else to do.
        """
        self._ceilings, self._made = True, None
        if self.forwards:
            _ = self.record

    def presented(self) -> Profile:
        """The record so far."""
        return self.record

    def _seen_so_far(self) -> Seen | None:
        if self._first is None or self._workload is None:
            return None
        self._drain()
        kept = self._kept or [self._first]
        timed = [fold_spans(spans, len(self._facts)) for spans in kept]
        arrays = arrays_of(timed)
        functions = self._functions.forwards
        device = self._on_device if self._on_device and self._on_device.traced else None
        if device is not None:
            functions = device.functions(self._facts, self._with_functions)
            arrays = device.arrays(arrays, self._whole)
        view = self._view.seen_running(self._seen)
        modules = module_rows(self._facts, self._seen, typical_calls(timed), view, functions)
        arrays[samples.FUNCTIONS] = np.array([f.times_ns for f in functions], dtype=np.int64)
        worked = [with_work(row, self._work) for row in modules]
        of_functions = function_rows(functions, modules, view)
        seen = Seen(self._workload, worked, of_functions, arrays, self.absent, self.notes)
        return seen if device is None else device.shown(seen)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the rows must know."""
        if self._first is None:
            return ()
        paths = [fact.path for fact in self._facts]
        elsewhere = self._elsewhere | self._timer.recording.elsewhere
        once, changed = (ONCE,) * (self.forwards == 1), (CHANGED,) * self._changed
        device = self._on_device.notes(paths) if self._on_device else ()
        threads = notes_on_threads(paths, elsewhere)
        return tuple(dict.fromkeys((*once, *changed, *device, *threads)))


@contextmanager
def time_layers(
    model: nn.Module, clock: Clock | None = None, *, flops: bool = True, ceilings: bool = False
) -> Iterator[LiveLayers]:
    """Time every layer of ``model`` while the caller's own loop runs it.

    What is compiled is timed as one, and nothing is compiled again. A copy of the model that is
    made meanwhile, or a file it is saved to, has nothing of this in it.

    Args:
        model: any module; left as it was when the block ends, also by an exception. What the
            caller sets on it meanwhile stays.
        clock: ``None`` takes that of the device that the model's parameters are on.
        flops: count FLOPs in the first forward, whose time counts only if no other follows. No
            forward is added. False leaves it out, for a model that does not bear a dispatch mode.
        ceilings: when the block ends, measure what the device reaches at best, which says what
            bounds a layer; takes about half a second. `LiveLayers.measure_ceilings` does it later.

    Yields:
        the layers seen so far; read ``rows`` inside the block or after it.

    Example:
        >>> with time_layers(model) as layers:          # doctest: +SKIP
        ...     for batch in loader:
        ...         model(batch)
        >>> layers.rows                                  # doctest: +SKIP
    """
    layers = LiveLayers(model, clock, flops=flops)
    with layers.attached():
        yield layers
    if ceilings:
        layers.measure_ceilings()
