"""Forwards that run again within a backward, told as they begin and end.

`torch.utils.checkpoint` of both kinds is looked at where it keeps the function to run again, so
that it does not matter who asked for it: an option, a library, or a user's own forward. What lies
beneath (`CheckpointFunction`, the generator of the other kind) is private to PyTorch; where it is
not as expected, nothing is told (docs/decisions/0041).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from torch.utils import checkpoint as checkpoints

from layerbench.instruments.replaced import Function, Layer, function_replaced

# The newest first: of several, the others call it.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator_impl",
    "_checkpoint_without_reentrant_generator",
)


class Watch(Protocol):
    """Hears of recomputations."""

    def asked(self) -> Any:  # noqa: ANN401 - whatever `again` is to get
        """A forward runs now that will run again; says where that is."""

    def again(self, where: Any) -> AbstractContextManager[object]:  # noqa: ANN401 - as `asked` has it
        """Entered around the second run of what was asked for there."""

    def graph_made(self, where: Any, outputs: Any) -> None:  # noqa: ANN401 - as above
        """The second run has made a graph of its own, which goes backward now (reentrant)."""


@contextmanager
def recomputations_told(watch: Watch) -> Iterator[None]:
    """Tell of recomputations whose forward runs within the ``with`` block, until it ends."""
    active = [True]

    def marked(run: Function, *, runs_first: bool) -> Function:
        where, first = watch.asked(), [runs_first]

        def function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any function
            if not active or first.count(True):
                first.clear()
                return run(*args, **kwargs)
            with watch.again(where):
                output = run(*args, **kwargs)
            if runs_first:
                watch.graph_made(where, output)
            return output

        return function

    def applied(layer: Layer) -> Function:
        def apply(run: Function, *args: Any) -> Any:  # noqa: ANN401 - as the function's output
            return layer.beneath(marked(run, runs_first=True) if active else run, *args)

        return apply

    def generated(layer: Layer) -> Function:
        def generator(run: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - a generator
            to_run = marked(run, runs_first=False) if active else run
            return layer.beneath(to_run, *args, **kwargs)

        return generator

    with ExitStack() as replaced:
        replaced.callback(active.clear)
        replaced.enter_context(function_replaced(checkpoints.CheckpointFunction, "apply", applied))
        name = next((name for name in _GENERATORS if hasattr(checkpoints, name)), None)
        if name is not None:
            replaced.enter_context(function_replaced(checkpoints, name, generated))
        yield
