"""Put other ``forward`` functions on module instances for a while, and take them off again.

Why not forward hooks: a module with a hook leaves PyTorch's short call path, and some modules
(`torch.nn.TransformerEncoderLayer`) give up a fused kernel when they see one
(docs/decisions/0001).
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from layerbench.environment.collection import no_collection
from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.overlay import STATE, Overlay
from layerbench.instruments.stack import deeper_stack
from layerbench.instruments.tensor_state import TensorState
from layerbench.introspection.modules import (
    buffers,
    is_floating,
    modules,
    named_modules,
    own_attributes,
    set_mode,
    submodules_first,
    write_mode,
)
from layerbench.introspection.nested import map_tensors
from layerbench.introspection.tensors import is_plain
from layerbench.zoo.family import SAYS

Forward = Callable[..., Any]
# A module, the name of one of its attributes, and what that is for a while.
Replacement = tuple[nn.Module, str, object]

_MISSING = object()
NAMED_AT_MOST = 8


class Attachment:
    """Gives module instances other values of attributes, as often as it is asked to.

    Args:
        replacements: what is replaced, by what.
        open_to_user: whether a user's own code runs meanwhile, outside the model's forward.
    """

    def __init__(self, replacements: Iterable[Replacement], *, open_to_user: bool = False) -> None:
        self._open = open_to_user
        values: dict[int, tuple[nn.Module, dict[str, object]]] = {}
        classes: dict[type, tuple[str, ...]] = {}
        # All of it stays; a collection would look at it again and again.
        with no_collection():
            for module, name, value in replacements:
                values.setdefault(id(module), (module, {}))[1][name] = value
            self._parts: list[tuple[nn.Module, Mapping[str, object], Overlay]] = [
                (module, replaced, Overlay(module, open_to_user=open_to_user, classes=classes))
                for module, replaced in values.values()
            ]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attach for the duration of a ``with`` block; on exit each has its own again.

        Python's stack is deeper meanwhile, as what is attached takes a part of it.
        """
        covered: list[tuple[Overlay, Mapping[str, object]]] = []
        with deeper_stack():
            try:
                for module, values, own in self._parts:
                    overlay = Overlay.of(module) if STATE in module.__dict__ else own
                    covered.append((overlay, values))
                    overlay.cover(values)
                yield
            finally:
                for overlay, values in reversed(covered):
                    overlay.uncover(values)


def attributes_replaced(
    replacements: Iterable[Replacement], *, open_to_user: bool = False
) -> AbstractContextManager[None]:
    """Give module instances other values of attributes; on exit each has its own again."""
    return Attachment(replacements, open_to_user=open_to_user).attached()


def usual_place(module: nn.Module) -> str:
    """The attribute whose replacement sees a module's calls, whatever hooks it has.

    ``forward``; of a module compiled in place its compiled call, as ``forward`` is inside it; where
    the class has a property for it, which no attribute of an instance hides, ``_call_impl``.
    """
    if module._compiled_call_impl is not None and is_compiled(module):
        return "_compiled_call_impl"
    return "_call_impl" if has_property_for_forward(type(module)) else "forward"


def inspected_as(original: Forward) -> Callable[[Forward], Forward]:
    """``functools.wraps``, seen through even by those who look through one decorator alone.

    Lightning looks that far for a step's arguments, and that one may be the user's own.
    """

    def decorate(replacement: Forward) -> Forward:
        seen: Any = wraps(original)(replacement)
        inner = getattr(original, "__wrapped__", None)
        if inner is not None:
            # What a bound method wraps is not bound: its signature has one argument more.
            with suppress(ValueError, TypeError):
                seen.__signature__ = inspect.signature(original)
            seen.__wrapped__ = inner
        return seen  # type: ignore[no-any-return]

    return decorate


def function_at(module: nn.Module, place: str) -> Forward:
    """What a module has at a place, whichever class it is of by the time of a call.

    A forward may set its module's ``__class__``: the next call then runs the forward of that one,
    which a replacement in the instance hides.
    """
    function: Forward = getattr(module, place)
    if place in module.__dict__:
        return function
    kind = type(module)

    @inspected_as(function)
    def of_class(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
        if type(module) is kind:
            return function(*args, **kwargs)
        return of_present_class(module, place)(*args, **kwargs)

    return of_class


def of_present_class(module: nn.Module, place: str) -> Forward:
    """What the class of a module has at a place, bound to the module."""
    kind = type(module)
    function: Forward = inspect.getattr_static(kind, place).__get__(module, kind)
    return function


def has_property_for_forward(kind: type[nn.Module]) -> bool:
    """Whether each call of a module of this class asks anew what its ``forward`` is."""
    return hasattr(type(inspect.getattr_static(kind, "forward", None)), "__set__")


@contextmanager
def mode_set(model: nn.Module, training: bool, *, buffers_too: bool = True) -> Iterator[None]:
    """Put the model into one mode; on exit every module has its own mode again.

    A model that is in that mode is left as it is, with its frozen parts.

    Args:
        model: the model.
        training: which mode.
        buffers_too: whether in training mode the buffers' contents are put back, too: BatchNorm
            moves its running statistics at every forward. It holds them meanwhile.
    """
    # A frozen scripted module has no mode.
    modes: list[tuple[nn.Module, Any]] = [
        (module, getattr(module, "training", _MISSING)) for module in modules(model)
    ]
    kept = _Buffers(buffers(model) if training and buffers_too else ())
    try:
        set_mode(model, training)
        yield
    finally:
        for module, mode in modes:
            if mode is _MISSING:
                module.__dict__.pop("training", None)
            else:
                write_mode(module, mode)
        kept.restore()


# What PyTorch answers of a tensor in which several elements lie in one place: one that is expanded.
_OVERLAPS = 1


class _Buffers:
    """The contents of buffers, and a way back to them.

    Args:
        there: of any kind. Not all of those that are sparse, nested or quantized can be copied, and
            into one whose elements share memory nothing can be.
    """

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        self._plain: list[tuple[torch.Tensor, torch.Tensor]] = []
        others = []
        for buffer in there:
            if is_plain(buffer) and torch._debug_has_internal_overlap(buffer) != _OVERLAPS:
                self._plain.append((buffer, buffer.detach().clone()))
            else:
                others.append(buffer)
        self._others = TensorState(others) if others else None

    def restore(self) -> None:
        for buffer, earlier in self._plain:
            if buffer.shape == earlier.shape:
                buffer.data.copy_(earlier)
            else:
                buffer.data = earlier
        if self._others is not None:
            self._others.restore()


AS_A_WHOLE = (
    "TorchScript: it runs as a whole, outside Python, so that its modules have no times and no "
    "FLOPs of their own"
)


def notes_on_modes(model: nn.Module, wanted: bool | None = None) -> tuple[str, ...]:
    """What there is to say about the modes of a model and its parts, and about what runs them.

    Args:
        model: as it is about to run.
        wanted: whether it was asked to be in train mode; ``None`` where nothing was asked.
    """
    own = getattr(model, "training", None)
    says, in_training_alone = vars(model).get(SAYS, ("", True))
    notes = [says] if says and (wanted or not in_training_alone) else []
    if isinstance(model, torch.jit.ScriptModule):
        notes = [AS_A_WHOLE]
    if own is not None and wanted is not None and own is not wanted:
        notes.append(f"ran in {_mode(own)} mode: the model cannot be put into {_mode(wanted)} mode")
    others = [
        path
        for path, module in named_modules(model)
        if own is not None and getattr(module, "training", own) != own
    ]
    if others:
        names = ", ".join(others[:NAMED_AT_MOST])
        more = f" and {len(others) - NAMED_AT_MOST} more" if len(others) > NAMED_AT_MOST else ""
        notes.append(f"in {_mode(not own)} mode, as the model has them: {names}{more}")
    return tuple(notes)


def _mode(training: bool) -> str:
    return "train" if training else "eval"


@contextmanager
def tensors_replaced(
    model: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Let other tensors stand in for all parameters, buffers and tensors in attributes.

    On exit the model's own are back.

    They are made in the order in which `torch.nn.Module.to` moves them, submodules first; a
    tensor that several modules share is replaced by one.

    Args:
        model: its modules' tables of tensors are written, not the tensors.
        make: given a parameter or buffer without its gradient, returns what takes its place.
    """
    stand_ins: dict[int, torch.Tensor] = {}
    before: list[tuple[dict[str, Any], str, Any]] = []

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in stand_ins:
            with _disable_current_modes():  # a mode would give another tensor's storage
                own = tensor.detach()
            made = make(own)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            stand_ins[id(tensor)] = made
        return stand_ins[id(tensor)]

    try:
        for module in submodules_first(model):
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name, tensor in list(table.items()):
                    if tensor is not None:
                        before.append((table, name, tensor))
                        table[name] = stand_in(tensor)
            for name, value in own_attributes(module):
                before.append((vars(module), name, value))
                vars(module)[name] = map_tensors(
                    value, lambda tensor: stand_in(tensor) if is_floating(tensor) else tensor
                )
        stand_ins.clear()  # the model alone holds them, and may let them go
        with ExitStack() as flat:
            for module in modules(model):
                if isinstance(module, nn.RNNBase):
                    flat.enter_context(_flat_weights_replaced(module))
            yield
    finally:
        for table, name, tensor in before:
            table[name] = tensor


@contextmanager
def _flat_weights_replaced(module: nn.RNNBase) -> Iterator[None]:
    """Let a recurrent layer's own list of its weights have those that stand in for them.

    A layer whose list is out of date makes it anew in its forward, which asks each weight that is
    computed (`torch.nn.utils.parametrize`) for another value.
    """
    attributes = module.__dict__
    weights, refs = attributes.get("_flat_weights", []), attributes.get("_flat_weight_refs", [])
    own = [module._parameters.get(name) for name in module._flat_weights_names]
    if not len(weights) == len(refs) == len(own):
        yield
        return
    attributes["_flat_weights"] = [
        earlier if weight is None else weight for weight, earlier in zip(own, weights, strict=True)
    ]
    attributes["_flat_weight_refs"] = [
        earlier if weight is None else weakref.ref(weight)
        for weight, earlier in zip(own, refs, strict=True)
    ]
    try:
        yield
    finally:
        attributes.update({"_flat_weights": weights, "_flat_weight_refs": refs})
