"""Stretches of time, set together and cut to steps."""

from __future__ import annotations

import numpy as np

from layerbench.analysis.trace_nesting import Steps
from layerbench.analysis.trace_profile import united, within


def test_stretches_are_set_together() -> None:
    apart = np.array([[50, 60], [0, 100], [10, 20], [100, 110], [200, 210], [205, 220]])
    assert united(apart).tolist() == [[0, 110], [200, 220]]
    assert united(np.zeros((0, 2), np.int64)).tolist() == []


def test_what_lies_in_steps() -> None:
    steps = Steps([0, 100, 300], [50, 200, 400], marked=True, thread=0)
    stretches = np.array([[10, 20], [40, 120], [190, 310], [500, 600]])
    assert within(stretches, steps) == 10 + 10 + 20 + 10 + 10
    assert within(np.zeros((0, 2), np.int64), steps) == 0


def test_a_moment_has_its_step_or_none() -> None:
    steps = Steps([0, 100], [50, 200], marked=True, thread=0)
    assert [steps.of(time) for time in (-1, 0, 49, 50, 100, 199, 200)] == [-1, 0, 0, -1, 1, 1, -1]
    assert steps.held_by(90, 210)
    assert steps.held_by(100, 200)
    assert not steps.held_by(101, 210)
    assert not steps.held_by(60, 199)
