"""Memory of tensors that a forward replaces is free from then on, and the model is whole after."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import layerbench
from tests.models import Calls

ELEMENTS, FLOAT = 256, 4
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


def then_takes_more(replace: Callable[[Any, torch.Tensor], object]) -> Forward:
    """A forward whose peak comes after it has replaced what the model keeps."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        replace(m, x)
        return x.repeat(3)

    return forward


def in_attribute(m: Any, kept: torch.Tensor) -> None:
    m.kept = kept


def replace_attribute(m: Any, x: torch.Tensor) -> None:
    m.kept = m.kept[:1] + 1


def in_buffer(m: Any, kept: torch.Tensor) -> None:
    m.register_buffer("kept", kept)


def in_parameter(m: Any, kept: torch.Tensor) -> None:
    m.kept = nn.Parameter(kept)


def replace_parameter(m: Any, x: torch.Tensor) -> None:
    m.kept = nn.Parameter(m.kept[:1] + 1)


def in_list(m: Any, kept: torch.Tensor) -> None:
    m.past = [kept]


def replace_item(m: Any, x: torch.Tensor) -> None:
    m.past[0] = m.past[0][:1] + 1


def in_deque(m: Any, kept: torch.Tensor) -> None:
    m.past = deque([kept])


def in_dict(m: Any, kept: torch.Tensor) -> None:
    m.past = {0: kept}


def in_object(m: Any, kept: torch.Tensor) -> None:
    m.cache = SimpleNamespace(past=[kept])


def replace_in_object(m: Any, x: torch.Tensor) -> None:
    m.cache.past[0] = m.cache.past[0][:1] + 1


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Slotted:
    __slots__ = ("past",)

    def __init__(self, past: object) -> None:
        self.past = past


HOLDERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "a tuple": lambda kept: (kept, kept),
    "a named tuple": lambda kept: Pair(kept[:1].clone(), kept),
    "a list": lambda kept: [kept],
    "a list of tuples": lambda kept: [(0, kept)],
    "a dict of lists": lambda kept: {"past": [kept]},
    "an object": lambda kept: SimpleNamespace(past=(kept,)),
    "an object with slots": lambda kept: Slotted(deque([kept])),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_goes_with_its_holder_gives_its_memory_back(name: str) -> None:
    def replace(m: Any, x: torch.Tensor) -> None:
        tensor(m.state)[:1].add_(1)
        m.state = None

    def tensor(state: Any) -> torch.Tensor:
        """The last one in it."""
        while not isinstance(state, torch.Tensor):
            state = [*state.values()] if isinstance(state, dict) else state
            state = state[-1] if isinstance(state, (list, tuple, deque)) else state.past
        return state

    model, x = Calls(then_takes_more(replace)), torch.rand(ELEMENTS)
    model.state = HOLDERS[name](torch.zeros(ELEMENTS))
    place = id(model.state)
    assert layerbench.memory(model, x).peak.bytes == FLOAT * (ELEMENTS + 3 * ELEMENTS)
    assert id(model.state) == place
    assert tensor(model.state).sum() == 0
    # Somebody who holds the tensor, or its holder, keeps it alive.
    for which in (tensor, lambda state: state):
        held = which(model.state)
        peak = layerbench.memory(model, x).peak.bytes
        assert peak == FLOAT * (ELEMENTS + ELEMENTS + 3 * ELEMENTS)
        del held


@pytest.mark.parametrize(
    ("place", "replace"),
    [
        (in_attribute, replace_attribute),
        (in_buffer, replace_attribute),
        (in_parameter, replace_parameter),
        (in_list, replace_item),
        (in_deque, replace_item),
        (in_dict, replace_item),
        (in_object, replace_in_object),
    ],
)
def test_a_replaced_tensor_gives_its_memory_back(
    place: Callable[[Any, torch.Tensor], None], replace: Callable[[Any, torch.Tensor], None]
) -> None:
    model, x = Calls(then_takes_more(replace)), torch.rand(ELEMENTS)
    place(model, torch.zeros(ELEMENTS))
    # The input, the one new number, and the output.
    assert layerbench.memory(model, x).peak.bytes == FLOAT * (ELEMENTS + 1 + 3 * ELEMENTS)


@pytest.mark.parametrize("names", [["kept"], ["kept", "part"]])
def test_a_replaced_buffer_gives_its_memory_back_in_a_prediction(names: list[str]) -> None:
    def replace(m: Any, x: torch.Tensor) -> None:
        for name in names:
            setattr(m, name, None)

    model, x = Calls(then_takes_more(replace)), torch.rand(ELEMENTS)
    kept = torch.zeros(2 * ELEMENTS)
    for name, tensor in zip(names, (kept, kept[ELEMENTS:]), strict=False):
        model.register_buffer(name, tensor)
    record = layerbench.estimate_memory(model, x)
    assert record.how == "fake"
    assert record.peak_bytes == FLOAT * 4 * ELEMENTS


def test_what_a_first_step_replaces_is_not_there_in_the_second() -> None:
    """Nor is it held so that a mode, or the batch, can be put back."""
    peaks = []
    for elements in (1, 100 * ELEMENTS):
        model = Calls(lambda m, x: replace_attribute(m, x) or m.fc(x), fc=nn.Linear(4, 4))
        in_buffer(model, torch.zeros(elements))
        peaks.append(layerbench.memory(model, torch.rand(2, 4), training=True).peak.bytes)
        assert model.kept.numel() == elements
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(("names", "held"), [(["first"], ELEMENTS), (["first", "second"], 0)])
def test_a_buffer_is_there_until_its_last_name_is_deleted(names: list[str], held: int) -> None:
    def replace(m: Any, x: torch.Tensor) -> None:
        for name in names:
            delattr(m, name)

    model, x = Calls(then_takes_more(replace)), torch.rand(ELEMENTS)
    model.register_buffer("first", torch.zeros(ELEMENTS))
    model.register_buffer("second", model.first)
    assert layerbench.memory(model, x).peak.bytes == FLOAT * (held + 4 * ELEMENTS)
    assert model.second is model.first


def test_a_note_says_what_a_replaced_module_may_have_held() -> None:
    def replace(m: Any, x: torch.Tensor) -> None:
        m.part = m.buffer = None

    model, x = Calls(then_takes_more(replace), part=nn.Linear(4, 5)), torch.rand(ELEMENTS)
    model.register_buffer("buffer", torch.zeros(ELEMENTS))
    (note,) = layerbench.memory(model, x).notes
    assert f"parameters or buffers of {FLOAT * (4 * 5 + 5)} B that are still held" in note


class Replaces(nn.Module):
    """Everything it keeps is replaced, emptied or deleted in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5))
        self.weight.grad = torch.ones(5)
        self.frozen = nn.Parameter(torch.rand(2), requires_grad=False)
        self.register_buffer("turned", torch.rand(2, 3, dtype=torch.double).t())
        self.register_buffer("none", None)
        self.register_buffer("empty", torch.empty(0, 3))
        self.state = torch.rand(3)
        self.same = self.state
        self.past = [torch.rand(2), self.state]
        self.table = {"a": torch.rand(2, dtype=torch.cfloat)}
        self.trained = torch.rand(3, requires_grad=True)
        self.base = torch.rand(6)
        self.view = self.base[2:4]
        self.known = torch.rand(4)
        self.turned.add_(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.detach().add_(1)
        self.weight = nn.Parameter(torch.zeros(2))
        del self.frozen, self.empty
        self.turned = self.turned * 2
        self.none = torch.ones(3)
        self.past[:] = [self.known]
        self.table["a"] = self.table.setdefault("b", torch.zeros(1))
        self.state = self.same = self.trained = self.base = self.view = self.known = None
        return x * 2


def facts(model: nn.Module) -> dict[str, Any]:
    """Every tensor of a model, by place, as what can be seen of it."""
    places: dict[str, Any] = {**vars(model), **model._parameters, **model._buffers}
    places |= {f"past {n}": tensor for n, tensor in enumerate(model.past)}
    places |= {f"table {key}": tensor for key, tensor in model.table.items()}
    return {
        name: (
            *(type(one), one.dtype, one.shape, one.stride(), one.tolist(), one.requires_grad),
            *(one._version, one._is_view(), one.grad if one.is_leaf else None),
        )
        for name, one in places.items()
        if isinstance(one, torch.Tensor)
    }


def test_a_model_that_replaces_everything_is_whole_after() -> None:
    model, x = Replaces(), torch.rand(3)
    known, before = model.known, facts(model)
    layerbench.memory(model, x)
    after = facts(model)
    assert [*after] == [*before]
    assert all(after[name][:-1] == before[name][:-1] for name in before)
    assert all(after[name][-1] is before[name][-1] for name in before)
    assert model.known is known
    assert model.same is model.state
    assert model.past[1] is model.state
    assert model.view._base is model.base
    model.weight.sum().backward()
    assert model.weight.grad.tolist() == [2.0] * 5


def test_a_replaced_tensor_comes_back_itself() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.shared = m.labelled = m.computed = None
        return x * 2

    model, weight = Calls(forward), torch.rand(3, requires_grad=True)
    model.shared, model.labelled, model.computed = torch.rand(3), torch.rand(3), weight * 2
    model.labelled.label = "a"
    shared, places = model.shared.detach(), [id(model.shared), id(model.computed)]
    layerbench.memory(model, torch.rand(3))
    assert [id(model.shared), id(model.computed)] == places
    assert model.shared.data_ptr() == shared.data_ptr()
    assert model.labelled.label == "a"
    model.computed.sum().backward()
    assert weight.grad is not None


def test_a_weak_reference_gives_a_replaced_tensor_whole_or_not_at_all() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        ref = weakref.ref(m.kept)
        m.kept = None
        y = x * 2
        tensor = ref()
        return y if tensor is None else y + tensor.sum() / (tensor.numel() == 2)

    model = Calls(forward)
    model.kept = torch.zeros(2)
    layerbench.memory(model, torch.rand(3))
    assert model.kept.tolist() == [0.0, 0.0]


def test_hooks_of_a_replaced_parameter_still_run() -> None:
    model = Calls(then_takes_more(replace_parameter))
    model.kept = nn.Parameter(torch.rand(3))
    seen: list[str] = []
    model.kept.register_hook(lambda _: seen.append("gradient"))
    handle = model.kept.register_post_accumulate_grad_hook(lambda _: seen.append("added"))
    layerbench.memory(model, torch.rand(3))
    model.kept.sum().backward()
    handle.remove()
    model.kept.sum().backward()
    assert seen == ["gradient", "added", "gradient"]
