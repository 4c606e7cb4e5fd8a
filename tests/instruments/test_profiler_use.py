"""PyTorch's profiler is left to whoever uses it, and its library prints nothing because of ours."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile, schedule

import layerbench
from layerbench.environment import devices
from layerbench.instruments.kernel_timer import NOT_BUILT_IN, profiled, why_unseen
from layerbench.instruments.profiler_use import RUNS, WARMS_UP, library_silent, other_profiler
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim
from tests.support.prepared import forks

SCHEDULE = schedule(wait=1, warmup=1, active=1, repeat=1)


def somebody_elses() -> profile:
    """A profiler with a schedule, which waits."""
    return profile(activities=[ProfilerActivity.CPU], schedule=SCHEDULE)


def test_each_part_of_a_schedule_is_told() -> None:
    told = {}
    with somebody_elses() as theirs:
        for _ in range(3):
            told[theirs.current_action] = other_profiler()
            assert other_profiler(thorough=True) == other_profiler()
            theirs.step()
        assert other_profiler() == other_profiler(thorough=True) == ""
    assert told == {
        ProfilerAction.NONE: "",
        ProfilerAction.WARMUP: WARMS_UP,
        ProfilerAction.RECORD_AND_SAVE: RUNS,
    }


def test_a_profiler_of_ours_hides_no_other() -> None:
    cpu = devices.get("cpu")
    with somebody_elses() as theirs:
        profiled(lambda: None, cpu)
        theirs.step()
        assert other_profiler() == WARMS_UP


def test_a_cpu_is_no_device_of_the_profilers() -> None:
    assert why_unseen(devices.get("cpu")) == NOT_BUILT_IN


@on_sim
def test_a_profile_within_the_warm_up_of_a_schedule_takes_no_trace_away(sim: Simulator) -> None:
    sim.rules(kernel_ns=300)
    inputs, model = torch.rand(2, 3, 8, 8).to("sim:0"), Small().to("sim:0")
    with somebody_elses() as theirs:
        theirs.step()
        record = layerbench.profile(model, inputs, warmup=0, iterations=2, ceilings=False)
        theirs.step()
        torch.ones(3).exp()
        theirs.step()
    assert "aten::exp" in {event.name for event in theirs.events()}
    assert record.absent["kernels"] == WARMS_UP
    assert record.device_rounds is not None
    assert record.device_rounds.how == "events"


@on_sim
def test_a_loop_within_a_schedule_takes_no_trace_away(sim: Simulator) -> None:
    sim.rules(kernel_ns=300)
    inputs, model = torch.rand(2, 3, 8, 8).to("sim:0"), Small().to("sim:0")
    with layerbench.time_layers(model) as layers:
        for _ in range(3):
            model(inputs)
        with somebody_elses() as theirs:
            theirs.step()
            for _ in range(3):
                model(inputs)  # the kernels of one of these would be looked at
            theirs.step()
            torch.ones(3).exp()
            theirs.step()
    assert "aten::exp" in {event.name for event in theirs.events()}
    assert layers.absent["kernels of some forwards"] == WARMS_UP
    assert layers.record.kernels


def _used_in_turn(first: str, out: str) -> None:
    """In a process of its own: what two profilers print, ours and somebody else's."""
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 2)

    def ours() -> None:
        os.write(2, b"<ours>")
        with library_silent():
            profiled(lambda: torch.ones(2), devices.get("cpu"))
        os.write(2, b"</ours>")

    def theirs() -> None:
        with profile(activities=[ProfilerActivity.CPU]):
            torch.ones(2)

    for run in (ours, theirs, ours, theirs) if first == "ours" else (theirs, ours, theirs):
        run()


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_library_prints_nothing_for_ours_and_as_ever_for_others(
    first: str, tmp_path: Path
) -> None:
    out = tmp_path / "stderr"
    process = forks().Process(target=_used_in_turn, args=(first, str(out)), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    printed = out.read_text()
    assert printed.count("<ours></ours>") == printed.count("<ours>") > 0
    for_others = re.split("<ours></ours>", printed)
    # An older library has none of these lines.
    assert len({_stages(text) for text in for_others if text}) <= 1


def _stages(printed: str) -> tuple[str, ...]:
    """The lines of the library, without their times; what it says once is left out."""
    return tuple(re.findall(r"^(?:STAGE|USDT).*\] (.*)", printed, re.MULTILINE))
