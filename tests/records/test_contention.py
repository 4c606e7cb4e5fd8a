"""A machine that is too busy: noticed, said first, and no reason to call anything slower."""

from __future__ import annotations

import csv
import html
import io
import os
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

import layerbench
from benchmarks import virtual
from layerbench import reporters
from layerbench.analysis.aggregation import assemble
from layerbench.analysis.comparison import compare, judge
from layerbench.analysis.paired import of_rounds
from layerbench.api import comparison, training
from layerbench.environment.devices.clocks import ManualClock, PerfCounter
from layerbench.errors import UntrustedError
from layerbench.instruments.placement import brought_back, can_move, move
from layerbench.instruments.waiting import RunQueue, Switches, Unknown, wait_arrays, wait_meter
from layerbench.profilers import rounds, timing, training_step
from layerbench.records import contention, samples
from layerbench.records.comparison import Comparison
from layerbench.records.contention import Waits
from layerbench.records.environment import Machine
from layerbench.records.workload import Plan, Workload
from layerbench.reporters.html.document import bundled, of
from tests.models import Small
from tests.support.sample_comparisons import measured
from tests.support.sample_profiles import layered

BUSY = "The machine was too busy to be measured on."
INPUT = (2, 3, 16, 16)


class Waiting:
    """A meter by which a share of the forwards waited, all of their time."""

    def __init__(self, share: float = 1.0) -> None:
        self._share, self._forwards = share, count()

    def begin(self) -> None:
        pass

    def end(self) -> int:
        number = next(self._forwards)
        waited = int((number + 1) * self._share) > int(number * self._share)
        return 10**13 * waited


@pytest.fixture
def waiting(monkeypatch):
    """``waiting(share)``: from here on so many forwards wait for a core."""

    def wait(share: float = 1.0) -> None:
        for module in (rounds, training_step):
            monkeypatch.setattr(module, "wait_meter", lambda _: Waiting(share))
        for module in (timing, training_step):
            # How busy the machine of the tests is when they begin is not the question.
            monkeypatch.setattr(module, "check_environment", lambda *_: None)

    return wait


# --- the meter ------------------------------------------------------------------------------


@pytest.fixture
def threads(tmp_path):
    """``threads(main=(ran, waited), ...)``: what the kernel says of each thread."""

    def say(**tasks: tuple[int, int] | None) -> RunQueue:
        for name, figures in tasks.items():
            file = tmp_path / name / "schedstat"
            if figures is None:
                file.unlink()
                continue
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{figures[0]} {figures[1]} 7\n")
        return RunQueue(tmp_path)

    return say


def test_all_threads_waits_are_added_up(threads, monkeypatch):
    monkeypatch.setattr("time.perf_counter_ns", iter([0, 10_000]).__next__)
    meter = threads(main=(5, 100), pool=(5, 1000), ended=(5, 50))
    meter.begin()
    threads(main=(9, 1100), pool=(9, 1500), ended=None, new=(9, 300))
    assert meter.end() == 1000 + 500 + 300


@pytest.mark.parametrize(("waited", "counted"), [(499, 0), (501, 501), (90_000, 10_000)])
def test_small_waits_are_none_and_none_is_longer_than_what_passed(
    threads, monkeypatch, waited, counted
):
    monkeypatch.setattr("time.perf_counter_ns", iter([0, 10_000]).__next__)
    meter = threads(main=(5, 100))
    meter.begin()
    threads(main=(9, 100 + waited))
    assert meter.end() == counted


def test_a_kernel_that_counts_nothing_is_not_believed(tmp_path):
    place = tmp_path / str(os.getpid()) / "schedstat"
    assert not RunQueue.readable(tmp_path)
    place.parent.mkdir()
    place.write_text("0 0 0\n")
    assert not RunQueue.readable(tmp_path)
    place.write_text("12 0 1\n")
    assert RunQueue.readable(tmp_path)


def test_without_the_kernels_count_it_is_what_passed_and_nothing_ran(monkeypatch):
    monkeypatch.setattr("time.perf_counter_ns", iter([0, 1000, 0, 1000]).__next__)
    monkeypatch.setattr("time.process_time_ns", iter([0, 300, 0, 300]).__next__)
    switches = iter([4, 5, 5, 5])
    monkeypatch.setattr("layerbench.instruments.waiting._involuntary_switches", switches.__next__)
    meter = Switches()
    found = []
    for _ in range(2):
        meter.begin()
        found.append(meter.end())
    assert found == [700, 0]


def test_where_nothing_tells_there_is_no_figure():
    assert isinstance(wait_meter(ManualClock()), Unknown)
    assert not isinstance(wait_meter(PerfCounter()), Unknown)
    assert wait_arrays({"untouched": [None, None]}) == {}
    assert samples.waits_of([{samples.UNTOUCHED: np.ones(3)}]) is None


# --- what it comes to -----------------------------------------------------------------------


def test_few_waits_are_nothing_some_a_warning_and_most_the_end():
    few, some, most = (Waits(rounds=share, time=0.9) for share in (0.1, 0.5, 0.51))
    assert [contention.warning(one, 1) for one in (None, few)] == ["", ""]
    assert contention.warning(some, 1).startswith("In 50 % of the rounds the process waited")
    assert contention.too_busy(some, 1) == ""
    assert contention.warning(most, 1).startswith(BUSY)
    assert contention.missed(most) == "rounds that waited for a core 51 % > 50 %"
    assert "--threads 1" in contention.too_busy(most, 2)
    assert "--threads" not in contention.too_busy(most, 1)


def _profile(threads: int = 2, **options: object):
    return layerbench.profile(
        Small().eval(), torch.zeros(INPUT), iterations=4, warmup=0, threads=threads, **options
    )


def test_a_profile_says_it_first_in_every_report(waiting):
    waiting()
    found = _profile()
    assert found.environment.machine.waits == Waits(rounds=1.0, time=1.0)
    assert found.whole.verdict != "stable"
    assert "rounds that waited for a core 100 % > 50 %" in found.whole.missed
    for name, line in {"txt": 2, "md": 2, "latex": 3}.items():
        told = reporters.render(name, found).splitlines()[line]
        assert BUSY in told, name
    assert "use --threads 1" in found.environment.warnings[0]
    page = of(bundled(found))
    assert BUSY in page.head  # the first screen says it, so the list of warnings need not
    assert not any(BUSY in warning for warning in page.warnings)
    with pytest.raises(UntrustedError, match="too busy to be measured on"):
        _profile(strict=True)


def test_a_quiet_machine_changes_no_report(waiting):
    waiting(0)
    found = _profile()
    assert found.environment.machine.waits == Waits(rounds=0, time=0)
    assert BUSY not in reporters.render("txt", found)
    assert not any("waited for a core" in warning for warning in found.environment.warnings)
    assert "waits" not in layered().environment.machine.model_dump()


def test_a_training_step_says_it_first(waiting):
    waiting()
    options = {"iterations": 2, "warmup": 0, "threads": 1}
    found = training.profile_training(Small(), torch.zeros(INPUT), **options)
    assert BUSY in reporters.render("txt", found).splitlines()[2]
    assert BUSY in reporters.render("md", found).splitlines()[2]
    assert "rounds that waited for a core 100 % > 50 %" in found.step.missed
    with pytest.raises(UntrustedError, match="too busy"):
        training.profile_training(Small(), torch.zeros(INPUT), **options, strict=True)


# --- comparisons ----------------------------------------------------------------------------


def said_first(found: Comparison) -> None:
    """Nothing is called, and each report begins with why."""
    assert found.void
    assert {row.verdict for row in (found.whole, *found.rows)} == {"UNCLEAR"}
    assert not found.slower
    text = reporters.render("txt", found).splitlines()
    assert text[0].endswith(": UNCLEAR, the machine was too busy")
    assert BUSY in text[2]
    markdown = reporters.render("md", found).splitlines()
    assert markdown[0].endswith(": UNCLEAR, the machine was too busy")
    assert BUSY in markdown[2]
    page = of(bundled(found)).head
    assert page.index(html.escape(found.void, quote=False)) < page.index("UNCLEAR")
    cells = next(csv.DictReader(io.StringIO(reporters.render("csv", found))))
    assert BUSY in cells["void"]


def test_in_turn_most_rounds_waited(waiting):
    waiting()
    found = comparison.compare_live(Small(), Small(), torch.zeros(INPUT), iterations=12, warmup=0)
    said_first(found)


def test_in_turn_a_few_rounds_waited_and_do_not_count(waiting):
    waiting(0.1)
    found = comparison.compare_live(Small(), Small(), torch.zeros(INPUT), iterations=30, warmup=0)
    assert found.void == ""


@pytest.mark.parametrize("side", ["baseline", "contender"])
@pytest.mark.parametrize(
    "busy",
    [
        {"waits": Waits(rounds=0.9, time=0.7), "threads": 1},
        {"other_work_fraction": 0.7, "cores": 2, "threads": 1},  # from before waits were measured
    ],
)
def test_a_record_of_a_busy_machine_tells_nothing(side, busy):
    slow = measured({"features.1": 2.0}, whole=1.5)
    machine = slow.environment.machine.model_copy(update=busy)
    environment = slow.environment.model_copy(update={"machine": machine})
    records = {"baseline": measured(), "contender": slow}
    records[side] = records[side].model_copy(update={"environment": environment})
    found = compare(records["baseline"], records["contender"])
    said_first(found)
    assert found.void.startswith(f"Of the {side}: {BUSY}")


def test_other_work_on_another_core_is_no_reason():
    assert contention.crowded(0.45, 1, 2) == ""
    assert contention.crowded(0.9, 1, 64) == ""
    assert contention.crowded(None, 1, 2) == ""
    assert Machine(cpu="x", cores=2).too_busy == ""


# --- how often chance calls a row -------------------------------------------------------------

WORKLOAD = Workload(model="virtual", input="x", shape=(1, 1, 1, 1), batch=1)


def compared(*pairs: tuple[samples.Run, samples.Run]) -> Comparison:
    plan = Plan(threads=1)
    sides = [assemble(WORKLOAD, plan, list(runs)) for runs in zip(*pairs, strict=True)]
    return judge(*sides, of_rounds(pairs), names=("a", "b"))


def in_turn(seed: int, **options: object) -> tuple[samples.Run, samples.Run]:
    return virtual.measured_in_turn(seed, virtual.SHARED, rounds=150, **options)


@pytest.mark.slow
def test_on_a_shared_machine_a_model_is_not_slower_than_itself():
    """`benchmarks.alarms` makes thousands, on machines of all kinds."""
    found = [compared(in_turn(seed)) for seed in range(30)]
    assert not any(one.void for one in found)
    called = [row for one in found for row in (one.whole, *one.rows) if row.verdict != "UNCLEAR"]
    assert {row.verdict for row in called} == {"SAME"}


def test_on_a_shared_machine_a_planted_slow_down_is_found_where_it_is():
    found = compared(in_turn(1, factor=1.3))
    verdicts = {row.path: row.verdict for row in found.rows}
    assert verdicts[f"layer{virtual.PLANTED}"] == "SLOWER"
    assert list(verdicts.values()).count("SLOWER") == 1


def test_few_rounds_of_which_some_waited_say_that_more_are_needed():
    few = "Fewer than 10 rounds did not wait: give more iterations, too."
    assert few in compared(virtual.measured_in_turn(0, virtual.SHARED, rounds=10)).void
    assert few not in compared(virtual.measured_in_turn(0, virtual.CROWDED, rounds=40)).void


def test_on_a_crowded_machine_nothing_is_told():
    said_first(compared(virtual.measured_in_turn(0, virtual.CROWDED, rounds=40, factor=3)))


# --- the places of weights --------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers that share a weight, and a buffer that is a view of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.register_buffer("every", torch.arange(16.0))
        self.register_buffer("part", self.every[4:12:2])


def test_moved_weights_are_the_same_elsewhere():
    model = Tied()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    assert can_move(model)
    move(model)
    for name, value in model.state_dict().items():
        assert value.data_ptr() != places[name]
        assert torch.equal(value, before[name])
    assert model.second.weight is model.first.weight
    model.every[6] = -1
    assert model.part[1] == -1  # still one memory
    assert model.part.stride() == (2,)


def test_weights_are_brought_back_with_what_was_written_meanwhile():
    model = Tied()
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    held = model.every
    with suppress(RuntimeError), brought_back(model):
        move(model)
        move(model)
        model.every[6] = -1
        raise RuntimeError("ended")
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == places
    assert held[6] == -1


def test_what_cannot_be_moved():
    assert not can_move(nn.Linear(2, 2, device="meta"))
    with torch.inference_mode():
        assert not can_move(nn.BatchNorm2d(2))
    shared = nn.Linear(2, 2)
    shared.weight.share_memory_()
    assert not can_move(shared)


def test_models_handed_over_lie_where_they_lay(waiting):
    waiting(0)
    models = [Small(), Small()]
    places = [[p.data_ptr() for p in model.parameters()] for model in models]
    found = comparison.compare_live(*models, torch.zeros(INPUT), iterations=40, warmup=0)
    assert [[p.data_ptr() for p in model.parameters()] for model in models] == places
    assert found.rows
