"""What cannot be trained says where and why; what cannot be copied is trained all the same."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench.errors import ModelRunError
from layerbench.profilers.memory.traced_run import explain_step
from tests.faulty import training

FILE = Path(training.__file__)


def memory(model, given, optimizer):
    layerbench.memory(model, given, training=True, optimizer=optimizer)


def estimate(model, given, optimizer):
    layerbench.estimate_memory(model, given, training=True, optimizer=optimizer)


def profile(model, given, optimizer):
    layerbench.profile_training(model, given, optimizer=optimizer, warmup=1, iterations=2)


@pytest.mark.parametrize("call", [memory, estimate, profile])
@pytest.mark.parametrize("name", training.BREAKS)
def test_a_step_that_fails_says_in_which_part_of_which_module(name, call):
    optimizer, says = training.BREAKS[name]
    with pytest.raises(ModelRunError, match=says) as raised:
        call(f"{FILE}:{name}", None, optimizer)
    assert "\n" not in str(raised.value)
    model, x = getattr(training, name)()
    with pytest.raises(ModelRunError, match=says):
        call(model, (x,), optimizer)


def test_a_step_that_fails_but_once_does_not_blame_the_optimizer():
    model, x = nn.Linear(4, 4), torch.rand(2, 4)
    said = explain_step(model, (x,), {}, RuntimeError("no more of it"))
    assert said == "a step failed, and did not when it was made once more: no more of it"


def test_sparse_gradients_are_trained_with_sgd():
    model, x = training.sparse()
    assert layerbench.memory(model, (x,), training=True).peak.bytes > 0
    profiled = layerbench.profile_training(model, (x,), warmup=1, iterations=2)
    assert profiled.rows
    assert layerbench.estimate_memory(model, (x,), training=True).peak_bytes > 0


@pytest.mark.parametrize("case", training.CASES, ids=lambda case: case.name)
def test_what_cannot_be_copied_is_trained(case):
    model, given = case.build()
    before = copy.deepcopy(model.state_dict())
    assert layerbench.memory(model, given, training=True).peak.bytes > 0
    profiled = layerbench.profile_training(model, given, warmup=1, iterations=2)
    assert profiled.parameters == case.parameters
    assert profiled.memory is not None
    assert layerbench.estimate_memory(model, given, training=True).peak_bytes > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class _Yields(torch.nn.Linear):
    def forward(self, x):
        yield super().forward(x)


class _Maps(torch.nn.Linear):
    def forward(self, x):
        return {"stages": map(super().forward, [x])}


@pytest.mark.parametrize(("kind", "name"), [(_Yields, "generator"), (_Maps, "map")])
def test_an_output_that_is_not_computed_yet_is_told(kind, name):
    model, x = kind(4, 4), torch.rand(2, 4)
    for call in (memory, estimate, profile):
        with pytest.raises(ModelRunError, match=f"returned a {name}, .* return a list"):
            call(model, x, "sgd")
    profiled = layerbench.profile(model, x, warmup=0, iterations=1, function_iterations=0)
    for report in (layerbench.structure(model, x), layerbench.memory(model, x), profiled):
        assert any(f"returned a {name}: what it computes later" in note for note in report.notes)


def test_an_iterator_over_what_is_there_needs_no_note():
    class Model(torch.nn.Linear):
        def forward(self, x):
            return iter([super().forward(x)])

    found = layerbench.structure(Model(4, 4), torch.rand(2, 4))
    assert (found.flops, found.notes) == (64, ())


@torch.inference_mode()
def test_a_callers_inference_mode_is_no_matter_of_a_model_by_name():
    spec = f"{FILE}:sparse"
    assert layerbench.memory(spec, training=True).peak.bytes > 0
    assert layerbench.profile_training(spec, warmup=1, iterations=2).rows
    assert layerbench.estimate_memory(spec, training=True).peak_bytes > 0
