"""Recomputation in a training step: which module's forward runs again, and when.

A forward runs again where `torch.utils.checkpoint` asks for it (`instruments.recomputation`), or
where a node of the graph calls a module by itself, as a custom `torch.autograd.Function` may. What
runs meanwhile belongs to places of its own (`instruments.step_places`), which part it from the
backward exactly. A reentrant checkpoint then goes backward through a graph of its own, whose nodes
belong to the modules that ran again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]

from layerbench.instruments.step_places import OUTSIDE, ROOT, Places
from layerbench.introspection.nested import tensors_in

PlaceOfNumber = Callable[[int], int]


@dataclass(frozen=True)
class Asked:
    """Where a checkpoint was made.

    Attributes:
        row: of the innermost module running then.
        number: that autograd had come to.
        place: where that was in a recomputation; ``None`` in the forward.
    """

    row: int
    number: int
    place: int | None = None


@dataclass
class _Run:
    """A recomputation, or a module in it.

    Attributes:
        place: of what runs.
        numbers: of the calls that ended in it, its own last: place, and the numbers that autograd
            had come to at begin and end.
    """

    place: int
    numbers: list[tuple[int, int, int]] = field(default_factory=list)


class Again:
    """Follows the modules that run in a step; a `layerbench.instruments.recomputation.Watch`.

    Args:
        during: entered around what runs again, with its place.
        graph: gets the outputs of a recomputation that a graph of its own leads to, the place of
            each number of that graph, and the place of what has no number.
        innermost: gives the row of the innermost module running in a forward, where `running` does
            not have it.

    Attributes:
        running: rows of the modules running in the forward, the innermost last.
        in_backward: whether a call of a module is one that runs again.
    """

    def __init__(
        self,
        during: Callable[[int], AbstractContextManager[object]],
        graph: Callable[[Sequence[torch.Tensor], PlaceOfNumber, int], None],
        innermost: Callable[[], int] | None = None,
    ) -> None:
        self.running: list[int] = []
        self.in_backward = False
        self._innermost = innermost or (lambda: self.running[-1] if self.running else ROOT)
        self._during = during
        self._graph = graph
        self._places = Places((), {}, 0, 0)
        self._runs: list[_Run] = []
        self._ended = _Run(ROOT)

    @contextmanager
    def backward(self, places: Places) -> Iterator[None]:
        """Entered around the backward of the forward that these places are of."""
        self._places, self.in_backward = places, True
        try:
            yield
        finally:
            self.in_backward = False
            self._runs.clear()

    def asked(self) -> Asked:
        """Where the forward is now."""
        place = self._runs[-1].place if self._runs else None
        return Asked(self._innermost(), _get_sequence_nr(), place)

    @contextmanager
    def again(self, where: Asked) -> Iterator[None]:
        """Entered around the second run of what was asked for there."""
        if not self.in_backward:  # a backward within the forward
            yield
            return
        places, around = self._places, where.place
        if around is None:
            around = places.running_at(where.number, where.row)
        with self._run(places.row(around), around):
            yield

    def graph_made(self, where: Asked, outputs: Any) -> None:  # noqa: ANN401 - of any function
        """Give the nodes of a graph that a second run made to the modules that ran."""
        del where
        made = [tensor for tensor in tensors_in(outputs) if tensor.grad_fn is not None]
        if not made or not self.in_backward:
            return
        places, ended = self._places, self._ended
        backward = {place: places.backward_of(place) for place, _, _ in ended.numbers}

        def place_of(number: int) -> int:
            # Inner calls come first.
            inside = (place for place, first, last in ended.numbers if first <= number < last)
            return backward[next(inside, ended.place)]

        self._graph(made, place_of, backward[ended.place])

    @contextmanager
    def call(self, row: int) -> Iterator[None]:
        """Entered around a call of a module in the backward."""
        around = self._runs[-1].place if self._runs else self._of_node()
        with self._run(row, around):
            yield

    def _of_node(self) -> int:
        """The place of the node that is running; the model's own where that is not known."""
        node = torch._C._current_autograd_node()
        place = OUTSIDE if node is None else self._places.of_number(node._sequence_nr())
        return ROOT if place == OUTSIDE else place

    @contextmanager
    def _run(self, row: int, around: int) -> Iterator[None]:
        run = _Run(self._places.recomputing(row, around))
        self._runs.append(run)
        first = _get_sequence_nr()
        try:
            with self._during(run.place):
                yield
        finally:
            run.numbers.append((run.place, first, _get_sequence_nr()))
            self._runs.pop()
            self._ended = run
            if self._runs:
                self._runs[-1].numbers += run.numbers
