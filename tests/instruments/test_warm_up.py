from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from layerbench.instruments.warm_up import FEWEST, LEAST_S, LONGEST_S, WarmingUp
from layerbench.training.estimate import Trial

CPU: Any = SimpleNamespace(kind="cpu")
GPU: Any = SimpleNamespace(kind="cuda")


def warmed(device: Any, rounds: int, duration, longest: int = 100_000) -> WarmingUp:
    """Rounds whose length depends on when they begin, in seconds, until no more is needed."""
    now = [50.0]
    warming = WarmingUp(device, rounds, now=lambda: now[0])
    while not warming.is_over and warming.done < longest:
        taken = duration(now[0] - 50.0)
        now[0] += taken
        warming.add(taken)
    return warming


def ramp(seconds: float) -> float:
    """3 ms, and five times as much at first, as the clock rises."""
    return 0.003 * (1 + 4 * math.exp(-seconds / 0.3))


def test_a_cpu_is_warmed_up_by_count() -> None:
    for rounds in (0, 1, 25):
        warming = warmed(CPU, rounds, ramp)
        assert (warming.done, warming.total, warming.taken) == (rounds, rounds, None)


def test_an_accelerator_until_its_clock_is_up() -> None:
    warming = warmed(GPU, 25, ramp)
    taken = warming.taken
    assert taken is not None
    assert taken.steady
    assert LEAST_S <= taken.seconds < 3
    assert ramp(taken.seconds) < 0.003 * 1.03  # 25 rounds would have ended at 2.6 times as much
    assert taken.rounds == warming.done > 100


def test_steady_times_take_a_second() -> None:
    taken = warmed(GPU, 25, lambda _: 0.003).taken
    assert taken is not None
    assert taken.seconds == pytest.approx(LEAST_S, abs=0.004)
    assert taken.steady


def test_times_that_never_agree_end_at_the_longest() -> None:
    taken = warmed(GPU, 25, lambda seconds: 0.003 * 1.2**seconds).taken
    assert taken is not None
    assert taken.seconds == pytest.approx(LONGEST_S, rel=0.01)
    assert not taken.steady


def test_of_long_rounds_there_are_two_windows_or_the_longest() -> None:
    assert warmed(GPU, 3, lambda _: 0.5).done == 2 * FEWEST
    taken = warmed(GPU, 3, lambda _: 4.0).taken
    assert taken is not None
    assert (taken.rounds, taken.seconds, taken.steady) == (3, 12.0, False)


def test_as_many_rounds_as_are_asked_for_and_none_for_none() -> None:
    assert warmed(GPU, 5000, lambda _: 0.003).done == 5000
    none = warmed(GPU, 0, ramp)
    assert (none.done, none.total, none.taken) == (0, 0, None)


def test_the_total_grows_with_what_is_needed() -> None:
    warming = warmed(GPU, 25, ramp, longest=100)
    assert warming.total == 101


def test_steps_of_a_training_that_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("layerbench.training.estimate.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(
        "layerbench.training.estimate.WarmingUp",
        lambda device, rounds: WarmingUp(device, rounds, now=lambda: now[0]),
    )
    for device, steps in ((None, 5), (GPU, 20)):
        trial = Trial(5, 10, 0.0, device)
        while not trial.is_warm:
            now[0] += 0.05
            trial.add([(0, 0, 50_000_000, 0, 0, 0)])
        assert len(trial.steps) == steps
        assert not trial.enough
        while not trial.add([(0, 0, 50_000_000, 0, 0, 0)]):
            pass
        assert trial.measured([]).warmup == steps
        assert len(trial.steps) == steps + 10
