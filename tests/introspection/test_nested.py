from __future__ import annotations

import types
from collections import OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any

import attr
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from layerbench.introspection.nested import map_tensors, tensors_in, tensors_in_plain
from layerbench.introspection.tensors import bytes_of, shape_of


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("layout", "lengths"), [(torch.strided, 4 + 4 + 2), (torch.jagged, 3)])
def test_a_nested_tensor_has_the_shape_that_it_would_have_padded(
    layout: torch.layout, lengths: int
) -> None:
    """Strided, it has two sizes, two strides and an offset for each row; jagged, offsets alone."""
    rows = [torch.zeros(6, 16), torch.zeros(4, 16)]
    tensor = torch.nested.nested_tensor(rows, layout=layout)
    assert shape_of(tensor) == (2, 6, 16)
    assert bytes_of(tensor) == 10 * 16 * 4 + lengths * 8


def test_a_sparse_tensor_holds_indices_and_values() -> None:
    tensor = torch.eye(4).to_sparse()
    assert shape_of(tensor) == (4, 4)
    assert bytes_of(tensor) == 4 * 2 * 8 + 4 * 4


@dataclass
class _Plain:
    x: Any
    twice: Any = field(init=False)

    def __post_init__(self) -> None:
        self.twice = self.x * 2


@dataclass(frozen=True)
class _Frozen:
    x: Any


@dataclass(frozen=True, slots=True)
class _Slots:
    x: Any


@attr.s(frozen=True, slots=True)
class _Attrs:
    x = attr.ib()


class _Object:
    __slots__ = ("never_set", "x")

    def __init__(self, x: Any) -> None:
        self.x = x


class _Output(OrderedDict):
    """As Hugging Face's: a mapping, whose entries are attributes too."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)


_Named = namedtuple("_Named", "x label")
ONE = torch.ones(2, 3)
HOLDERS = [
    (_Plain(ONE), 2),
    (_Frozen(ONE), 1),
    (_Slots(ONE), 1),
    (_Attrs(ONE), 1),
    (_Object(ONE), 1),
    (_Output(x=ONE), 1),
    (_Named(ONE, "a"), 1),
    (types.SimpleNamespace(x=[{"deep": _Frozen(ONE)}]), 1),
    (types.MappingProxyType({"x": ONE}), 1),
    (UserDict(x=ONE), 1),
    (deque([ONE], maxlen=2), 1),
    (torch.max(ONE, 1), 2),
    (torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 2),
    (pack_padded_sequence(torch.rand(3, 2, 4), [3, 2]).data, 1),
]


@pytest.mark.parametrize(("value", "count"), HOLDERS, ids=lambda v: type(v).__name__)
def test_tensors_are_found_and_changed_in_whatever_holds_them(value: Any, count: int) -> None:
    assert len(list(tensors_in(value))) == count
    made = map_tensors(value, lambda tensor: tensor + 1)
    assert type(made) is type(value)
    assert made is not value
    for before, after in zip(tensors_in(value), tensors_in(made), strict=True):
        assert torch.equal(before + 1, after)


def test_an_output_that_is_mapping_and_object_stays_both() -> None:
    made = map_tensors(_Output(x=ONE), lambda tensor: tensor * 3)
    assert made.x is made["x"]


def test_a_packed_sequence_keeps_its_batch_sizes_on_the_host() -> None:
    packed = pack_padded_sequence(torch.rand(3, 2, 4), [2, 3], enforce_sorted=False)
    made = map_tensors(packed, lambda tensor: tensor.to("meta"))
    assert made.data.is_meta
    assert made.sorted_indices.is_meta
    assert made.batch_sizes is packed.batch_sizes


def test_a_tensor_that_comes_twice_is_changed_once_and_a_circle_ends() -> None:
    circle: dict[str, Any] = {"x": ONE}
    circle["self"] = circle
    made = map_tensors((ONE, circle, ONE), torch.clone)
    assert made[0] is made[2] is made[1]["x"]
    assert made[1]["self"] is made[1]


def test_models_generators_and_what_holds_no_tensor_are_passed_on() -> None:
    values = [torch.nn.Linear(2, 2), (item for item in [ONE]), {"a": [1, "b"]}, lambda: ONE]
    assert list(tensors_in(values)) == []
    assert map_tensors(values, torch.clone) is values


def test_tensors_in_plain_containers_are_read_without_asking_what_is_somebodys_own() -> None:
    class Own(dict[str, torch.Tensor]):
        def values(self) -> Any:
            raise RuntimeError("asked")

    first, second = torch.ones(1), torch.ones(2)
    circle: list[object] = [first]
    circle.append(circle)
    assert [t.numel() for t in tensors_in_plain(({"a": [first]}, Own(x=first), second))] == [1, 2]
    assert next(tensors_in_plain(circle)) is first
    assert len(list(tensors_in_plain(circle))) > 1  # it ends
