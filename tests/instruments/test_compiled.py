"""Models that are compiled already: looked through, or timed as one; never compiled again."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

import layerbench
from layerbench.errors import UsageError
from layerbench.instruments.compiled import entry_noticed
from layerbench.profilers.user_loop_compiled import FORWARDS
from layerbench.profilers.user_steps import LiveSteps
from tests.faulty.compiled import (
    FLOPS,
    PARAMETERS,
    PARTLY,
    WHOLE,
    Block,
    Counting,
    Net,
    a_part_wrapped,
    in_place,
    wrapped,
)

X = torch.rand(2, 4)
Make = Callable[[Counting], nn.Module]


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Dynamo gives up on code that it has compiled too often, over all tests."""
    torch._dynamo.reset()


def compiled(make: Make) -> tuple[nn.Module, Counting]:
    """A model that has run, so that nothing is left to compile."""
    backend = Counting()
    model = make(backend).eval()
    with torch.no_grad():
        model(X)
    assert backend.count == 1
    return model, backend


@pytest.mark.parametrize("make", WHOLE, ids=lambda make: make.__name__)
def test_a_compiled_model_is_timed_whole(make: Make) -> None:
    model, backend = compiled(make)
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for _ in range(5):
            model(X)
    assert {row.path for row in layers.rows if row.inclusive} == {""}
    assert "compiled" in layers.absent["flops"]
    profile = layerbench.profile(model, X, warmup=1, iterations=2)
    assert profile.layers == ()
    for absent in (layers.absent, profile.absent):
        assert "compiled by torch.compile" in absent["layers"]
    with torch.no_grad():
        model(X)
    assert backend.count == 1


@pytest.mark.parametrize("make", PARTLY, ids=lambda make: make.__name__)
def test_a_compiled_part_is_timed_as_one_and_has_no_functions(make: Make) -> None:
    model, backend = compiled(make)
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for _ in range(5):
            model(X)
        model(X)
    profile = layerbench.profile(model, X, warmup=1, iterations=2, function_iterations=1)
    for rows, absent in ((layers.rows, layers.absent), (profile.layers, profile.absent)):
        timed = {row.path for row in rows if row.inclusive}
        assert {"stem", "body.1", "body.1.layer", "head"} <= timed
        assert not {path for path in timed if path.startswith("body.0.")}
        assert any("functions" in what for what in absent)
    with torch.no_grad():
        model(X)
    assert backend.count == 1


def test_functions_beside_a_compiled_part_are_timed() -> None:
    model, _ = compiled(a_part_wrapped)
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        for _ in range(3):
            model(X)
    functions = {row.path for row in layers.rows if row.kind == "function"}
    assert functions == {"body.1.relu()", "body.1.add()"}


@pytest.mark.parametrize("make", [*WHOLE, *PARTLY], ids=lambda make: make.__name__)
def test_structure_and_memory_look_through_what_is_compiled(make: Make) -> None:
    model, backend = compiled(make)
    structure, memory = layerbench.structure(model, X), layerbench.memory(model, X)
    assert (structure.parameters, structure.flops) == (PARAMETERS, FLOPS)
    assert memory.parameters.elements == PARAMETERS
    with torch.no_grad():
        model(X)
    assert backend.count == 1


def test_a_wrapper_has_no_row_and_a_note_says_what_ran() -> None:
    model, _ = compiled(wrapped)
    plain = layerbench.structure(Net().eval(), X)
    structure = layerbench.structure(model, X)
    assert [row.path for row in structure.rows] == [row.path for row in plain.rows]
    assert structure.model_type == structure.workload.model == "Net"
    for record in (structure, layerbench.memory(model, X)):
        assert any("ran as plain Python" in note for note in record.notes)


def test_a_model_is_compared_with_itself_compiled() -> None:
    model, backend = compiled(wrapped)
    comparison = layerbench.compare_live(Net().eval(), model, X, warmup=1, iterations=10)
    assert comparison.rows == ()
    assert backend.count == 1


@pytest.mark.parametrize("part", [False, True], ids=["the model", "a part"])
def test_what_is_compiled_while_it_is_timed_stays_compiled(part: bool) -> None:
    model, backend = Net().eval(), Counting()
    with torch.no_grad(), layerbench.time_layers(model):
        expected = model(X)
        model(X)
        (model.body[0] if part else model).compile(backend=backend, fullgraph=True)
        for _ in range(4):
            torch.testing.assert_close(model(X), expected)
    assert backend.count == 1
    whole = {"_compiled_call_impl"}
    own = set(model.body[0].__dict__) if part else set(model.__dict__)
    assert own - set((Block() if part else Net()).__dict__) == whole


MODEL = Net().eval()


def by_global(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    del model
    return lambda x: MODEL(x) * 2


def by_closure(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: model(x) * 2


def by_owner(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    class Trainer:
        def __init__(self) -> None:
            self.model = model

        def step(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x) * 2

    return Trainer().step


def by_other_function(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    within = by_closure(model)
    return lambda x: within(x) * 2


def in_parts(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def step(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return model(x * 2)

    return step


OUTSIDE = [by_global, by_closure, by_owner, by_other_function, in_parts]


@pytest.mark.parametrize("make", OUTSIDE, ids=lambda make: make.__name__)
def test_what_calls_the_model_from_outside_is_not_compiled_again(make: Callable) -> None:
    backend = Counting()
    step = torch.compile(make(MODEL), backend=backend)
    with torch.no_grad():
        expected = step(X)
        count = backend.count
        with layerbench.time_layers(MODEL) as layers:
            for _ in range(3):
                torch.testing.assert_close(step(X), expected)
            with pytest.raises(UsageError, match=r"inside .*, which torch.compile compiled"):
                _ = layers.record
            for _ in range(3):
                MODEL(X)
                step(X)
        step(X)
    assert backend.count == count
    assert layers.forwards == 3
    assert {"stem", "body.0.layer"} <= {row.path for row in layers.rows if row.inclusive}
    # That a function calls another that calls the model is not known.
    assert (FORWARDS in layers.record.absent) == (make is not by_other_function)


def test_what_is_given_is_not_what_runs() -> None:
    model = Net().eval()
    made = torch.compile(model, backend=Counting())
    with torch.no_grad(), layerbench.time_layers(model) as layers:
        made(X)
    with pytest.raises(UsageError, match=r"as what torch.compile made of it: give that"):
        _ = layers.record


class Trained(Net):
    """A module with a step of its own, which looks at itself."""

    def training_step(self, x: torch.Tensor) -> torch.Tensor:
        return self(x) * len(self.training_step.__code__.co_varnames)


def test_a_training_step_that_is_compiled_is_not_compiled_again() -> None:
    """Lightning compiles the methods of a module, and its log reads its training_step."""
    backend = Counting()
    model = Trained()
    for name in ("forward", "training_step"):
        setattr(model, name, torch.compile(getattr(model, name), backend=backend))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    live = LiveSteps(model, [optimizer], skip=1, steps=2, entry="training_step")
    counts = []
    with live.attached():
        for _ in range(5):
            model.training_step(X).sum().backward()
            optimizer.step()
            live.step()
            counts.append(backend.count)
    assert counts == [counts[0]] * 5
    assert live.record.step.n == 1


def test_what_is_compiled_in_the_loop_stays_compiled_after_it() -> None:
    backend = Counting()
    with torch.no_grad(), layerbench.time_layers(MODEL):
        step = torch.compile(by_closure(MODEL), backend=backend)
        MODEL(X)
        step(X)
    with torch.no_grad():
        step(X)
    assert backend.count == 1


def test_layers_are_timed_again_after_a_compiled_function_that_fails() -> None:
    def step(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model(x)

    compiled_step = torch.compile(step, backend=Counting())
    with torch.no_grad(), layerbench.time_layers(MODEL) as layers:
        MODEL(X)
        with pytest.raises(Exception, match=r"shape|size|match"):
            compiled_step(MODEL, torch.rand(2, 5))
        MODEL(X)
    assert layers.forwards == 2
    assert not set(MODEL.__dict__) - set(Net().__dict__)


def test_operators_that_compile_inside_pass_through_a_loop() -> None:
    class Branching(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = Net.forward(self, x)
            return torch.cond(x.sum() > -1e9, lambda y: self.last(y) + 1, torch.cos, (x,))

    model = Branching().eval()
    model.last = nn.Linear(2, 2)
    with torch.no_grad():
        expected = model(X)
        with layerbench.time_layers(model) as layers:
            for _ in range(3):
                torch.testing.assert_close(model(X), expected)
    assert {"stem", "body.0.layer", "head"} <= {row.path for row in layers.rows if row.inclusive}
    assert "compile" in layers.absent["functions"]
    assert "compile" in layers.absent["flops"]


def test_flex_attention_passes_through_a_loop() -> None:
    flex_attention = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key, value = self.project(x).reshape(1, 1, -1, 3, 4).unbind(3)
            output: torch.Tensor = flex_attention(query, key, value)
            return output

    model = Attending().eval()
    with torch.no_grad():
        expected = model(X)
        with layerbench.time_layers(model) as layers:
            for _ in range(3):
                torch.testing.assert_close(model(X), expected)
    assert "compile" in layers.absent["functions"]
    assert "compile" in layers.absent["flops"]


@pytest.mark.parametrize("part", [False, True], ids=["the model", "a part"])
def test_a_step_of_what_is_compiled_in_place_is_timed_around_it(part: bool) -> None:
    model, backend = Net(), Counting()
    compiled_here = model.body[0] if part else model
    compiled_here.compile(backend=backend)
    profile = layerbench.profile_training(model, X, warmup=1, iterations=2)
    rows = {row.path: row for row in profile.rows}
    whole, inside = rows["body.0" if part else ""], rows["body.0.layer"]
    assert whole.forward is not None
    assert whole.forward.mean > 0
    assert whole.backward is not None
    assert inside.forward is None
    assert "compiled" in inside.note
    assert (rows["head"].forward is not None) is part
    assert compiled_here._compiled_call_impl is not None
    assert backend.count == 1


def test_a_compiled_model_stays_compiled_after_all_that() -> None:
    model, backend = compiled(in_place)
    call = model._compiled_call_impl
    layerbench.structure(model, X)
    with torch.no_grad(), layerbench.time_layers(model):
        model(X)
    assert model._compiled_call_impl is call
    assert backend.count == 1


def test_what_dynamo_keeps_of_an_instrument_leads_nowhere_afterwards():
    """It makes a table of PyTorch's functions once, ``torch.compile`` as it is then among them."""

    class Listener:
        def __call__(self, reached):
            pass

    listener = Listener()
    there = weakref.ref(listener)
    with entry_noticed(listener):
        kept = torch.compile
    del listener
    assert there() is None
    assert kept(nn.Linear(2, 2), backend="eager") is not None
