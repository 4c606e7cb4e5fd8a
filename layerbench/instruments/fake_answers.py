"""What operators gave for fake tensors, kept for those that come alike.

A network runs the same operators on tensors of the same shapes again and again. PyTorch keeps its
own answers, too, behind a key that takes it longer to make than most answers; and those of batch
normalization, say, it makes anew each time. What a tensor without values is like depends on what
the arguments are like alone, except for a few operators, which are left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch._ops import OpOverload

from layerbench.instruments.autocast_seen import is_composite
from layerbench.introspection.nested import tensors_in

_Way = Literal["new", "in place", "view"]
_Key = tuple[object, ...]

UNKNOWN = object()
"""No answer is kept."""


class _Made(NamedTuple):
    """A tensor that an operator gave.

    Attributes:
        shape, stride, offset, dtype, device: as of a tensor; the device that it says it is on.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


class _Answer(NamedTuple):
    """What an operator gave.

    Attributes:
        way: in which it did.
        made: tensors, or ``None`` where there is none.
        several: whether it gave a tuple.
    """

    way: _Way
    made: tuple[_Made | None, ...] = ()
    several: bool = False


class _NotKept(Exception):
    """No answer is kept for such arguments."""


class FakeAnswers:
    """The answers of one mode of fake tensors.

    Args:
        mode: a ``FakeTensorMode`` without symbolic shapes.
    """

    def __init__(self, mode: Any) -> None:  # noqa: ANN401 - its module takes a second to load
        from torch._subclasses.fake_tensor import FakeTensor

        self._mode = mode
        self._fake = FakeTensor
        self._kept: dict[_Key, _Answer] = {}

    def key(self, func: object, args: Sequence[Any], keywords: dict[str, Any]) -> _Key | None:
        """What an answer depends on; ``None`` where none is kept."""
        if _way_of(func) is None or (_is_autocast_on() and is_composite(func)):
            return None
        try:
            return (
                func,
                torch.is_inference_mode_enabled(),
                torch.is_grad_enabled(),
                torch.get_default_dtype(),
                torch._C._get_default_device(),
                *map(self._part, args),
                *((name, self._part(value)) for name, value in keywords.items()),
            )
        except _NotKept:
            return None

    def _part(self, value: Any) -> object:  # noqa: ANN401 - an argument
        kind = type(value)
        if kind is self._fake:
            return self._tensor(value)
        if kind in _PLAIN:
            return kind, value
        if kind is list or kind is tuple:
            return kind, *map(self._part, value)
        raise _NotKept

    def _tensor(self, value: Any) -> object:  # noqa: ANN401 - a fake tensor
        # One with a constant stands for a tensor whose values are known.
        if value.constant is not None or value.fake_mode is not self._mode or not _is_plain(value):
            raise _NotKept
        return (
            value.dtype,
            value.shape,
            value.stride(),
            value.storage_offset(),
            value.fake_device,
            value.requires_grad,
        )

    def given(self, key: _Key, args: Sequence[Any]) -> Any:  # noqa: ANN401 - as the operator's
        """The answer for such arguments; `UNKNOWN` where none is kept."""
        answer = self._kept.get(key)
        if answer is None:
            return UNKNOWN
        if answer.way == "in place":
            return args[0]
        storage = _storage(args[0]) if answer.way == "view" else None
        if not answer.several:
            return self._new(answer.made[0], storage)
        return tuple(self._new(one, storage) for one in answer.made)

    def _new(self, made: _Made | None, storage: torch.UntypedStorage | None = None) -> Any:  # noqa: ANN401
        if made is None:
            return None
        tensor = torch.empty_strided(made.shape, made.stride, dtype=made.dtype, device="meta")
        if storage is not None:
            tensor.set_(storage, made.offset, made.shape, made.stride)
        return self._fake(self._mode, tensor, made.device)

    def keep(self, key: _Key, args: Sequence[Any], keywords: dict[str, Any], given: Any) -> None:  # noqa: ANN401
        """Keep what an operator gave, if the same can be given again."""
        way = _way_of(key[0])
        assert way is not None
        if way == "in place":
            if given is args[0] and self.key(key[0], args, keywords) == key:
                self._kept[key] = _Answer(way)
            return
        several = isinstance(given, tuple)
        outputs = given if several else (given,)
        try:
            made = tuple(map(self._described, outputs))
        except _NotKept:
            return
        taken = {_storage(one)._cdata for one in tensors_in((*args, *keywords.values()))}
        for output, one in zip(outputs, made, strict=True):
            if one is None:
                continue
            storage = _storage(output)
            if way == "view":
                if storage._cdata != _storage(args[0])._cdata:
                    return
            elif storage._cdata in taken or storage.nbytes() != _storage(self._new(one)).nbytes():
                return
            taken.add(storage._cdata)
        self._kept[key] = _Answer(way, made, several)

    def _described(self, output: Any) -> _Made | None:  # noqa: ANN401 - one of an operator's
        if output is None:
            return None
        if type(output) is not self._fake or output.requires_grad:
            raise _NotKept
        self._tensor(output)
        return _Made(
            tuple(output.shape),
            output.stride(),
            int(output.storage_offset()),
            output.dtype,
            output.fake_device,
        )


def _is_autocast_on() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


# fmt: off
_PLAIN = frozenset({
    bool, int, float, str, type(None),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
})
# fmt: on
_ATEN = torch.ops.aten
# Of these the output depends on values, or tensors change what they are.
_OTHER = {"data_dependent_output", "dynamic_output_shape", "inplace_view"}


@cache
def _way_of(func: object) -> _Way | None:
    """In which way an operator answers; ``None`` for those whose answers are not kept."""
    if not isinstance(func, OpOverload) or not _depends_on_shapes(func):
        return None
    if func is _ATEN._unsafe_view.default:
        return "view"  # which its schema does not say
    schema = func._schema
    aliased = [one for one in schema.arguments if one.alias_info is not None]
    if not aliased:
        return "new"
    returned = [one.alias_info for one in schema.returns]
    if aliased != schema.arguments[:1] or len(returned) > 1 or returned[0] is None:
        return None
    return "in place" if returned[0].is_write else "view"


def _depends_on_shapes(func: OpOverload) -> bool:
    """Whether an operator gives tensors, which depend on what its arguments are like alone."""
    returns = func._schema.returns
    return (
        func.namespace == "aten"
        and bool(returns)
        and all(str(one.type) == "Tensor" for one in returns)
        and not any(tag.name in _OTHER for tag in func.tags)
        and "lift" not in func.overloadpacket.__name__  # what is lifted may have values
    )
