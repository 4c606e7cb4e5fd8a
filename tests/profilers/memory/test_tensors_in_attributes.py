"""Tensors in plain attributes take memory as buffers do, and stand-ins take their place, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment import devices
from layerbench.instruments.fake_tensors import without_memory
from layerbench.instruments.tensors_held import IN_ATTRIBUTE, tensors_in_attributes
from layerbench.profilers.memory.measured import profile_memory_on_fakes
from layerbench.zoo import Built

SIDE = 64
TABLE = SIDE * SIDE * 4


class Cached(nn.Module):
    """A layer, a table beside it, tables in containers, a view of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(SIDE, SIDE)
        self.table = torch.ones(SIDE, SIDE)
        self.more: Any = [torch.ones(SIDE, SIDE), {"a": torch.ones(SIDE, SIDE), "step": 3}]
        self.first = self.table[:1]
        self.sizes = torch.tensor([1, 2])
        self.names = ["table", None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.table[: len(x)] + self.more[1]["a"][: len(x)]


def test_they_are_there_before_the_run_each_storage_once() -> None:
    model, x = Cached(), torch.rand(2, SIDE)
    report = layerbench.memory(model, x)
    assert report.peak.by_category["buffers"] == 3 * TABLE
    noted = {row.name: row.bytes for row in report.tensors if row.note == IN_ATTRIBUTE}
    assert noted == {"table": TABLE, "more[0]": TABLE, "more[1]": TABLE, "first": 4 * SIDE}
    assert report.buffers.bytes == 3 * TABLE
    assert report.resident_bytes == report.total.bytes
    # Nothing of it is an activation: two sums and the layer's output, of which two are alive.
    assert report.peak.by_category["activations"] == 2 * 2 * SIDE * 4


def test_the_peak_is_what_the_profiler_sees_and_what_was_there() -> None:
    model, x = Cached().eval(), torch.rand(2, SIDE)
    report = layerbench.memory(model, x)
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in model.parameters()}
    held |= {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes()
        for _, t in tensors_in_attributes(model)
    }
    assert report.resident_bytes == sum(held.values()) + x.untyped_storage().nbytes()


@pytest.mark.parametrize("training", [False, True])
def test_stand_ins_take_as_much(training: bool) -> None:
    model, x = Cached(), torch.rand(2, SIDE)
    measured = layerbench.memory(model, x, training=training)
    predicted = layerbench.estimate_memory(model, x, training=training)
    assert predicted.how == "fake"
    for category in ("parameters", "buffers", "gradients"):
        ours, theirs = (
            r.get(category, 0) for r in (predicted.by_category, measured.peak.by_category)
        )
        assert ours >= theirs
        assert ours - theirs < 2 * 512  # blocks of 512 bytes


class Slices(nn.Module):
    """Two parameters in one storage."""

    def __init__(self) -> None:
        super().__init__()
        both = torch.rand(2, SIDE)
        self.scale, self.shift = nn.Parameter(both[0]), nn.Parameter(both[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


def test_stand_ins_share_what_their_models_share() -> None:
    model = Slices()
    with without_memory(Built(model, (torch.rand(2, SIDE),), {}), "cpu"):
        storages = {tensor.untyped_storage()._cdata for tensor in model.parameters()}
    assert len(storages) == 1


def test_they_are_the_same_objects_afterwards() -> None:
    model, x = Cached(), torch.rand(2, SIDE)
    before = dict(vars(model))
    with without_memory(Built(model, (x,), {}), "meta", None) as stand_in:
        assert model.table.device.type == "meta" or type(model.table).__name__ == "FakeTensor"
        assert model.sizes is before["sizes"]
        stand_in.module(*stand_in.args)
    assert all(vars(model)[name] is value for name, value in before.items())
    assert layerbench.structure(model, x).how == "meta"


def test_a_committed_report_would_come_out_alike() -> None:
    report = layerbench.memory("tests/models.py:small", "2x3x16x16")
    again = profile_memory_on_fakes(report.workload, None, report.environment)
    assert again.peak == report.peak
    assert devices.get("cpu").describe().kind == report.environment.device.kind
