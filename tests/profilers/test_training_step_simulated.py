"""A training step on the simulated accelerator: kernels by module, launching told apart."""

from __future__ import annotations

import re
from html import unescape

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis.kernels import own_step_kernels
from layerbench.analysis.launching import is_launch_bound, needed_s, waiting_part
from layerbench.instruments import queue_block
from layerbench.profilers import blocked_queue, own_step, training_step
from layerbench.profilers.blocked_queue import WAITS
from layerbench.records.training_step import TrainingProfile
from layerbench.reporters import formatting
from layerbench.reporters.documents.device import BELOW_RESOLUTION
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim

MICROSECOND = 1e-6
# Products of matrices take 40 µs each, all else 3 µs.
RULES = {"kernel_ns": 3_000, "named_ns": {"aten::mm": 40_000, "aten::addmm": 40_000}}


def profiled(model: nn.Module, *sizes: int) -> TrainingProfile:
    return layerbench.profile_training(
        model.to("sim:0"), torch.rand(sizes, device="sim:0"), threads=1, warmup=1, iterations=3
    )


def holding_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is this machine, which may be busy: hold the queue for long, and in each round."""
    monkeypatch.setattr(blocked_queue, "_MARGIN", 10)
    monkeypatch.setattr(training_step, "BLOCKED_EVERY", 1)


@on_sim
def test_kernels_by_module_forward_and_backward(sim: Simulator) -> None:
    sim.rules(**RULES)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    record = profiled(model, 2, 4)
    rows = {row.path: row for row in record.rows}
    forward = {path: row.forward.median / MICROSECOND for path, row in rows.items()}
    assert forward == pytest.approx({"": 83, "0": 40, "1": 43, "1.0": 40, "1.1": 3})
    own = {path: row.backward_self.median / MICROSECOND for path, row in rows.items()}
    # Each weight's and bias's gradient, and that of the input where there is one before.
    assert own == pytest.approx({"": 0, "0": 43, "1": 0, "1.0": 83, "1.1": 3})
    assert rows["1"].backward.median == pytest.approx(86 * MICROSECOND)
    assert all(row.host_forward and row.host_backward for row in record.rows)
    rounds = record.device_rounds
    assert rounds is not None
    assert rounds.idle is not None
    busy = sum(phase.busy.mean for phase in record.phases if phase.busy)
    assert busy + rounds.idle.mean == pytest.approx(rounds.span.mean, abs=1e-9)
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    # A layer's product; two products and a sum; the first layer's input needs no gradient.
    assert {path: row.kernels for path, row in rows.items()} == {
        "": 9, "0": 1 + 2, "1": 6, "1.0": 1 + 3, "1.1": 1 + 1
    }  # fmt: skip
    assert own_step_kernels(record) == {"": 0, "0": 3, "1": 0, "1.0": 4, "1.1": 2}
    kernels = {(k.phase, k.module, k.function, k.name): k for k in record.kernels}
    back = kernels["backward", "1.0", "AddmmBackward0", "aten::mm"]
    assert (back.calls, back.time.median) == (2, pytest.approx(80 * MICROSECOND))
    assert kernels["forward", "1.1", "relu", "aten::relu"].calls == 1
    assert sum(k.time.mean for k in record.kernels) == pytest.approx(busy)
    counted = {phase.name: phase.kernels for phase in record.phases}
    for phase in record.phases:
        there = [k for k in record.kernels if k.phase == phase.name]
        assert counted[phase.name] == sum(k.calls for k in there)
        assert phase.busy.mean == pytest.approx(sum(k.time.mean for k in there))


@on_sim
@pytest.mark.parametrize("launch_ns", [500, 90_000])
def test_a_launch_bound_step_is_called_so(launch_ns: int, sim: Simulator) -> None:
    sim.rules(kernel_ns=30_000, launch_ns=launch_ns)
    record = profiled(Small(), 2, 3, 8, 8)
    assert ("launch-bound" in reporters.render("txt", record)) is (launch_ns > 30_000)
    assert is_launch_bound(record) is (launch_ns > 30_000)
    # What the device does is the same whoever waits.
    busy = record.device_rounds.span.median - record.device_rounds.idle.median
    assert busy == pytest.approx(30e-6 * sum(kernel.calls for kernel in record.kernels), rel=1e-6)


@on_sim
def test_what_the_host_takes_for_a_module_holds_nothing_of_the_device(sim: Simulator) -> None:
    """A kernel takes a second of the device's time, in which none of the host's passes."""
    sim.rules(kernel_ns=1_000_000_000)
    record = profiled(nn.Sequential(nn.Linear(4, 4)), 2, 4)
    for row in record.rows:
        assert min(row.forward.min, row.backward.min) >= 1
        assert max(row.host_forward.max, row.host_backward.max) < 1
    assert record.instrumented_s < 1
    text = " ".join(reporters.render("txt", record).split())
    assert re.search(
        r"a step takes \S+ s on the device's clock; instrumented, \S+ [mµ]?s on the host's", text
    ), text


@on_sim
def test_behind_a_blocked_queue_a_step_takes_what_its_kernels_take(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 µs to launch a kernel of 1 µs, and the other way round."""
    holding_for_long(monkeypatch)
    sim.rules(kernel_ns=1_000, launch_ns=20_000)
    bound = profiled(Small(), 2, 3, 8, 8)
    number = sum(phase.kernels for phase in bound.phases)
    assert needed_s(bound) == bound.device_rounds.blocked.median
    assert round(needed_s(bound) * 1e9) == number * 1_000
    # The last kernel is launched when all others have long ended.
    assert round(bound.step.median * 1e9) == number * 20_000 + 1_000
    assert waiting_part(bound) == pytest.approx(19 / 20, abs=1e-3)
    first = reporters.render("screen", bound)
    assert re.search(r"The device needs \S+ µs of it, launching costs .*: launch-bound\.", first)
    sim.rules(kernel_ns=20_000, launch_ns=1_000)
    working = profiled(Small(), 2, 3, 8, 8)
    assert round(needed_s(working) * 1e9) == number * 20_000
    assert not is_launch_bound(working)
    assert working.absent == {}


class Looks(nn.Module):
    """Looks at a value of its output, for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return x + x.sum().item()


@on_sim
def test_a_step_that_waits_for_the_device_says_why_it_was_not_blocked(sim: Simulator) -> None:
    sim.rules(virtual_host=False)
    record = layerbench.profile_training(
        Looks().to("sim:0"), torch.rand(2, 4).to("sim:0"), threads=1, warmup=16, iterations=3
    )
    assert record.device_rounds.blocked is None
    assert record.absent == {"blocked queue": WAITS.format(what="step")}
    text = " ".join(reporters.render("txt", record).split())
    assert "blocked queue: the step waits for the device" in text
    untouched = next(phase.host for phase in record.phases if phase.name == "backward")
    whole = formatting.time(untouched, "median")
    assert "Host times of the backward hold a call of Python where each module's nodes" in text
    assert f"without them the whole backward {whole}." in text
    assert "Kernels run for" in text


def unseen(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees kernels; what the host takes is the simulated host's time."""
    monkeypatch.setattr(training_step, "sees_kernels", lambda _device: False)
    monkeypatch.setattr(training_step, "why_unseen", lambda _device: "not to be seen")
    monkeypatch.setattr(queue_block, "perf_counter_ns", sim.now_ns)
    # That of untouched steps is told by this machine's own clock, and it may be busy.
    monkeypatch.setattr(blocked_queue, "_MARGIN", 50)


LAUNCH_BOUND = {**RULES, "launch_ns": 20_000, "event_host_ns": 700, "event_queue_ns": 900}
TIMES = ("forward", "forward_self", "backward", "backward_self")


def nanoseconds(record: TrainingProfile) -> dict[str, list[int | None]]:
    """The rows' times on the device."""
    return {
        row.path: [time and round(time.median * 1e9) for time in map(row.__getattribute__, TIMES)]
        for row in record.rows
    }


@on_sim
def test_without_kernels_events_give_the_same_times(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.rules(**LAUNCH_BOUND)
    by_kernels = profiled(Small(), 2, 3, 8, 8)
    unseen(sim, monkeypatch)
    sim.rules(**LAUNCH_BOUND)
    record = profiled(Small(), 2, 3, 8, 8)
    assert nanoseconds(record) == nanoseconds(by_kernels)
    assert nanoseconds(record)["head"] == [40_000, 40_000, 83_000, 83_000]
    assert record.outside_s == by_kernels.outside_s
    busy = [
        {phase.name: phase.busy.median for phase in one.phases if phase.busy}
        for one in (record, by_kernels)
    ]
    assert busy[0] == pytest.approx(busy[1])
    assert record.kernels == ()
    assert record.absent["kernels"] == "not to be seen"
    assert not any("waits" in note or "launching" in note for note in record.notes)
    rounds = record.device_rounds
    assert rounds is not None
    assert (rounds.how, rounds.idle) == ("events", None)
    assert rounds.resolution_s == pytest.approx(4.5e-6)
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    assert all(row.host_forward and row.host_backward for row in record.rows if row.calls)


@on_sim
def test_a_batch_whose_copy_waits_leaves_the_rest_of_the_step_blocked(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From ordinary memory the host copies it when the queue before it is done."""
    unseen(sim, monkeypatch)
    monkeypatch.setattr(own_step, "as_loaded", lambda tensor, _device: tensor.cpu())
    sim.rules(**LAUNCH_BOUND)
    record = profiled(nn.Sequential(nn.Linear(4, 4)), 2, 4)
    assert nanoseconds(record)["0"] == [40_000, 40_000, 43_000, 43_000]
    assert all(phase.busy for phase in record.phases)
    assert record.notes == (
        "the host waits for the device in the copy of the batch, or takes too long to launch it: "
        "launching is within its device time",
    )


@on_sim
def test_times_below_the_clocks_resolution_are_marked_in_every_format(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    sim.rules(**LAUNCH_BOUND)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    record = profiled(model, 2, 4)
    for name in ("txt", "md", "html"):
        text = " ".join(unescape(reporters.render(name, record)).split())
        assert f"forward and backward {BELOW_RESOLUTION}" in text
        assert "launch-bound" in text
    assert "resolution_s" in reporters.render("csv", record)
    assert not any(node._backward_hooks or node._forward_hooks for node in model.modules())


class Waits(nn.Module):
    """Looks at a value, for which the host waits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.mean().item()


@on_sim
def test_a_step_that_waits_for_the_device_says_what_its_times_hold(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen(sim, monkeypatch)
    sim.rules(**LAUNCH_BOUND)
    record = profiled(nn.Sequential(nn.Linear(4, 4), Waits()), 2, 4)
    assert any("waits for the device in the step" in note for note in record.notes)
    assert all(phase.busy is None for phase in record.phases)
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)


class Waiting:
    """A meter by which every step waited for a core, for ten milliseconds."""

    def begin(self) -> None:
        pass

    def end(self) -> int:
        return 10_000_000


@on_sim
def test_a_busy_host_says_which_times_of_a_step_hold_its_waits(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "wait_meter", lambda _: Waiting())
    sim.rules(kernel_ns=1_000, launch_ns=50_000)
    record = profiled(nn.Sequential(nn.Linear(4, 4)), 2, 4)
    assert record.step.missed[-1] == "rounds that waited for a core 100 % > 50 %"
    first = reporters.render("txt", record).splitlines()[2]
    assert first.startswith("The host was too busy to be measured on: the whole and host times")
    assert not any(row.forward.missed for row in record.rows if row.forward)
