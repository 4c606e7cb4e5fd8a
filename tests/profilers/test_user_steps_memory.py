"""What the tensors of a step of a user's own loop hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
)
from torch.utils.checkpoint import checkpoint

import layerbench
from layerbench.instruments.compiled import COMPILED
from layerbench.profilers.user_steps import profile_steps
from layerbench.records.training_step import TrainingProfile


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks half a second long who else is busy."""
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)


def small() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), inner, nn.Linear(16, 4))


def ran(model: nn.Module, **options: Any) -> TrainingProfile:
    optimizer = torch.optim.AdamW(model.parameters())
    x, y = torch.ones(4, 8), torch.arange(4)
    with profile_steps(model, optimizer, steps=2, **{"skip": 1, **options}) as steps:
        for _ in range(4):
            optimizer.zero_grad()
            output = model(x)
            loss = nn.functional.cross_entropy(output, y)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model(torch.ones(400, 8))  # is no part of the step
            steps.step()
    return steps.record


def test_memory_is_that_of_the_same_step_in_a_training_profile() -> None:
    """But for what lay there before the forward: the output and the loss of the step before."""
    model = small()
    found = ran(model)
    given = torch.ones(4, 8)
    other = layerbench.profile_training(model, given, optimizer="adamw", warmup=0, iterations=1)
    assert found.memory is not None
    assert other.memory is not None
    assert [row.kept for row in found.rows] == [row.kept for row in other.rows]
    assert found.memory.resident == other.memory.resident
    assert found.memory.peak == other.memory.peak
    assert found.memory.live["backward"] == other.memory.live["backward"]
    assert other.memory.live["forward"] - found.memory.live["forward"] == 4 * 4 * 4 + 4
    for one, its in zip(found.rows, other.rows, strict=True):
        assert its.live["backward"] == one.live["backward"]


def test_memory_of_micro_batches_and_recomputation() -> None:
    model = small()
    inner, layers = model[2], list(model[2])
    inner.forward = lambda x: checkpoint(lambda y: layers[1](layers[0](y)), x, use_reentrant=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with profile_steps(model, optimizer, skip=0, steps=2) as steps:
        for number in range(8):
            model(torch.ones(4, 8)).sum().backward()
            if number % 2:
                optimizer.step()
                steps.step()
    record = steps.record
    assert record.memory is not None
    assert record.memory.live["recomputation"] > 0
    row = next(row for row in record.rows if row.path == "2.0")
    assert row.live["recomputation"] > 0
    assert row.calls == 1


class Counting(TorchDispatchMode):
    """A mode of the loop's own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        return func(*args, **kwargs or {})


def test_modes_of_the_loops_own_may_come_and_go_anywhere() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    seen = []
    with profile_steps(model, optimizer, skip=0, steps=2) as steps:
        for _ in range(3):
            with Counting() as forward:
                output = model(torch.ones(4, 8))
            with Counting() as backward:
                output.sum().backward()
            optimizer.step()
            steps.step()
            assert _get_current_dispatch_mode_stack() == []
            seen.append((forward.seen, backward.seen))
    assert len(set(seen)) == 1
    assert min(seen[0]) > 0
    assert steps.record.memory is not None


def test_memory_is_absent_with_a_reason() -> None:
    assert ran(small(), memory=False).absent["memory"] == "not asked for"
    model = small()
    model[0] = torch.compile(model[0], backend="eager")
    record = ran(model)
    assert record.memory is None
    assert record.absent["memory"] == COMPILED
