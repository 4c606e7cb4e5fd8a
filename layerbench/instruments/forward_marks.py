"""Events at the ends of pieces of work of a model's forward, where these are known.

One forward is observed; from then on an event stands only where a piece of work ends and the next
begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench.instruments.attach import (
    Attachment,
    Replacement,
    function_at,
    usual_place,
)
from layerbench.instruments.borders import ENTRY, EXIT, Borders, Launches, Way, added_up
from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.layer_timer import notes_on_threads
from layerbench.instruments.modes import Observing
from layerbench.instruments.modules import modules_at
from layerbench.introspection.modules import children

# A model may go another way once it has filled its caches; one that draws its way never settles.
MOST_OBSERVED = 3


class ForwardMarks:
    """Marks forwards of a model, and gives the time between two marks to the module that ran.

    The first forward is the one that is observed, with two marks for each module.

    Known limitations: a function that a module runs in some forwards only is not noticed; its time
    then counts to the next piece of work. Kernels launched without PyTorch's operators count so,
    too, unless a module of the user's own launches them that has no others within.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those whose borders count; a call of any other is part of its caller.
        device_type: where the model runs, as PyTorch calls it.
        mark: marks a moment on the device.
        observes: whether a mode may see the operators of a forward; else two marks stand around
            each module in all of them.
        count: as of `Borders`.

    Attributes:
        borders: of the last forward.
        marks: at most so many does a forward have, as far as is known.
        forwards: so many have run.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        timed_paths: frozenset[str],
        device_type: str,
        mark: Callable[[], int],
        *,
        observes: bool = True,
        count: Callable[[], int] | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._launches = Launches(device_type)
        self.borders = Borders(mark, count)
        self._way: Way | None = None
        self._observed = 0 if observes else MOST_OBSERVED
        self._other_ways = self.forwards = self.marks = 0
        self.look_anew(model, timed_paths)

    def look_anew(self, model: nn.Module, timed_paths: frozenset[str]) -> None:
        """Take what lies on the modules now, beneath the borders; they must have no others.

        Args:
            model, timed_paths: as before; modules may have gone, or have other forwards.
        """
        index_of = {path: index for index, path in enumerate(self._paths)}
        instances = modules_at(model, timed_paths - {""})
        self.marks = max(self.marks, 2 * len(instances) + 2)
        self._attachment = Attachment(
            self._bordered(module, index_of[path]) for path, module in instances.items()
        )

    def _bordered(self, module: nn.Module, index: int) -> Replacement:
        place = usual_place(module)
        original = function_at(module, place)
        borders, launches = self.borders, self._launches
        cross, thread = borders.cross, borders.thread
        hides_all, hides_some = _hides_all(module), _may_hide_kernels(module)

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or get_ident() not in thread:
                if thread and not is_dynamo_compiling():  # which refuses what reaches outside
                    borders.elsewhere.add(index)
                return original(*args, **kwargs)
            cross(index)
            try:
                return original(*args, **kwargs)
            finally:
                if hides_all or (hides_some and borders.just_entered(index)):
                    launches.note()
                cross(~index)

        return module, place, forward

    def run(self, call: Callable[[], object]) -> None:
        """Run a forward with marks; what it raises passes through, the model is left as it was."""
        observing = self._observing()
        with self._attachment.attached(), self._forward(observing):
            self.borders.cross(ENTRY)
            call()
            self.borders.cross(EXIT)
        self._note(observing)

    def added_up(self, positions: Sequence[int], cost_ns: int) -> KernelForward:
        """The last forward's pieces of work by module.

        Args:
            positions: of its marks, nanoseconds.
            cost_ns: what a mark itself takes on the queue.
        """
        return added_up(self.borders.crossed, positions, cost_ns, len(self._paths))

    def _observing(self) -> Observing | None:
        """What observes the forward to come; ``None`` where its way is known."""
        if self._way is None and self._observed < MOST_OBSERVED:
            self._observed += 1
            return Observing(self._launches)
        return None

    @contextmanager
    def _forward(self, observing: Observing | None) -> Iterator[None]:
        launches = None if observing is None else self._launches
        with ExitStack() as stack:
            stack.enter_context(self.borders.of_forward(self._way, launches))
            if observing is not None:
                stack.enter_context(observing.on())
            yield

    def _note(self, observing: Observing | None) -> None:
        """Keep the way of the forward just run, or notice that it was another one."""
        borders = self.borders
        self.forwards += 1
        self.marks = max(self.marks, len(borders.crossed))
        if observing is not None:
            if observing.unseen or borders.elsewhere:
                self._observed = MOST_OBSERVED  # it would not be seen the next time either
            else:
                self._way = borders.way()
        elif borders.is_other_way:
            self._other_ways += 1
            if self._observed < MOST_OBSERVED:
                self._way = None

    def pieces(self, calls: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pieces of work of each module; where no way is known, each of its calls is one.

        Args:
            calls: of each module, in one forward.
        """
        return calls if self._way is None else self._way.pieces(len(self._paths))

    def forget(self) -> None:
        """Let `notes` speak only of forwards from here on."""
        self.forwards = self._other_ways = 0

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the forwards so far."""
        return (
            *notes_on_threads(self._paths, self.borders.elsewhere),
            *self._note_on_ways(),
        )

    def _note_on_ways(self) -> tuple[str, ...]:
        if not self._other_ways:
            return ()
        return (
            f"{self._other_ways} of {self.forwards} forwards for device times went another way "
            "than the one observed: there two events stand around each module",
        )


def _hides_all(module: nn.Module) -> bool:
    """Whether a module's work need not pass through operators that a mode sees."""
    return isinstance(module, torch.jit.ScriptModule) or is_compiled(module)


def _may_hide_kernels(module: nn.Module) -> bool:
    """Whether a call without operators may have launched kernels: PyTorch's own classes do not."""
    return not type(module).__module__.startswith("torch.nn.") and not any(children(module))
