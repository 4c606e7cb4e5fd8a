"""After any call, also one that raised, a model and its inputs are as if nothing had happened."""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

import layerbench
from layerbench import zoo
from layerbench.errors import LayerbenchError
from layerbench.introspection.modules import parameters
from layerbench.introspection.nested import tensors_in
from tests.faulty import Case, cases, changed_inputs, counts, keeps_state, layers
from tests.support.fingerprint import draws, fingerprint, saving

Call = Callable[[nn.Module, tuple[Any, ...]], object]

FEW = {"warmup": 1, "iterations": 2}
CALLS: dict[str, Call] = {
    "structure": layerbench.structure,
    "memory": layerbench.memory,
    "estimate_memory": layerbench.estimate_memory,
    "estimate_memory of training": lambda m, x: layerbench.estimate_memory(m, x, training=True),
    "profile": lambda m, x: layerbench.profile(m, x, function_iterations=1, **FEW),
    "profile_training": lambda m, x: layerbench.profile_training(m, x, **FEW),
    "compare_live": lambda m, x: layerbench.compare_live(m, m, x, warmup=0, iterations=10),
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody looks half a second long who else is busy, or collects all objects of all tests."""
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_call_leaves_a_model_as_it_was(case: Case) -> None:
    torch.manual_seed(0)
    model, inputs = case.build()
    # A graph module makes parts of itself anew when it is saved.
    could_be_saved, before = saving(model), fingerprint(model, inputs)
    for name, call in calls_for(case):
        drawn = draws()
        said = run(call, model, inputs)
        after = fingerprint(model, inputs)
        assert differences(before, after) == {}, (name, said)
        assert draws() == drawn, name
    assert saving(model) == could_be_saved
    check_next_steps(case, model, inputs)


def test_what_a_forward_counts_in_globals_and_classes_is_put_back() -> None:
    model, inputs = counts.CASES[0].build()
    model(*inputs)
    for name, call in CALLS.items():
        before = counts.outside()
        run(call, model, inputs)
        assert counts.outside() == before, name


def calls_for(case: Case) -> list[tuple[str, Call]]:
    """All of them; two models in turn only where a forward keeps something for the other."""
    # A training profile runs a memory report of training, too.
    keep = (*keeps_state.CASES, *layers.CASES, *changed_inputs.CASES)
    keeps = any(case.name == other.name for other in keep)
    return [(name, call) for name, call in CALLS.items() if keeps or name != "compare_live"]


def run(call: Call, model: nn.Module, inputs: tuple[Any, ...]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(model, inputs)
        except LayerbenchError as error:
            return str(error)
    return ""


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    places = before.keys() | after.keys()
    found = {place: (before.get(place, "absent"), after.get(place, "absent")) for place in places}
    return {place: (one, other) for place, (one, other) in found.items() if one != other}


def check_next_steps(case: Case, model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A forward and a backward go as those of a twin that was never measured.

    So they do while the layers are timed in the user's own loop, or its steps are profiled, and
    afterwards.
    """
    torch.manual_seed(0)
    twin, its_inputs = case.build()
    with layerbench.time_layers(model):
        timed = outcome(model, inputs)
    assert timed == outcome(twin, its_inputs)
    assert outcome(model, inputs) == outcome(twin, its_inputs)
    learning = [one for one in parameters(model) if one.requires_grad and not is_lazy(one)]
    if not learning or not model.training:
        return
    optimizer = torch.optim.SGD(learning, lr=0.0)
    with layerbench.profile_steps(model, optimizer, skip=0, steps=2) as steps:
        for _ in range(3):  # looked at, with marks alone, with its layers timed
            assert outcome(model, inputs) == outcome(twin, its_inputs)
            optimizer.step()
            steps.step()
    assert outcome(model, inputs) == outcome(twin, its_inputs)


def outcome(model: nn.Module, inputs: tuple[Any, ...]) -> list[Any]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    try:
        output = list(tensors_in(model(*inputs)))
        trained = [one for one in output if one.requires_grad]
        if trained:
            sum(one.float().square().sum() for one in trained).backward()
    except Exception as error:
        return [repr(error)]
    gradients = [parameter.grad for parameter in parameters(model)]
    return [None if one is None else one.detach().tolist() for one in (*output, *gradients)]


FAMILIES = [
    ("mobilenet_v3_small", "1x3x32x32"),
    ("quantized_mobilenet_v2", "1x3x64x64"),
    ("timm:vit_tiny_patch16_224", "1x3x224x224"),
    ("tests.models:small_with_input", None),
]


@pytest.mark.parametrize(("spec", "given"), FAMILIES)
def test_a_model_of_each_family_is_left_as_it_was(spec: str, given: str | None) -> None:
    built = zoo.build(zoo.resolve(spec, given))
    model, inputs = built.module, built.args
    before = fingerprint(model, inputs)
    layerbench.structure(model, inputs)
    layerbench.profile(model, inputs, warmup=0, iterations=1, function_iterations=0)
    assert differences(before, fingerprint(model, inputs)) == {}
