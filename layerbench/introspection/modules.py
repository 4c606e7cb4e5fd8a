"""The modules and tensors of a model, independent of its attributes' names.

A model may have an attribute named ``modules``, ``children`` or ``train``, which hides the method
of `torch.nn.Module`; PyTorch runs it all the same. So the tables in which every module keeps its
children and tensors are read here, and methods are called through the class. Nothing here
recurses: a model may be nested deeper than Python's stack.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from layerbench.text import encodable, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn


# Of a module or tensor in its own module; longer ones are cut in their middle.
LONGEST_NAME = 1_000


def named_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules directly in it, each instance once, with its name there."""
    visited: set[int] = set()
    for name, child in module._modules.items():
        if child is not None and id(child) not in visited:
            visited.add(id(child))
            yield name, child


def children(module: nn.Module) -> Iterator[nn.Module]:
    """The modules directly in it, each instance once."""
    for _, child in named_children(module):
        yield child


def named_modules(
    model: nn.Module, *, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its path, in the order of `torch.nn.Module.named_modules`.

    Args:
        model: comes first, with the path ``""``.
        remove_duplicate: give each instance once, by its first name; else by every name. A module
            that contains itself is not followed twice.
    """
    if remove_duplicate:
        yield from _first_names(model)
    else:
        yield from _all_names(model)


def _first_names(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    visited: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in visited:
            continue
        visited.add(id(module))
        yield path, module
        if module._modules:
            inner = [
                (join(path, name), child)
                for name, child in module._modules.items()
                if child is not None
            ]
            waiting.extend(reversed(inner))


def _all_names(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    # Each entry is a module's children still to come, and the identity of that module.
    above = {id(model)}
    yield "", model
    levels = [("", id(model), iter(model._modules.items()))]
    while levels:
        path, identity, rest = levels[-1]
        name, child = next(rest, ("", None))
        if child is None and not name:
            above.discard(identity)
            levels.pop()
        elif child is not None and id(child) not in above:
            yield join(path, name), child
            above.add(id(child))
            levels.append((join(path, name), id(child), iter(child._modules.items())))


def join(path: str, name: str) -> str:
    """The path of ``name`` in the module at ``path``, cut to what a record can hold.

    A name that PyTorch would refuse (`torch.nn.Module.add_module`) stands in it without dots, and
    an empty one as two quotation marks: a dot in a path separates a module from what is in it.
    """
    if not name or "." in name:
        name = name.replace(".", ":") or "''"
    if not name.isascii() or len(name) > LONGEST_NAME:
        name = shortened(encodable(name), LONGEST_NAME)
    return f"{path}.{name}" if path else name


def modules(model: nn.Module) -> Iterator[nn.Module]:
    """Every module once, in the order of `named_modules`; without the names, which cost as much."""
    visited: set[int] = set()
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) in visited:
            continue
        visited.add(id(module))
        yield module
        if module._modules:
            inner = [child for _, child in module._modules.items() if child is not None]
            waiting.extend(reversed(inner))


def submodules_first(model: nn.Module) -> list[nn.Module]:
    """Every module once, in the order in which `torch.nn.Module.to` moves them."""
    ordered: dict[int, nn.Module] = {}
    waiting = [(model, False)]
    entered: set[int] = set()
    while waiting:
        module, inside_done = waiting.pop()
        if inside_done:
            ordered.setdefault(id(module), module)
        elif id(module) not in entered:
            entered.add(id(module))
            waiting.append((module, True))
            waiting.extend((child, False) for child in reversed(list(children(module))))
    return list(ordered.values())


def named_parameters(
    model: nn.Module, *, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Parameter]]:
    """As `torch.nn.Module.named_parameters`."""
    return _named_tensors(model, "_parameters", remove_duplicate)


def named_buffers(
    model: nn.Module, *, remove_duplicate: bool = True
) -> Iterator[tuple[str, torch.Tensor]]:
    """As `torch.nn.Module.named_buffers`."""
    return _named_tensors(model, "_buffers", remove_duplicate)


def parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Every parameter of the model once."""
    yield from _tensors(model, "_parameters")


def buffers(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every buffer of the model once."""
    yield from _tensors(model, "_buffers")


def _tensors(model: nn.Module, table: str) -> Iterator[Any]:
    visited: set[int] = set()
    for module in modules(model):
        for _, tensor in getattr(module, table).items():
            if tensor is not None and id(tensor) not in visited:
                visited.add(id(tensor))
                yield tensor


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those that the module holds itself, not those of the modules in it."""
    return [tensor for _, tensor in module._parameters.items() if tensor is not None]


def own_buffers(module: nn.Module) -> list[torch.Tensor]:
    """Those that the module holds itself, not those of the modules in it."""
    return [tensor for _, tensor in module._buffers.items() if tensor is not None]


def own_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """The module's attributes that hold tensors of floating-point numbers.

    They are tensors, or plain lists, tuples and dicts with nothing but tensors and plain values in
    them. What an object holds, or a tensor of whole numbers alone, mostly says what to do.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return []
    usual = _of_every_module()
    return [
        (name, value)
        for name, value in vars(module).items()
        if name not in usual and any(map(is_floating, _plain_tensors(value)))
    ]


def is_floating(tensor: torch.Tensor) -> bool:
    """Whether its elements are real or complex numbers, and not whole ones."""
    return tensor.is_floating_point() or tensor.is_complex()


@functools.cache
def _of_every_module() -> frozenset[str]:
    """Names of the tables, hooks and flags that every module has."""
    from torch import nn

    return frozenset(vars(nn.Module()))


PROXIES = frozenset({weakref.ProxyType, weakref.CallableProxyType})
"""They stand for another object, and raise whatever is asked of them once it is gone."""


def is_dead(proxy: object) -> bool:
    """Whether what a proxy stood for is gone."""
    try:
        proxy.__class__  # noqa: B018 - asks the object
    except ReferenceError:
        return True
    return False


_NESTED_DEEP = 8
_PLAIN_VALUES = (str, bytes, int, float, complex, bool, type(None))


def _plain_tensors(value: object) -> list[torch.Tensor]:
    """The tensors of plain containers; none where anything else is in them."""
    import torch

    tensors: list[torch.Tensor] = []
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        one, deep = waiting.pop()
        if type(one) in PROXIES:
            return []
        if isinstance(one, torch.Tensor):
            tensors.append(one)
        elif type(one) in (list, tuple, dict) and deep < _NESTED_DEEP:
            parts = one.values() if isinstance(one, dict) else one
            waiting.extend((part, deep + 1) for part in parts)  # type: ignore[attr-defined]
        elif not isinstance(one, _PLAIN_VALUES):
            return []
    return tensors


def _named_tensors(model: nn.Module, table: str, remove_duplicate: bool) -> Iterator[Any]:
    visited: set[int] = set()
    for path, module in named_modules(model, remove_duplicate=remove_duplicate):
        for name, tensor in getattr(module, table).items():
            if tensor is None or id(tensor) in visited:
                continue
            if remove_duplicate:
                visited.add(id(tensor))
            yield join(path, name), tensor


def set_mode(model: nn.Module, training: bool, *, anew: bool = False) -> None:
    """Put the model into train or eval mode, as its classes define ``train``.

    A model in that mode is left as it is: its owner may keep a part in the other mode (frozen
    normalization, dropout that stays on). So is a model whose own ``train`` or ``eval`` raises: its
    owner never changes its mode.

    If no class has a ``train`` of its own, each module's mode is set as `torch.nn.Module.train`
    would. The same holds if that cannot walk the tree: an attribute hides a method, or a module
    contains itself.

    Args:
        model: whose modes are set.
        training: whether train mode is wanted.
        anew: call its own ``train`` though it is in that mode: that may freeze parts.
    """
    if getattr(model, "training", None) is training and not anew:
        return
    before = [(module, getattr(module, "training", None)) for module in modules(model)]
    try:
        _change_mode(model, training)
    except Exception:
        for module, mode in before:
            if mode is not None:
                write_mode(module, mode)


def write_mode(module: nn.Module, training: bool) -> None:
    """Set the mode of one module alone, also if its class refuses the attribute."""
    with suppress(Exception):
        module.training = training
    # A scripted module keeps its mode outside Python; a class may refuse to have any.
    if getattr(module, "training", training) is not training:
        module.__dict__["training"] = training


def _change_mode(model: nn.Module, training: bool) -> None:
    from torch import nn

    if not training and type(model).eval is not nn.Module.eval and not _hides_a_method(model):
        type(model).eval(model)
        return
    if _any_has_own_train(model) and not any(map(_hides_a_method, modules(model))):
        with suppress(RecursionError):
            type(model).train(model, training)
            return
    for module in modules(model):
        write_mode(module, training)


def _any_has_own_train(model: nn.Module) -> bool:
    from torch import nn

    return any(type(module).train is not nn.Module.train for module in modules(model))


def _hides_a_method(module: nn.Module) -> bool:
    """Whether this module replaces a method that `torch.nn.Module.train` calls."""
    return any(
        name in module.__dict__ or not callable(inspect.getattr_static(type(module), name))
        for name in ("train", "children", "named_children")
    )


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its tensors on a device; unchanged if they are there already.

    A class that has a ``to`` of its own may move more than parameters and buffers. Its result is
    ignored.
    """
    from torch import nn

    tensors = [*parameters(model), *buffers(model)]
    if any(not _lies_on(tensor, device) for tensor in tensors):
        if callable(type(model).to) and type(model).to is not nn.Module.to:
            model.to(device)
        else:
            apply_to_tensors(model, lambda tensor: tensor.to(device))
    return model


def _lies_on(tensor: torch.Tensor, device: torch.device) -> bool:
    same_index = device.index is None or tensor.device.index == device.index
    return tensor.device.type == device.type and same_index


def apply_to_tensors(model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As ``model._apply(change)``, the core of `torch.nn.Module.to`."""
    for module in submodules_first(model):
        type(module)._apply(module, change, recurse=False)  # type: ignore[no-untyped-call]
