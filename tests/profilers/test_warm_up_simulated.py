"""What measures on an accelerator warms it up, and says what that took."""

from __future__ import annotations

from typing import Any

import pytest

import layerbench
from layerbench.instruments import warm_up
from layerbench.profilers import sweep, training_step
from tests.simulated import Simulator
from tests.simulated.process import on_sim

READER = "tests/models.py:digit_reader"
ON_SIM: dict[str, Any] = {"device": "sim", "threads": 1}


@on_sim
@pytest.mark.parametrize("verb", ["train-profile", "sweep"])
def test_the_record_says_what_a_warm_up_took(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    # Steady after three rounds, which is more than are asked for.
    monkeypatch.setattr(warm_up, "LEAST_S", 0.0)
    monkeypatch.setattr(warm_up, "LONGEST_S", 10.0)
    monkeypatch.setattr(warm_up, "WINDOW_S", 0.0)
    monkeypatch.setattr(warm_up, "FEWEST", 2)
    # What else they do takes seconds the first time.
    monkeypatch.setattr(sweep, "flops_of", lambda *_: None)
    monkeypatch.setattr(training_step, "_with_memory", lambda record, *_: record)
    sim.rules(kernel_ns=10_000)
    if verb == "sweep":
        points = layerbench.sweep([READER], batches=(1,), sizes=(8,), seconds=0.01, **ON_SIM).points
        taken = [point.warm_up for point in points]
    else:
        record = layerbench.profile_training(READER, "1x3x8x8", warmup=1, iterations=2, **ON_SIM)
        taken = [record.environment.warm_up]
        assert record.environment.conditions is None
    assert [(one.rounds, one.steady) for one in taken if one] == [(4, True)]
