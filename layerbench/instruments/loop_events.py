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

Function = Callable[..., Any]


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

    Args:
        watch: hears of it.
        optimizers: whose updates are told.
    """
    thread = get_ident()
    listening = [watch]

    def is_heard() -> bool:
        # Where ours lies beneath somebody else's, it stays there when the block has ended.
        return bool(listening) and get_ident() == thread and not is_dynamo_compiling()

    def around(original: Function, enter: Callable[[], AbstractContextManager[object]]) -> Function:
        @wraps(original)
        def told(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function does
            if not is_heard():
                return original(*args, **kwargs)
            with enter():
                return original(*args, **kwargs)

        return told

    go_backward = torch.autograd.backward

    @wraps(go_backward)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as PyTorch's
        if not is_heard():
            return go_backward(tensors, *args, **kwargs)
        given = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        with watch.going_backward([one for one in given if isinstance(one, torch.Tensor)]):
            return go_backward(given, *args, **kwargs)

    with ExitStack() as stack:
        stack.callback(listening.clear)
        for owner, name, replacement in (
            (torch.autograd, "backward", backward),
            (_BaseDataLoaderIter, "__next__", around(_BaseDataLoaderIter.__next__, watch.fetching)),
            (GradScaler, "step", around(GradScaler.step, watch.updating)),
        ):
            stack.enter_context(_put(owner, name, replacement))
        for optimizer in optimizers:
            clearing = around(optimizer.zero_grad, watch.clearing)
            stack.enter_context(_put(optimizer, "zero_grad", clearing))
            stack.enter_context(_updates_told(optimizer, watch, is_heard))
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


@contextmanager
def _put(owner: Any, name: str, replacement: Function) -> Iterator[None]:  # noqa: ANN401 - anything
    """Put a function into an owner's ``__dict__``; what somebody puts over it meanwhile stays."""
    was_own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if vars(owner).get(name) is replacement:
            if was_own:
                setattr(owner, name, before)
            else:
                delattr(owner, name)
