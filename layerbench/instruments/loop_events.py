"""What a training loop does besides running its model, told as it happens.

Batches that a `torch.utils.data.DataLoader` gives, backwards, updates of optimizers, cleared
gradients. Hooks of optimizers are PyTorch's own. Everything else has none, so a function is
replaced for a while: of classes and modules what all their users call, of an optimizer its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any, Protocol

import torch
from torch.amp.grad_scaler import GradScaler
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer
from torch.utils.data.dataloader import _BaseDataLoaderIter

from layerbench.instruments.replaced import Function, Layer, function_replaced


class Watch(Protocol):
    """Hears of what one thread's loop does; each is entered around it."""

    def fetching(self) -> AbstractContextManager[object]:
        """A data loader gives a batch."""

    def going_backward(self, losses: Sequence[torch.Tensor]) -> AbstractContextManager[object]:
        """A backward runs from these."""

    def clearing(self) -> AbstractContextManager[object]:
        """Gradients are cleared."""

    def updating(self) -> AbstractContextManager[object]:
        """An optimizer updates, or a scaler decides not to let it."""


@contextmanager
def loop_told(watch: Watch, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Tell of what this thread does within the ``with`` block.

    Of updates also what others do while this one goes backward: a device's backward runs in a
    thread of its own, and hooks on gradients in there.

    Args:
        watch: hears of it.
        optimizers: whose updates are told.
    """
    thread = get_ident()
    listening = [watch]
    backwards: list[None] = []

    def is_update_heard() -> bool:
        return is_heard() or (bool(listening) and bool(backwards))

    def is_heard() -> bool:
        # Where ours lies beneath somebody else's, it stays there when the block has ended.
        return bool(listening) and get_ident() == thread and not is_dynamo_compiling()

    def around(enter: Callable[[], AbstractContextManager[object]]) -> Callable[[Layer], Function]:
        def made(layer: Layer) -> Function:
            @wraps(layer.beneath)
            def told(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function does
                if not is_heard():
                    return layer.beneath(*args, **kwargs)
                with enter():
                    return layer.beneath(*args, **kwargs)

            return told

        return made

    def going_backward(layer: Layer) -> Function:
        @wraps(layer.beneath)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as PyTorch's
            if not is_heard():
                return layer.beneath(tensors, *args, **kwargs)
            given = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            with watch.going_backward([one for one in given if isinstance(one, torch.Tensor)]):
                backwards.append(None)
                try:
                    return layer.beneath(given, *args, **kwargs)
                finally:
                    backwards.pop()

        return backward

    with ExitStack() as stack:
        stack.callback(listening.clear)
        for owner, name, made in (
            (torch.autograd, "backward", going_backward),
            (_BaseDataLoaderIter, "__next__", around(watch.fetching)),
            (GradScaler, "step", around(watch.updating)),
        ):
            stack.enter_context(function_replaced(owner, name, made))
        for optimizer in optimizers:
            clearing = around(watch.clearing)
            stack.enter_context(function_replaced(optimizer, "zero_grad", clearing))
            stack.enter_context(_updates_told(optimizer, watch, is_update_heard))
        yield


@contextmanager
def _updates_told(
    optimizer: Optimizer, watch: Watch, is_heard: Callable[[], bool]
) -> Iterator[None]:
    running: list[AbstractContextManager[object]] = []

    def before(*_: object) -> None:
        if is_heard():
            running.append(watch.updating())
            running[-1].__enter__()

    def after(*_: object) -> None:
        if running:
            running.pop().__exit__(None, None, None)

    handles = (
        optimizer.register_step_pre_hook(before),
        optimizer.register_step_post_hook(after),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
