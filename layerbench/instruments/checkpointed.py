"""Activation checkpointing of chosen modules: their forward runs again within the backward."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from layerbench.errors import UsageError, did_you_mean
from layerbench.instruments.attach import Attachment, Forward, function_at, usual_place
from layerbench.instruments.blocks import find_blocks, has_weights
from layerbench.introspection.modules import children, join, named_modules
from layerbench.introspection.nested import tensors_in_plain
from layerbench.records.tree import parent
from layerbench.records.workload import CHECKPOINTED

OPTION = "--checkpoint-activations"
MOST_CLOSE = 3
_SPAN = re.compile(r"(.*)\[(\d+):(\d+)\]")


@dataclass(frozen=True)
class _Piece:
    """What runs again together.

    Attributes:
        path: of a module.
        span: of an `nn.Sequential`, which of its modules, in order; ``None`` for the module itself.
    """

    path: str
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.path if self.span is None else f"{self.path}[{self.span[0]}:{self.span[1]}]"


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
        paths: of the modules, or of some in a row in an `nn.Sequential`: ``features[0:5]``; none
            for what `checkpointed_paths` says; ``None`` for no checkpointing.

    Raises:
        UsageError: there is no such module, or it cannot be checkpointed. Also of a forward: what
            is to run again changes its input.
    """
    if paths is None:
        return nullcontext
    named = dict(named_modules(model, remove_duplicate=False))
    # A module with two names runs under one checkpoint.
    whole: dict[int, tuple[nn.Module, str]] = {}
    parts: dict[int, tuple[nn.Sequential, list[_Piece]]] = {}
    for piece in _chosen(model, named, paths):
        module = _module(named, piece.path)
        if piece.span is None:
            whole.setdefault(id(module), (module, piece.path))
        else:
            chain = _chain(module, piece)
            parts.setdefault(id(module), (chain, []))[1].append(piece)
    return Attachment(
        (module, place, _run_again(function_at(module, place), path))
        if id(module) not in parts
        else (module, place, _in_parts(*parts[id(module)]))
        for module, path in [*whole.values(), *((chain, "") for chain, _ in parts.values())]
        for place in [usual_place(module)]
    ).attached


def checkpointed_paths(model: nn.Module, paths: Sequence[str] | None) -> tuple[str, ...]:
    """What is checkpointed, by path.

    Without paths these are

    - the blocks that hold other modules (`layerbench.instruments.blocks`);
    - in a plain `nn.Sequential` whose layers are blocks themselves, parts of it: n layers with
      weights are parted evenly into about the square root of n (Chen et al. 2016, "Training Deep
      Nets with Sublinear Memory Cost"). Each begins with a layer with weights;
    - where there is neither, the outermost modules that hold others.

    An `nn.Sequential` that begins with a layer that works in place is not among them: what would
    run again would begin with what it made.

    Raises:
        UsageError: without paths, there is none of them.
    """
    if paths is None:
        return ()
    named = dict(named_modules(model, remove_duplicate=False))
    return tuple(map(str, _chosen(model, named, paths)))


def note_on_checkpointed(model: nn.Module, paths: Sequence[str] | None) -> tuple[str, ...]:
    """A sentence that says what was chosen where no paths are named; else none."""
    if paths is None or paths:
        return ()
    return (CHECKPOINTED + ", ".join(checkpointed_paths(model, paths)),)


def _chosen(
    model: nn.Module, named: dict[str, nn.Module], paths: Sequence[str]
) -> Sequence[_Piece]:
    if paths:
        return [_read(path, named) for path in paths]
    view = find_blocks(model)
    chosen = [
        piece
        for path, module in named.items()
        for piece in (
            _if_it_holds_modules(path, module)
            if path in view.blocks
            else _parts_of(path, module, view.blocks)
            if path in view.opened
            else ()
        )
    ]
    if not chosen:
        outermost = [path for path in named if path and parent(path) == ""]
        chosen = [p for path in outermost for p in _if_it_holds_modules(path, named[path])]
    if not chosen:
        raise UsageError(
            f"{OPTION}: the model has no part that holds other modules and runs: name the "
            f"modules; it has {_some(named)}"
        )
    return chosen


def _read(path: str, named: dict[str, nn.Module]) -> _Piece:
    match = _SPAN.fullmatch(path)
    if path in named or match is None:
        return _Piece(path)
    return _Piece(match[1], (int(match[2]), int(match[3])))


def _if_it_holds_modules(path: str, module: nn.Module) -> Iterator[_Piece]:
    runs = type(module).forward is not nn.Module.forward
    scripted = isinstance(module, torch.jit.ScriptModule)
    if any(children(module)) and runs and not scripted and not _begins_in_place(module):
        yield _Piece(path)


def _begins_in_place(module: nn.Module) -> bool:
    """Whether a chain's first layer changes its input; of another forward that is not known."""
    while _is_plain_chain(module):
        module = module[0]
    return _is_in_place(module)


def _is_in_place(module: nn.Module) -> bool:
    return getattr(module, "inplace", False) is True


def _parts_of(path: str, module: nn.Module, blocks: frozenset[str]) -> Iterator[_Piece]:
    """Of a plain chain: where several layers that are blocks stand in a row."""
    if not _is_plain_chain(module):
        return
    # By place: an instance may stand there several times.
    layers = list(zip(module._modules, module, strict=True))
    flat = [join(path, name) in blocks and not any(children(layer)) for name, layer in layers]
    begin = 0
    while begin < len(layers):
        end = begin
        while end < len(layers) and flat[end]:
            end += 1
        yield from _divided(path, [layer for _, layer in layers[begin:end]], begin)
        begin = end + 1


def _divided(path: str, layers: Sequence[nn.Module], offset: int) -> Iterator[_Piece]:
    heavy = [index for index, layer in enumerate(layers) if has_weights(layer)]
    if not heavy:
        return
    # The square root, rounded up; a part of one layer has next to nothing to run again.
    count = max(1, min(math.isqrt(len(heavy) - 1) + 1, len(layers) // 2))
    begins = [heavy[len(heavy) * part // count] for part in range(count)]
    if not any(map(_is_in_place, layers[: begins[0] + 1])):
        begins[0] = 0
    for begin, end in zip(begins, [*begins[1:], len(layers)], strict=True):
        if end - begin > 1:
            yield _Piece(path, (offset + begin, offset + end))


def _is_plain_chain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module runs its children in order, and has some."""
    own = inspect.getattr_static(type(module), "forward") is nn.Sequential.forward
    own = own and "forward" not in vars(module)
    return own and isinstance(module, nn.Sequential) and len(module) > 0


def _chain(module: nn.Module, piece: _Piece) -> nn.Sequential:
    begin, end = piece.span or (0, 0)
    if not _is_plain_chain(module):
        kind = type(module).__name__
        raise UsageError(
            f"{OPTION}: {piece}: {kind} is no nn.Sequential whose modules run in order"
        )
    if not begin < end <= len(module):
        raise UsageError(f"{OPTION}: {piece}: it has {len(module)} modules, from 0")
    return module


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
    rest = ", ..." if len(names) > MOST_CLOSE else ""
    return f"{', '.join(names[:MOST_CLOSE])}{rest}" if names else "none"


def _in_parts(chain: nn.Sequential, pieces: Sequence[_Piece]) -> Forward:
    """The forward of a chain, some of whose modules run again together."""
    ends = {begin: (end, str(piece)) for piece in pieces for begin, end in [piece.span or (0, 0)]}

    def forward(x: Any) -> Any:  # noqa: ANN401 - as `nn.Sequential.forward`
        layers, begin = list(chain), 0
        while begin < len(layers):
            end, path = ends.get(begin, (begin + 1, ""))
            run = _in_order(layers[begin:end])
            x = _run_again(run, path)(x) if path else run(x)
            begin = end
        return x

    return forward


def _in_order(layers: Sequence[nn.Module]) -> Forward:
    def run(x: Any) -> Any:  # noqa: ANN401 - as `nn.Sequential.forward`
        for layer in layers:
            x = layer(x)
        return x

    return run


def _run_again(function: Forward, path: str) -> Forward:
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        if not torch.is_grad_enabled():
            return function(*args, **kwargs)
        given = [
            (tensor, tensor._version)
            for tensor in tensors_in_plain((args, kwargs))
            if not tensor.is_inference()
        ]
        # A forward's own keywords may be called as those of checkpoint itself.
        output = checkpoint(lambda *args: function(*args, **kwargs), *args, use_reentrant=False)
        if any(tensor._version != version for tensor, version in given):
            raise UsageError(
                f"{OPTION}: {path} changes its input in place, so its forward cannot run again: "
                "name other modules"
            )
        return output

    return forward
