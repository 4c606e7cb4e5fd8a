"""A profile where the profiler sees no kernels: layers are timed by events."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.instruments import queue_block
from layerbench.profilers import choice_of_rounds
from layerbench.profilers.event_samples import NO_FUNCTIONS, SHORT_PIECES
from tests.models import Small
from tests.profilers.test_device_rounds_simulated import nanoseconds, rows_of
from tests.simulated import Simulator
from tests.simulated.process import on_sim


@on_sim
def test_a_profile_without_kernels(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_of_rounds, "sees_kernels", lambda _device: False)
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(
        kernel_ns=300,
        launch_ns=5_000,
        event_host_ns=700,
        event_queue_ns=900,
        named_ns={"aten::convolution": 9_000, "aten::add": 4_600},
    )
    inputs = torch.rand(2, 3, 8, 8).to("sim:0")
    record = layerbench.profile(
        Small().to("sim:0"), inputs, device="sim:0", warmup=0, iterations=6, ceilings=False
    )
    rows = rows_of(record)
    assert nanoseconds(rows["blocks.0.conv"]) == (9_000, 9_000)
    assert nanoseconds(rows["blocks.0.relu"]) == (300, 300)
    assert nanoseconds(rows["blocks.0"]) == (4_600, 2 * 9_000 + 300 + 4_600)
    assert rows["blocks.0"].host_inclusive
    rounds = record.device_rounds
    assert rounds is not None
    assert (rounds.how, rounds.idle) == ("events", None)
    assert rounds.resolution_s == pytest.approx(4.5e-6)
    assert record.reconciliation is not None
    assert record.reconciliation.self_sum_ratio == 1
    assert record.absent["functions"] == NO_FUNCTIONS
    assert record.kernels == ()
    # 22.9 µs in four pieces are long enough.
    assert not any(SHORT_PIECES in note for note in record.notes)
    text = " ".join(reporters.render("txt", record).split())
    assert "below the clock's resolution" in text
    assert "events in the queue" in text


@on_sim
def test_rows_that_add_up_short_pieces_say_so(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice_of_rounds, "sees_kernels", lambda _device: False)
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    sim.rules(kernel_ns=3_000, event_queue_ns=1_000)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).to("sim:0")
    inputs = torch.rand(2, 4).to("sim:0")
    record = layerbench.profile(model, inputs, warmup=0, iterations=5, ceilings=False)
    assert f"{SHORT_PIECES}: the model itself" in record.notes
    assert not any(row.note for row in record.layers)
