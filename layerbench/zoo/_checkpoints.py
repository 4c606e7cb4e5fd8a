"""Weights from a file, loaded onto a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.parameter import is_lazy

from layerbench.errors import LayerbenchError, UsageError, typed_line
from layerbench.introspection.tensors import shape_of
from layerbench.records.workload import Checkpoint, ReadFile
from layerbench.text import one_line
from layerbench.units import by_x
from layerbench.zoo import _files

SAFETENSORS = ".safetensors"
KINDS = (".pth", ".pt", ".bin", ".ckpt", SAFETENSORS)
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Names under which a training's file keeps the weights, the usual one first."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Before the names of weights: of DataParallel, of torch.compile, of Lightning."""

_MOST_NAMED = 3
_NESTED = 3

State = dict[str, Any]


def fitted(path: str | Path, module: nn.Module, model: str) -> Checkpoint:
    """The checkpoint for a model, whose weights are not to be used: it may have no memory.

    Args:
        path: of the file.
        module: the model.
        model: its name.

    Raises:
        UsageError: the file cannot be read, or its weights are not this model's.
    """
    file = _files.read(path, KINDS, "--checkpoint")
    entry, state = _state_in(_files.opened(file))
    prefix = _prefix_of(state, module)
    _put(_without(state, prefix), module, model, file)
    return Checkpoint(path=file.path, sha256=file.sha256, entry=entry, prefix=prefix)


def load(checkpoint: Checkpoint, module: nn.Module, model: str) -> None:
    """Load the weights onto the model; its number and memory formats stay.

    Raises:
        UsageError: as `fitted`.
    """
    _, state = _state_in(_files.opened(checkpoint))
    _put(_without(state, checkpoint.prefix), module, model, checkpoint)


def _state_in(place: Path) -> tuple[str, State]:
    """The state dict of a file, and the keys that lead to it."""
    content = _content(place)
    path: list[str] = []
    while len(path) < _NESTED and isinstance(content, Mapping):
        inner = [key for key in ENTRIES if _holds_tensors(content.get(key))]
        if not inner:
            break
        path.append(inner[0])
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not _has_tensors(content):
        raise UsageError(f"{place.name} holds no state dict, but {_described(content)}")
    for name in content:
        if not isinstance(name, str):
            raise UsageError(f"{place.name}: {one_line(repr(name))} is no name of a weight")
    state = dict(content)
    # By which modules know how they were written.
    metadata = getattr(content, "_metadata", None)
    return "/".join(path), _with_metadata(state, metadata)


class _State(dict[str, Any]):
    """A state dict with the attribute that PyTorch's own have."""

    _metadata: Any


def _with_metadata(state: State, metadata: object) -> State:
    made = _State(state)
    if isinstance(metadata, dict):
        made._metadata = dict(metadata)
    return made


def _content(place: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    if place.suffix.lower() != SAFETENSORS:
        return _files.plain_content(place)
    from safetensors.torch import load_file

    with _files.damaged(place.name, "a safetensors file"):
        return load_file(place)


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in content.values())


def _holds_tensors(content: object, deep: int = _NESTED) -> bool:
    """Whether it is a dictionary with tensors, or has one under a usual name."""
    if not isinstance(content, Mapping) or not deep:
        return False
    inner = (content.get(key) for key in ENTRIES)
    return _has_tensors(content) or any(_holds_tensors(one, deep - 1) for one in inner)


def _described(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"an object of type {type(content).__name__}"
    names = [str(key) for key in content]
    rest = ", ..." if len(names) > _MOST_NAMED else ""
    return f"entries {one_line(', '.join(names[:_MOST_NAMED]))}{rest}" if names else "nothing"


def _prefix_of(state: State, module: nn.Module) -> str:
    """What stands before all names of the file and before none of the model's."""
    own = [*module.state_dict()]
    found = ""
    while True:
        usual = (found + one for one in PREFIXES)
        longer = [one for one in usual if all(name.startswith(one) for name in state)]
        longer = [one for one in longer if not any(name.startswith(one) for name in own)]
        if not longer:
            return found
        found = longer[0]


def _without(state: State, prefix: str) -> State:
    if prefix:
        consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _put(state: State, module: nn.Module, model: str, file: ReadFile) -> None:
    """Load a state dict; that of a model without memory says only whether it would fit."""
    other = _other_shapes(state, module)
    rest = _with_metadata(
        {name: value for name, value in state.items() if name not in other},
        getattr(state, "_metadata", None),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tensor without memory takes no values
        try:
            missing, unexpected = module.load_state_dict(rest, strict=False)
        except LayerbenchError:
            raise
        except Exception as error:
            said = one_line(typed_line(error))
            raise UsageError(f"{file.name} does not fit {model}: {said}") from error
    missing = [name for name in missing if name not in other]
    wrong = [
        *_several(len(missing), "missing", missing),
        *_several(len(unexpected), "unexpected", unexpected),
        *_several(len(other), "of another shape", other.values()),
    ]
    if wrong:
        raise UsageError(
            f"{file.name} does not fit {model}: it has {len(state)} weights, the model has "
            f"{len(module.state_dict())}: {'; '.join(wrong)}"
        )


def _other_shapes(state: State, module: nn.Module) -> dict[str, str]:
    """The weights that have another shape in the file than in the model, with both."""
    found = {}
    for name, own in module.state_dict().items():
        given = state.get(name)
        if not (isinstance(given, torch.Tensor) and isinstance(own, torch.Tensor)):
            continue
        if is_lazy(own) or shape_of(given) == shape_of(own):
            continue
        shapes = [by_x(shape_of(one)) or "scalar" for one in (given, own)]
        found[name] = f"{name} {shapes[0]}, not {shapes[1]}"
    return found


def _several(number: int, what: str, names: Iterable[str]) -> list[str]:
    if not number:
        return []
    first = [one_line(name) for name, _ in zip(names, range(_MOST_NAMED), strict=False)]
    rest = ", ..." if number > _MOST_NAMED else ""
    return [f"{number} {what} ({', '.join(first)}{rest})"]
