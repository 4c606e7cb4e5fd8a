"""DistributedDataParallel's buckets: as PyTorch makes them, and what they add to a training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import layerbench
from layerbench.api.inputs import what_runs
from layerbench.errors import UsageError
from layerbench.instruments.memory_attribution import events
from layerbench.profilers.memory.ddp import BUCKET, FIRST_BUCKET, packed
from layerbench.profilers.memory.run_for_gpu import run_for_gpu
from layerbench.profilers.memory.traced import held_in
from layerbench.records.memory import MemoryEstimate
from layerbench.store import paths
from layerbench.zoo import resolve

MIB = 2**20


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process that exchanges gradients with itself."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _large(frozen: bool, halves: bool) -> nn.Module:
    """Parameters of 1 KiB to 32 MiB, some of which may be frozen or in another format."""
    model = nn.Sequential(*(nn.Linear(side, 512) for side in (512, 512, 16_384)), nn.Linear(512, 9))
    if frozen:
        model[1].requires_grad_(False)
    return model.append(nn.Linear(9, 700)).to(torch.float64 if halves else torch.float32)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("halves", [False, True])
def test_buckets_are_those_of_pytorch(process_group: None, frozen: bool, halves: bool) -> None:
    model = _large(frozen, halves)
    if halves:
        model[4].to(torch.float32)
    trained = [one for one in model.parameters() if one.requires_grad]
    shared = DistributedDataParallel(_Sum(model))
    for _ in range(3):
        shared(torch.zeros(1)).backward()
    made = shared._get_ddp_logging_data()
    sizes = sorted(map(int, str(made["rebuilt_bucket_sizes"]).split(",")))
    assert sorted(packed(held_in(trained[::-1]), (FIRST_BUCKET, BUCKET))) == sizes
    assert sum(sizes) == int(str(made["bucket_sizes"]).split(",")[0]) or halves


class _Sum(nn.Module):
    """Uses all parameters, the last ones last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for one in self.model.parameters():
            x = x + one.sum().to(x.dtype)
        return x.sum()


def test_all_gradients_are_there_twice() -> None:
    plain = _estimate(ddp=False)
    shared = _estimate(ddp=True)
    gradients = 4 * sum(row.parameters for row in plain.rows if row.depth == 0)
    assert gradients == 46_758_048
    # Large blocks are whole.
    assert shared.peak_bytes == pytest.approx(plain.peak_bytes + gradients, abs=2 * MIB)
    assert "a second time" in " ".join(shared.notes)
    assert paths.place(shared, ".").name == "resnet18_2x3x64x64_train_ddp_t4_sgd"
    assert MemoryEstimate.model_validate_json(shared.model_dump_json()) == shared


def _estimate(*, ddp: bool) -> MemoryEstimate:
    return layerbench.estimate_memory(
        "resnet18", "2x3x64x64", training=True, ddp=ddp, device="t4", largest_batch=False
    )


def test_frozen_parameters_and_buffers_get_no_bucket() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    workload, subject = what_runs(
        model, torch.empty(4, 3), batch=None, channels_last=False, mode="train", seed=0
    )
    traced = run_for_gpu(workload, optimizer="sgd", subject=subject).traced
    assert [one.bytes for one in traced.trained] == [20, 20, 40, 8]
    # Weight and bias, then the two statistics and the counter.
    assert [one.bytes for one in traced.not_trained] == [60, 20, 20, 20, 8]


def test_nothing_else_changes_its_order() -> None:
    """Buckets come between what was there; every storage lives as long as it did."""
    workload = resolve("resnet18", "2x3x64x64", mode="train")
    plain = run_for_gpu(workload, optimizer="sgd").traced.trace
    work = workload.model_copy(update={"ddp": True})
    shared = run_for_gpu(work, optimizer="sgd").traced.trace
    lives = [
        [(one.owner, one.operator, one.bytes, birth) for one, _, birth in events(trace)]
        for trace in (plain, shared)
    ]
    assert [one for one in lives[1] if one[1] != "DistributedDataParallel"] == lives[0]
    births = [one.born for one in shared.allocations]
    assert births == sorted(births)
    buckets = [one for one in shared.allocations if one.operator == "DistributedDataParallel"]
    assert [one.category for one in buckets if one.died is None] == ["gradients"] * 3
    assert shared.marks["iteration"] < min(one.born for one in buckets if one.died is None)


def test_it_belongs_to_a_training() -> None:
    with pytest.raises(UsageError, match="training=True"):
        layerbench.estimate_memory("resnet18", "2x3x64x64", ddp=True)


def test_cards_hold_smaller_batches_and_say_what_is_not_in_the_time() -> None:
    plain, shared = (
        layerbench.estimate_devices(
            "resnet18", "3x64x64", devices=["t4"], training=True, ddp=ddp, spare_memory=0.9
        )
        for ddp in (False, True)
    )
    assert plain.rows[0].largest_batch is not None
    assert shared.rows[0].largest_batch is not None
    assert 0 < shared.rows[0].largest_batch < plain.rows[0].largest_batch
    assert any("exchanging gradients" in note for note in shared.notes)
