"""Time the layers of a model while the user's own loop runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn
from torch.utils.hooks import RemovableHandle

from layerbench import devices, samples
from layerbench.assembly import layer_rows
from layerbench.clocks import Clock
from layerbench.instruments.attach import Forward, forwards_replaced
from layerbench.instruments.blocks import find_blocks
from layerbench.instruments.functions import FunctionForward, FunctionTimer
from layerbench.instruments.rows import function_rows, module_rows
from layerbench.instruments.structure import CallFacts, CallObserver, module_facts
from layerbench.instruments.timing import (
    ROOT,
    LayerTimer,
    Spans,
    arrays_of,
    fold_spans,
    spans_of,
    typical_calls,
)
from layerbench.records import LayerRow

# Marks are made compact in bulk: seldom enough that it disappears beside the forwards.
DRAIN_AT = 100_000
# A very long loop keeps every second forward, then every fourth, ...: memory stays bounded, and
# the kept ones are spread over the whole loop.
KEEP_AT_MOST = 20_000


class LiveLayers:
    """What `time_layers` has seen so far.

    The first forward is looked at closely (shapes, functions) and its times are kept only if no
    other follows; forward 2, 4, 8, ... (from 0) time the functions; all others the modules.

    Attributes:
        forwards: forwards of the model that ended without an error.
    """

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        self.forwards = 0
        self._model = model
        self._clock = clock
        self._mark = clock.mark
        self._facts = module_facts(model)
        self._with_functions = frozenset(f.path for f in self._facts if f.composite) | {""}
        self._functions = FunctionTimer(model, self._facts, self._with_functions, clock)
        self._original: Forward = model.forward
        self._timer = self._new_timer(short_cut=False)
        self._timing = ExitStack()
        self._handles = RemovableHandle.next_id
        self._inside = False
        self._ends: list[int] = []  # where each pending forward's entries end
        self._first: Spans | None = None
        self._kept: list[Spans] = []
        self._drained = 0
        self._stride = 1
        self._function_forwards: list[FunctionForward] = []
        self._seen: dict[str, CallFacts] = {}

    def _new_timer(self, short_cut: bool) -> LayerTimer:
        return LayerTimer(
            self._model,
            [fact.path for fact in self._facts],
            frozenset(fact.path for fact in self._facts if fact.reachable),
            self._clock,
            called_directly=frozenset(p for p, c in self._seen.items() if c.direct)
            if short_cut
            else frozenset(),
            short_cut=short_cut,
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time the model for the duration of a ``with`` block."""
        with forwards_replaced({self._model: self._root_forward()}), self._timing:
            if self._first is not None:
                self._attach()
            yield

    def _attach(self) -> None:
        self._timing.enter_context(self._timer.attached())

    def _renew_timer(self) -> None:
        """Look again which modules have hooks; the model must be without instruments."""
        self._drain()
        self._handles = RemovableHandle.next_id
        self._timer = self._new_timer(short_cut=True)

    def _root_forward(self) -> Forward:
        @wraps(self._original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if self._inside:  # a model that calls itself: the outer call counts
                return self._original(*args, **kwargs)
            self._inside = True
            try:
                output = self._forward(args, kwargs)
            finally:
                self._inside = False
            self.forwards += 1
            return output

        return forward

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        number = self.forwards
        if number == 0:
            output = self._first_forward(args, kwargs)
            self._renew_timer()
            self._attach()
            return output
        if number >= 2 and number & (number - 1) == 0:
            return self._function_forward(args, kwargs)
        if RemovableHandle.next_id != self._handles:  # somebody has registered a hook
            self._timing.close()
            self._renew_timer()
            self._attach()
        return self._timed_forward(self._original, args, kwargs)

    def _timed_forward(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        start = self._mark()
        try:
            output = forward(*args, **kwargs)
        except BaseException:
            del self._timer.entries[self._pending() :]  # half a forward is no sample
            raise
        end = self._mark()
        entries = self._timer.entries
        entries.append((ROOT, start, end))
        self._ends.append(len(entries))
        if len(entries) >= DRAIN_AT:
            self._drain()
        return output

    def _pending(self) -> int:
        """How much of the timer's entries belongs to forwards that have ended."""
        return self._ends[-1] if self._ends else 0

    def _first_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        # Each instrument wraps what is on the modules when it is made, so these three nest.
        observer = CallObserver(self._model, self._facts)
        outputs: list[Any] = []

        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            functions = FunctionTimer(self._model, self._facts, self._with_functions, self._clock)
            call = lambda: outputs.append(self._original(*args, **kwargs))  # noqa: E731
            self._function_forwards = [functions.run(call, release=False)]
            return outputs[0]

        def observed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self._seen = observer.observe(forward, args, kwargs)
            return outputs[0]

        with self._timer.attached():
            output = self._timed_forward(observed, args, kwargs)
        self._drain()
        self._first = self._kept.pop()
        self._drained = 0
        return output

    def _function_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        self._drain()
        self._timing.close()
        outputs: list[Any] = []
        try:
            sampled = self._functions.run(lambda: outputs.append(self._original(*args, **kwargs)))
        finally:
            self._attach()
        if sampled.facts == self._function_forwards[0].facts:
            if self.forwards == 2:
                self._function_forwards.clear()  # the first forward's were taken cold
            self._function_forwards.append(sampled)
        return outputs[0]

    def _drain(self) -> None:
        """Turn the pending marks into positions, and give the marks back."""
        if not self._ends:
            return
        self._clock.synchronize()
        entries = self._timer.entries
        for start, end in pairwise((0, *self._ends)):
            if self._drained % self._stride == 0:
                self._kept.append(spans_of(entries[start:end], self._clock))
            self._drained += 1
        if len(self._kept) > KEEP_AT_MOST:
            self._kept = self._kept[::2]
            self._stride *= 2
        self._clock.release()
        del entries[: self._pending()]
        self._ends.clear()

    @property
    def rows(self) -> tuple[LayerRow, ...]:
        """A row for every module and for the functions that composite modules run themselves.

        Empty before the first forward has ended. May be asked for inside the loop.
        """
        if self._first is None:
            return ()
        self._drain()
        kept = self._kept or [self._first]
        timed = [fold_spans(spans, len(self._facts)) for spans in kept]
        functions = self._function_forwards
        view = find_blocks(self._model).seen_running(self._seen)
        modules = module_rows(self._facts, self._seen, typical_calls(timed), view, functions)
        arrays = arrays_of(timed)
        arrays[samples.FUNCTIONS] = np.array([f.times_ns for f in functions], dtype=np.int64)
        return layer_rows(modules, function_rows(functions, modules, view), [arrays])


@contextmanager
def time_layers(model: nn.Module, clock: Clock | None = None) -> Iterator[LiveLayers]:
    """Time every layer of ``model`` while the caller's own loop runs it.

    Args:
        model: any module; left as it was when the block ends, also by an exception.
        clock: the clock of the device that the model's parameters are on, unless given.

    Yields:
        the layers seen so far; read ``rows`` inside the block or after it.

    Example:
        >>> with time_layers(model) as layers:          # doctest: +SKIP
        ...     for batch in loader:
        ...         model(batch)
        >>> layers.rows                                  # doctest: +SKIP
    """
    layers = LiveLayers(model, clock or devices.of_module(model).clock())
    with layers.attached():
        yield layers
