"""Leaves alone on the simulated accelerator: kernels have their stated lengths, exactly."""

from __future__ import annotations

import pytest
import torch

import layerbench
from layerbench.analysis.isolation import beside
from layerbench.profilers import choice_of_rounds, isolation
from layerbench.records.timing import Profile
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim


def profile_alone(monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setattr("layerbench.instruments.cache_sweep._MOST_BYTES", 4096)
    monkeypatch.setattr(isolation, "HOT_CALLS", 3)
    monkeypatch.setattr(isolation, "COLD_CALLS", 2)
    model, inputs = Small().to("sim:0"), torch.rand(2, 3, 8, 8).to("sim:0")
    return layerbench.profile(model, inputs, warmup=0, iterations=2, ceilings=False, isolate=True)


@pytest.mark.parametrize("by", ["kernels", "events"])
@on_sim
def test_leaves_alone_have_the_stated_lengths_of_their_kernels(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The sweep's kernel, far longer, is in no time."""
    if by == "events":
        monkeypatch.setattr(choice_of_rounds, "sees_kernels", lambda _: False)
        monkeypatch.setattr(choice_of_rounds, "why_unseen", lambda _: "not here")
    sim.rules(
        kernel_ns=0,
        launch_ns=20_000,
        named_ns={
            "aten::convolution": 50_003,
            "aten::relu_": 10_001,
            "aten::add": 1_009,
            "aten::fill_.Scalar": 900_000,
        },
    )
    record = profile_alone(monkeypatch)
    assert record.isolation
    assert record.isolation.failed == {}
    assert record.isolation.cache_bytes is None
    times = {
        leaf.row.path: tuple(
            round(time.median * 1e9) for time in (leaf.in_context, leaf.hot, leaf.cold)
        )
        for leaf in beside(record)
    }
    for path in ("stem", "blocks.0.conv", "blocks.1.project"):
        assert times[path] == (50_003, 50_003, 50_003)
    assert times["blocks.0.relu"] == (10_001, 10_001, 10_001)
    assert record.device_rounds
    assert record.device_rounds.how == by
