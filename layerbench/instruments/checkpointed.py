"""Activation checkpointing of chosen modules: their forward runs again within the backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from layerbench.errors import UsageError, did_you_mean
from layerbench.instruments.attach import Attachment, function_at, usual_place
from layerbench.instruments.blocks import find_blocks
from layerbench.introspection.modules import children, named_modules

OPTION = "--checkpoint-activations"
MOST_CLOSE = 3


def checkpointed(model: nn.Module, paths: Sequence[str] | None) -> AbstractContextManager[object]:
    """Run modules under `torch.utils.checkpoint.checkpoint` while a ``with`` block runs.

    Args, raises: as of `checkpointing`.
    """
    return checkpointing(model, paths)()


def checkpointing(
    model: nn.Module, paths: Sequence[str] | None
) -> Callable[[], AbstractContextManager[object]]:
    """As `checkpointed`, as often as it is called.

    Args:
        model: comes back as it was.
        paths: of the modules; none for the blocks that hold other modules
            (`layerbench.instruments.blocks`), ``None`` for no checkpointing.

    Raises:
        UsageError: there is no such module, or it cannot be checkpointed.
    """
    if paths is None:
        return nullcontext
    named = dict(named_modules(model, remove_duplicate=False))
    chosen = paths or _blocks(model, named)
    # A module with two names runs under one checkpoint.
    modules = {id(module): module for module in (_module(named, path) for path in chosen)}
    return Attachment(
        (module, place, _run_again(function_at(module, place)))
        for module in modules.values()
        for place in [usual_place(module)]
    ).attached


def _blocks(model: nn.Module, named: dict[str, nn.Module]) -> list[str]:
    blocks = find_blocks(model).blocks
    chosen = [path for path in named if path in blocks and any(children(named[path]))]
    if not chosen:
        raise UsageError(
            f"{OPTION}: the model has no block that holds other modules: name the modules, "
            f"such as {_some(named)}"
        )
    return chosen


def _module(named: dict[str, nn.Module], path: str) -> nn.Module:
    module = named.get(path)
    if module is None:
        close = did_you_mean(path, filter(None, named), MOST_CLOSE) or f"it has {_some(named)}"
        raise UsageError(f"{OPTION}: the model has no module {path!r}; {close}")
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"{OPTION}: {path} is scripted: its forward cannot be run again from here")
    if type(module).forward is nn.Module.forward:
        inside = [name for name in named if name.startswith(f"{path}.")]
        raise UsageError(
            f"{OPTION}: {path} ({type(module).__name__}) is never called itself: name what it "
            f"holds, such as {inside[0] if inside else 'its modules'}"
        )
    return module


def _some(named: dict[str, nn.Module]) -> str:
    names = [path for path in named if path]
    return ", ".join(names[:MOST_CLOSE]) or "none"


def _run_again(function: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        if not torch.is_grad_enabled():
            return function(*args, **kwargs)
        # A forward's own keywords may be called as those of checkpoint itself.
        return checkpoint(lambda *given: function(*given, **kwargs), *args, use_reentrant=False)

    return forward
