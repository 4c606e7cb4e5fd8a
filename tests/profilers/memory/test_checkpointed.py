"""Memory of steps with checkpointed activations and micro-batches: of a run nobody looks at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

import layerbench
from layerbench.api.verification import again
from layerbench.errors import UsageError
from layerbench.instruments.fake_tensors import without_memory
from layerbench.instruments.memory_attribution import peak_bytes
from layerbench.profilers.loss import loss_of
from layerbench.profilers.memory.traced_run import trace_run
from layerbench.profilers.optimizers import make_optimizer
from layerbench.records.workload import StepOptions
from layerbench.zoo import Built
from tests.profilers.memory.test_training_peak import seen_by_profiler

ROWS, WIDTH = 512, 64


class Block(nn.Module):
    """Its hidden layer is four times as wide as what goes in and comes out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)
        self.how = how

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.narrow(nn.functional.gelu(self.wide(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "plain":
            return self.run(x)
        return checkpoint(self.run, x, use_reentrant=self.how == "reentrant")


def build(how: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH), Block(how), Block(how), nn.Linear(WIDTH, 4)]
    return nn.Sequential(*layers), torch.rand(ROWS, WIDTH)


def steps_of(micro_batches: int) -> Callable[..., None]:
    def run(make: Callable[[], tuple[nn.Module, torch.Tensor]]) -> None:
        model, x = make()
        optimizer = make_optimizer("sgd", list(model.train().parameters()))
        output = loss = None
        for _ in range(2):
            with record_function("step"):
                pass
            optimizer.zero_grad(set_to_none=True)
            for _ in range(micro_batches):
                output = model(x)
                loss = loss_of(output, micro_batches)
                loss.backward()
            optimizer.step()

    return run


def traced(how: str, step: StepOptions, fake: bool) -> int:
    model, x = build(how)
    built = Built(model.train(), (x,))
    with without_memory(built, "cpu") if fake else nullcontext(built) as run:
        trace = trace_run(run, optimizer="sgd", device="cpu", step=step).trace
    return peak_bytes(trace, [allocation.bytes for allocation in trace.allocations])


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("how", ["non-reentrant", "reentrant"])
def test_the_peak_is_that_of_a_run_that_nobody_looks_at(how: str, micro_batches: int) -> None:
    true = seen_by_profiler(lambda: build(how), steps_of(micro_batches))
    step = StepOptions(gradient_accumulation=micro_batches)
    assert traced(how, step, fake=False) == true
    assert traced(how, step, fake=True) == true
    if how == "reentrant":
        return
    # The option does what the model's own checkpoints do.
    step = StepOptions(checkpoint_activations=(), gradient_accumulation=micro_batches)
    assert traced("plain", step, fake=False) == true
    assert traced("plain", step, fake=True) == true


def test_what_is_saved_is_that_of_the_checkpointed_run_and_the_rest_comes_back_in_the_backward():
    model, x = build("plain")
    before = [dict(module.__dict__) for module in model.modules()]
    plain = layerbench.memory(model, x, training=True)
    found = layerbench.memory(model, x, training=True, checkpoint_activations=["1", "2"])
    assert [dict(module.__dict__) for module in model.modules()] == before
    kept = [{row.path: row.kept for row in report.rows} for report in (plain, found)]
    hidden = 4 * ROWS * WIDTH * 4
    assert kept[0]["1"] > 2 * hidden  # into the activation, and out of it
    # The output, the state of random numbers, and nothing else.
    assert kept[1]["1"] == ROWS * WIDTH * 4 + torch.get_rng_state().nbytes
    assert kept[1]["1.wide"] == 0
    again = [point for point in found.timeline if point.phase == "recomputation"]
    assert {found.rows[point.owner].path for point in again} == {
        *("1", "1.wide", "1.narrow", "1.drop", "2", "2.wide", "2.narrow", "2.drop")
    }
    assert not any(point.phase == "recomputation" for point in plain.timeline)
    assert found.peak.phase in ("backward", "recomputation")
    assert found.peak.bytes < plain.peak.bytes
    assert found.workload.checkpoint_activations == ("1", "2")
    assert (
        found.resident_bytes
        + found.outside_bytes
        + sum(row.self_at_peak or 0 for row in found.rows)
        == found.peak.bytes
    )


def test_a_prediction_says_what_the_run_takes():
    options = {"checkpoint_activations": (), "gradient_accumulation": 2, "training": True}
    measured = layerbench.memory("resnet18", "2x3x32x32", **options)
    made = again(measured)
    assert (made.peak, made.rows, made.timeline) == (
        measured.peak,
        measured.rows,
        measured.timeline,
    )
    plain, fewer = (
        layerbench.estimate_memory(*build("plain"), training=True, checkpoint_activations=paths)
        for paths in (None, ())
    )
    hidden = 4 * ROWS * WIDTH * 4
    assert plain.peak_bytes - fewer.peak_bytes > hidden


def test_it_belongs_to_training():
    model, x = build("plain")
    with pytest.raises(UsageError, match="belong to a training step"):
        layerbench.memory(model, x, checkpoint_activations=())
    with pytest.raises(UsageError, match=r"no module '1.wid'; did you mean 1.wide"):
        layerbench.memory(model, x, training=True, checkpoint_activations=["1.wid"])
