"""Memory of nested tensors: besides their numbers, what says how long their rows are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import record_function

import layerbench
from layerbench.errors import ModelRunError
from layerbench.instruments.memory_attribution import peak_bytes
from layerbench.profilers.memory.traced_run import trace_run
from layerbench.zoo import Built
from tests.models import Calls
from tests.profilers.memory.test_training_peak import Model, seen_by_profiler, two_steps

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

FLOAT, WIDE = 4, 400
LENGTHS = 8 * (4 + 4 + 2)
"""Bytes of sizes, strides and offsets of two matrices."""


def nested(layout: torch.layout = torch.strided) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.rand(6, 16), torch.rand(4, 16)], layout=layout)


def _taken() -> Model:
    return Calls(
        lambda m, x: m.b(m.a(x)).values(), a=nn.Linear(16, 8), b=nn.Linear(8, 32)
    ), nested()


def _made() -> Model:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nested.as_nested_tensor(list(m.a(x).unbind()), layout=torch.strided)
        return m.b(rows.relu()).values()

    return Calls(run, a=nn.Linear(16, 8), b=nn.Linear(8, WIDE)), torch.rand(2, 5, 16)


def _attention() -> Model:
    """On the CPU it makes strided nested tensors of the jagged ones."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        heads = (of(x).unflatten(-1, [2, 8]).transpose(1, 2) for of in (m.q, m.k, m.v))
        with sdpa_kernel(SDPBackend.MATH):
            mixed = functional.scaled_dot_product_attention(*heads)
        return m.b(mixed.transpose(1, 2).flatten(-2)).values()

    layers = {name: nn.Linear(16, 16) for name in "qkv"}
    return Calls(run, **layers, b=nn.Linear(16, WIDE)), nested(torch.jagged)


def _one_forward(build: Callable[[], Model]) -> None:
    model, x = build()
    with torch.no_grad(), record_function("step"):
        model.eval()(x)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("build", [_taken, _made, _attention])
def test_the_peak_is_that_of_the_profiler(build: Callable[[], Model], training: bool):
    """At the peak no kernel is within its own memory: the last layer's output is the largest."""
    true = seen_by_profiler(build, two_steps if training else _one_forward)
    model, x = build()
    optimizer = "sgd" if training else None
    trace = trace_run(Built(model.train(training), (x,)), optimizer=optimizer, device="cpu").trace
    assert peak_bytes(trace, [allocation.bytes for allocation in trace.allocations]) == true


def test_lengths_count_with_their_tensor_and_belong_to_the_layer_that_made_it():
    model, x = _taken()
    report = layerbench.memory(model, x)
    weights = 16 * 8 + 8 + 8 * 32 + 32
    assert report.inputs.bytes == FLOAT * 10 * 16 + LENGTHS
    # The input, and what the layers give.
    assert report.peak.bytes == FLOAT * (weights + 10 * (16 + 8 + 32)) + 3 * LENGTHS
    assert [row.allocated for row in report.rows][1:] == [
        FLOAT * 10 * 8 + LENGTHS,
        FLOAT * 10 * 32 + LENGTHS,
    ]


@pytest.mark.parametrize(
    ("layout", "lengths", "blocks"),
    # The sum of two strided ones has the offsets of the first, the jagged one all offsets.
    [(torch.strided, 2 * LENGTHS - 8 * 2, 2 * 1024), (torch.jagged, 8 * 3, 2 * 1024 + 512)],
)
def test_lengths_that_tensors_share_count_once(layout: torch.layout, lengths: int, blocks: int):
    x = nested(layout)
    inputs = layerbench.memory(Calls(lambda m, x, y: x.values()), (x, x * 2)).inputs
    assert (inputs.tensors, inputs.elements) == (2, 2 * 160)
    assert inputs.bytes == 2 * FLOAT * 160 + lengths
    assert inputs.block_bytes == blocks  # of a GPU, where a strided tensor's lengths do not lie


def test_a_prediction_has_no_lengths_and_no_random_state_of_the_host():
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            return x * 2

    estimate = layerbench.estimate_memory(Calls(run), nested())
    assert estimate.how == "replayed"
    assert estimate.by_category["input"] == 1024
    assert estimate.by_category["activations"] == 1024


def test_lengths_are_as_before_a_forward_that_changes_them():
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        x._nested_tensor_strides().zero_()
        x.data = torch.nested.nested_tensor([torch.rand(3, 16)])
        return x.values()

    x = nested()
    lengths = (x._nested_tensor_size, x._nested_tensor_strides, x._nested_tensor_storage_offsets)
    before = [(one().tolist(), one().data_ptr()) for one in lengths]
    values = x.values().clone()
    layerbench.memory(Calls(run), x)
    assert [(one().tolist(), one().data_ptr()) for one in lengths] == before
    assert torch.equal(x.values(), values)


def test_an_output_that_no_loss_is_made_of_is_named_by_its_padded_shape():
    model = Calls(lambda m, x: m.a(x), a=nn.Linear(16, 8))
    with pytest.raises(ModelRunError, match=r"no loss could be made of the output \[2, 6, 8\]"):
        layerbench.memory(model, nested(), training=True)
