"""What the benchmark of perturbation counts as an untouched forward's time."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from benchmarks.gpu.perturbation import _processor_times


def test_forwards_that_are_not_kept_have_no_place_in_the_processor_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    lengths = iter([9.0, 8.0, 2.0, 3.0])

    def call() -> None:
        clock[0] += next(lengths)

    rounds = SimpleNamespace(call=call)
    before = iter([2, 0])

    def run_untouched() -> None:
        for _ in range(next(before)):
            rounds.call()
        rounds.call()

    rounds.run_untouched = run_untouched
    spent = _processor_times(rounds)
    rounds.run_untouched()
    rounds.run_untouched()
    assert spent == [2.0, 3.0]
    assert rounds.call is call
