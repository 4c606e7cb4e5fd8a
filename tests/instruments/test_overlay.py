"""What a user's loop does to a model inside `layerbench.time_layers` is as if it were outside."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

import layerbench
from tests.faulty import Case
from tests.faulty.copied import CASES, Pair, nested

Copy = Callable[[nn.Module], nn.Module]


def through_a_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def by_its_dictionary(model: nn.Module) -> nn.Module:
    twin = type(model).__new__(type(model))
    twin.__dict__.update(model.__dict__)
    return twin


X = torch.ones(1, 4)
COPIES: dict[str, Copy] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "the oldest pickle": lambda model: pickle.loads(pickle.dumps(model, 0)),
    "torch.save": through_a_file,
    "EMA": lambda model: AveragedModel(model).module,
    "a copied dictionary": by_its_dictionary,
}
SHALLOW = ("copy", "a copied dictionary")


TRACED = Case("a graph of modules", lambda: (torch.fx.symbolic_trace(Pair()), (X,)))


def attributes(model: nn.Module) -> dict[str, set[str]]:
    return {path: set(module.__dict__) for path, module in model.named_modules()}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("case", [*CASES[:5], TRACED], ids=lambda case: case.name)
def test_a_copy_has_nothing_of_ours_and_runs_its_own_weights(case: Case, way: str) -> None:
    model, inputs = case.build()
    before = attributes(model)
    try:
        expected = attributes(COPIES[way](model))
    except AttributeError:
        pytest.skip("this PyTorch does not pickle a graph with such annotations")
    with torch.no_grad(), layerbench.time_layers(model):
        model(*inputs)
        model(*inputs)
        twin = COPIES[way](model)
        model(*inputs)
    assert attributes(twin) == expected
    assert attributes(model) == before
    if way not in SHALLOW:
        assert runs_its_own_weights(twin, model, inputs)


def runs_its_own_weights(twin: nn.Module, model: nn.Module, inputs: tuple[Any, ...]) -> bool:
    with torch.no_grad():
        fill(model, 100.0)
        fill(twin, 1.0)
        seen = twin(*inputs)
        fill(model, 1.0)
        return torch.equal(seen, model(*inputs))


def fill(model: nn.Module, value: float) -> None:
    for parameter in model.parameters():
        parameter.fill_(value)


def test_what_forward_copies_of_the_model_is_its_own_too() -> None:
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = nn.Linear(2, 2)
            self.__dict__["teacher"] = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.__dict__["teacher"] is None:
                self.__dict__["teacher"] = copy.deepcopy(self.online)
            return self.online(x)

    model = Student()
    with layerbench.time_layers(model):
        model(torch.rand(1, 2))
    assert set(model.__dict__["teacher"].__dict__) == set(nn.Linear(2, 2).__dict__)


# --- what the loop sets stays ---------------------------------------------------------------------


def test_a_forward_that_the_loop_sets_runs_and_stays() -> None:
    model, heard = Pair(), []

    def tripled(x: torch.Tensor) -> torch.Tensor:
        heard.append(len(heard))
        return x * 3

    with layerbench.time_layers(model):
        model(X)
        model(X)
        model.first.forward = tripled  # type: ignore[method-assign]
        for _ in range(4):
            model(X)
    assert model.first.__dict__["forward"] is tripled
    model(X)
    assert len(heard) == 5
    del model.first.__dict__["forward"]
    assert attributes(model) == attributes(Pair())


def test_a_forward_that_the_loop_takes_away_is_gone() -> None:
    model = Pair()
    with layerbench.time_layers(model):
        model(X)
        del model.forward
        model(X)
    assert attributes(model) == attributes(Pair())


def test_modules_that_come_and_go_and_change_keep_nothing() -> None:
    model = Pair()
    gone = model.second[0]
    with layerbench.time_layers(model) as layers:
        model(X)
        model(X)
        model.second[0] = nn.Identity()
        model.second.append(nn.ReLU())
        model.double()
        model(X.double())
        model.float()
        model(X)
        model.requires_grad_(False)
    rows = {row.path: row for row in layers.rows}
    left = rows["second.0"]  # it ran in one of the two forwards that are kept
    assert left.inclusive is not None
    assert (left.calls, left.inclusive.n, left.inclusive.min) == (1, 2, 0)
    assert set(gone.__dict__) == set(nn.Linear(1, 1).__dict__)
    assert "_call_impl" not in model.second.__dict__


def test_hooks_that_a_forward_sets_and_takes_off_are_heard() -> None:
    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heard: list[torch.Tensor] = []
            handle = self.body[0].register_forward_hook(lambda _m, _i, out: heard.append(out))
            self.body(x)
            handle.remove()
            return heard[0]

    model = Listening()
    expected = model(X)
    with layerbench.time_layers(model) as layers:
        for _ in range(5):
            torch.testing.assert_close(model(X), expected)
    assert next(row for row in layers.rows if row.path == "body.0").calls == 1
    profile = layerbench.profile(model, X, warmup=1, iterations=2, function_iterations=1)
    assert next(row for row in profile.layers if row.path == "body.0").calls == 1


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_is_scripted_traced_or_drawn_meanwhile_is_the_model() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(self.layer(x))

    model = Net()
    expected = model(X)
    with layerbench.time_layers(model) as layers:
        model(X)
        model(X)
        scripted, traced = torch.jit.script(model), torch.jit.trace(model, X, check_trace=False)
        drawn = torch.fx.symbolic_trace(model)
        model(X)
    assert layers.forwards == 3
    for made in (scripted, traced, drawn):
        assert torch.equal(made(X), expected)


# --- blocks within blocks, threads, ends ----------------------------------------------------------


@pytest.mark.parametrize("inner_first", [True, False])
def test_blocks_may_overlap_and_end_in_any_order(inner_first: bool) -> None:
    model = Pair()
    limit = sys.getrecursionlimit()
    blocks = [layerbench.time_layers(part) for part in (model, model, model.second)]
    layers = [block.__enter__() for block in blocks if model(X) is not None]
    for _ in range(5):
        model(X)
    for block in blocks[::-1] if inner_first else blocks:
        block.__exit__(None, None, None)
        model(X)
    assert attributes(model) == attributes(Pair())
    assert sys.getrecursionlimit() == limit
    timed = [{row.path for row in found.rows if row.inclusive} for found in layers]
    assert timed == [{"", "first", "second", "second.0"}] * 2 + [{"", "0"}]


def test_other_threads_are_not_timed_and_a_note_says_so() -> None:
    model = Pair()
    with layerbench.time_layers(model) as layers:
        model(X)
        go = threading.Event()

        def work(x: torch.Tensor) -> torch.Tensor:
            thread = threading.Thread(target=lambda: (model.first(x), go.set()))
            thread.start()
            thread.join()
            return x

        model.second.forward = work  # type: ignore[method-assign]
        for _ in range(3):
            model(X)
    assert go.is_set()
    assert layers.notes == ("called in other threads, whose work is not timed: first",)
    assert all(row.self_ is None or row.self_.min >= 0 for row in layers.rows)


def test_a_generator_that_nobody_ends_leaves_nothing() -> None:
    model = Pair()

    def forwards() -> Any:
        with layerbench.time_layers(model):
            while True:
                yield model(X)

    running = forwards()
    next(running)
    next(running)
    del running
    gc.collect()
    assert attributes(model) == attributes(Pair())


def test_calls_outside_a_forward_of_the_model_are_nobodys() -> None:
    model = Pair()
    with layerbench.time_layers(model) as layers:
        for _ in range(5):
            model(X)
            model.first(X)
    assert {row.path: row.calls for row in layers.rows}["first"] == 1


# --- what a loop raises inside is what it would raise outside ------------------------------------


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_pass_through() -> None:
    model, inputs = CASES[-1].build()
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for _ in range(3):
            assert model(*inputs).shape == (2, 6, 16)
    rows = {row.path: row for row in layers.rows}
    assert rows["layers.0"].input_shapes == ((2, 6, 16),)


def test_a_model_as_deep_as_python_allows_has_its_rows() -> None:
    model = nested(150).eval()
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for _ in range(3):
            model(X)
    assert len(layers.rows) == 151
    assert layerbench.structure(model, X).flops == 32


def test_a_container_that_can_be_read_once_is_read_by_the_model() -> None:
    class Once(dict[str, torch.Tensor]):
        def values(self) -> Any:
            raise RuntimeError("not twice")

    model = nn.Identity()
    with layerbench.time_layers(model):
        for _ in range(3):
            assert isinstance(model(Once(x=X)), Once)
