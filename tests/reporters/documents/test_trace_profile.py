"""What the first screen of a trace names: whatever has a name and takes longest."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbench import reporters
from tests.support.sample_traces import Event, cuda_trace, event, profiled

CUDA = cuda_trace()
HOST = [one for one in CUDA if one.get("pid") != 0]


def without_modules(events: list[Event]) -> list[Event]:
    return [one for one in events if one.get("cat") != "python_function"]


def in_range(length: float) -> list[Event]:
    """The steps in one range of the user's each."""
    starts = [one["ts"] for one in HOST if one["name"].startswith("ProfilerStep")]
    ranges = [event("user_annotation", "all of it", start, length) for start in starts]
    return [*ranges, *without_modules(HOST)]


BY_THEMSELVES = "Longest by themselves on the"


@pytest.mark.parametrize(
    ("events", "title"),
    [
        (CUDA, f"{BY_THEMSELVES} device: Net_0.Conv2d_0 (Conv2d), 73.4 % of all"),
        # The step has 500 µs of its own.
        (HOST, f"{BY_THEMSELVES} host, with the backward: Net_0 (Net), 16.8 % of all"),
        (without_modules(CUDA), "Longest kernels: conv_kernel, 30.2 % of all"),
        (without_modules(HOST), "Longest operators: aten::addmm, 6.0 % of all"),
        (in_range(999), f"{BY_THEMSELVES} host, with the backward: all of it (range), "),
        (in_range(100), "Longest operators: aten::addmm, 6.0 % of all"),
    ],
)
def test_what_takes_longest_is_named(tmp_path: Path, events: list[Event], title: str) -> None:
    screen = reporters.render("screen", profiled(tmp_path, events))
    assert f"\n{title}" in screen
    assert "itself)" not in screen
    assert "\nOptimizer" not in screen
