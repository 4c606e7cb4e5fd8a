"""A profile on the simulated accelerator: stated lengths of kernels come out, to the nanosecond."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity

import layerbench
from layerbench import reporters
from layerbench.analysis.launching import needed_s
from layerbench.environment import devices
from layerbench.errors import LayerbenchError
from layerbench.instruments.kernel_timer import profiled
from layerbench.instruments.kernels import events_of
from layerbench.profilers import blocked_queue, rounds
from layerbench.records.timing import LayerRow, Profile
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim


def profile_of(model: nn.Module, *shape: int) -> Profile:
    """Of a model that is moved to the device, with few rounds."""
    inputs = torch.rand(*shape).to("sim:0")
    return layerbench.profile(
        model.to("sim:0"), inputs, device="sim:0", warmup=0, iterations=6, ceilings=False
    )


def rows_of(record: Profile) -> dict[str, LayerRow]:
    return {row.path: row for row in record.layers}


def nanoseconds(row: LayerRow) -> tuple[int, int]:
    """Self and inclusive time on the device."""
    assert row.self_
    assert row.inclusive
    return round(row.self_.median * 1e9), round(row.inclusive.median * 1e9)


@on_sim
def test_rows_have_the_stated_lengths_of_their_kernels(sim: Simulator) -> None:
    sim.rules(
        kernel_ns=0,
        named_ns={"aten::convolution": 5_003, "aten::relu_": 101, "aten::add": 1_009},
    )
    record = profile_of(Small(), 2, 3, 8, 8)
    rows = rows_of(record)
    assert nanoseconds(rows["blocks.0.conv"]) == (5_003, 5_003)
    assert nanoseconds(rows["blocks.0.relu"]) == (101, 101)
    assert nanoseconds(rows["blocks.0.add()"]) == (1_009, 1_009)
    assert rows["blocks.0.add()"].input_shapes == ((2, 4, 8, 8), (2, 4, 8, 8))
    assert nanoseconds(rows["blocks.0"]) == (1_009, 2 * 5_003 + 101 + 1_009)
    assert rows["blocks.0"].kernels == 4
    assert record.reconciliation
    assert record.reconciliation.self_sum_ratio == 1
    assert record.device_rounds
    assert record.device_rounds.how == "kernels"
    root = record.root
    assert root
    assert root.inclusive
    assert record.device_rounds.idle
    assert root.inclusive.median + record.device_rounds.idle.median == pytest.approx(
        record.device_rounds.span.median, abs=1e-12
    )


@on_sim
def test_kernels_are_listed_by_module_and_function(sim: Simulator) -> None:
    sim.rules(kernel_ns=10, named_ns={"aten::convolution": 5_000})
    record = profile_of(Small(), 2, 3, 8, 8)
    assert [(k.module, k.function, k.name, k.calls) for k in record.kernels[:2]] == [
        (path, "conv2d", "aten::convolution", 1) for path in ("stem", "blocks.0.conv")
    ]
    assert sum(kernel.calls for kernel in record.kernels) == record.layers[0].kernels


@on_sim
def test_a_device_that_waits_for_the_host_is_told_from_one_that_works(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 µs to launch a kernel of 1 µs; behind a blocked queue what is left is the kernels."""
    # The host is this machine, which may be busy: hold the queue for long.
    monkeypatch.setattr(blocked_queue, "_MARGIN", 50)
    sim.rules(kernel_ns=1_000, launch_ns=20_000)
    bound = profile_of(Small(), 2, 3, 8, 8)
    kernels = bound.layers[0].kernels
    assert kernels
    assert bound.device_rounds
    assert bound.device_rounds.blocked
    # The last kernel is launched when all others have long ended.
    assert round(bound.whole.median * 1e9) == kernels * 20_000 + 1_000
    assert round(bound.device_rounds.blocked.median * 1e9) == kernels * 1_000
    assert nanoseconds(bound.layers[0])[1] == kernels * 1_000
    sim.rules(kernel_ns=20_000, launch_ns=1_000)
    working = profile_of(Small(), 2, 3, 8, 8)
    assert working.device_rounds
    assert working.device_rounds.blocked
    assert working.whole.median == pytest.approx(working.device_rounds.blocked.median, abs=1.1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@on_sim
def test_what_launching_costs_is_told_of_the_whole_alone(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    monkeypatch.setattr(blocked_queue, "_MARGIN", 50)
    sim.rules(kernel_ns=1_000, launch_ns=20_000)
    model, x = Small().to("sim:0"), torch.rand(2, 3, 8, 8).to("sim:0")
    kernels = sum(
        row.kernels or 0
        for row in layerbench.profile(model, x, warmup=0, iterations=2, ceilings=False).layers[:1]
    )
    record = layerbench.profile(
        torch.compile(model, backend="eager") if compiled else model,
        x,
        granularity="layers" if compiled else "whole",
        warmup=1,
        iterations=6,
        ceilings=False,
    )
    assert record.layers == record.kernels == ()
    assert record.device_rounds
    assert record.device_rounds.span is None
    assert round((needed_s(record) or 0) * 1e9) == kernels * 1_000
    assert round(record.whole.median * 1e9) == kernels * 20_000 + 1_000
    for name in ("screen", "txt", "md", "html"):
        assert "launch-bound" in reporters.render(name, record)
    said = reporters.render("txt", record)
    assert "Only the whole was timed" in said
    assert "span of the device rounds" not in said
    assert reporters.render("csv", record).count("launching_s") == 1


@on_sim
def test_a_record_says_what_an_event_costs_the_queue(sim: Simulator) -> None:
    sim.rules(kernel_ns=5_000, event_queue_ns=1_500)
    record = profile_of(Small(), 2, 3, 8, 8)
    assert record.reconciliation
    assert record.reconciliation.event_s == pytest.approx(1.5e-6)
    assert record.reconciliation.least_event_s == pytest.approx(1.5e-6)
    text = " ".join(reporters.render("txt", record).split())
    assert "An event takes 1.500 µs of the device's queue, and the untouched forward holds" in text


@on_sim
def test_a_measured_model_is_free_without_a_collection(sim: Simulator) -> None:
    model = Small()
    gone = weakref.ref(model)
    gc.disable()
    try:
        profile_of(model, 2, 3, 8, 8)
        del model
        assert gone() is None
    finally:
        gc.enable()


class Twin(nn.Module):
    """Two layers, the second of which may run several times."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.first, self.second = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for _ in range(self.times):
            x = self.second(x)
        return x


@on_sim
def test_two_models_in_turn_are_compared_by_their_kernels(sim: Simulator) -> None:
    sim.rules(kernel_ns=100_000)
    inputs = torch.rand(2, 4).to("sim:0")
    models = [Twin(times).to("sim:0").eval() for times in (1, 3)]
    compared = layerbench.compare_live(*models, inputs, device="sim:0", warmup=0, iterations=20)
    rows = {row.path: row for row in compared.rows}
    assert rows["first"].ratio == 1
    assert rows["first"].verdict == "SAME"
    assert rows["second"].ratio == 3
    assert rows["second"].verdict == "SLOWER"


class Waiting:
    """A meter by which every forward waited for a core, for ten milliseconds."""

    def begin(self) -> None:
        pass

    def end(self) -> int:
        return 10_000_000


@on_sim
def test_a_busy_host_voids_no_comparison_of_kernels(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "wait_meter", lambda _: Waiting())
    sim.rules(kernel_ns=100_000, launch_ns=500_000)
    inputs = torch.rand(2, 4).to("sim:0")
    models = [Twin(times).to("sim:0").eval() for times in (1, 3)]
    compared = layerbench.compare_live(*models, inputs, device="sim:0", warmup=0, iterations=20)
    assert compared.void == ""
    assert compared.void_in_part.startswith("The host was too busy to be measured on: the whole")
    assert {row.path: row.verdict for row in compared.rows} == {"first": "SAME", "second": "SLOWER"}
    assert {row.verdict for row in compared.host_rows} == {"UNCLEAR"}
    assert compared.whole.verdict == "UNCLEAR"


class RunsNow(nn.Module):
    """A layer that runs in every second forward, or in none."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.layer, self.rest = nn.Linear(4, 4), nn.Identity()
        self.every, self.forwards = every, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        return self.layer(x) if self.every and self.forwards % self.every == 0 else self.rest(x)  # type: ignore[no-any-return]


@on_sim
def test_a_model_without_a_kernel_has_a_record(sim: Simulator) -> None:
    sim.rules(kernel_ns=1000)
    record = profile_of(RunsNow(every=0), 2, 4)
    assert record.device_rounds
    assert record.device_rounds.span.max == 0
    assert record.kernels == ()
    assert record.reconciliation
    assert (record.reconciliation.self_sum_ratio, record.reconciliation.layers_gap) == (1, 0)
    for name in reporters.names():
        with suppress(LayerbenchError):  # a format that has no such record says so
            reporters.render(name, record)


@on_sim
def test_a_device_may_have_nothing_to_do_in_some_rounds(sim: Simulator) -> None:
    sim.rules(kernel_ns=1000)
    record = profile_of(RunsNow(every=2), 2, 4)
    assert [(kernel.name, kernel.module) for kernel in record.kernels] == [("aten::addmm", "layer")]


@on_sim
def test_the_environment_is_left_as_it_was(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.rules(kernel_ns=10)
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    before = dict(os.environ)
    profile_of(nn.Linear(4, 4), 2, 4)
    assert dict(os.environ) == before


@on_sim
def test_a_profiler_in_another_thread_loses_nothing_by_ours(sim: Simulator) -> None:
    sim.rules(kernel_ns=1000)
    begun, over = threading.Event(), threading.Event()

    def profiled() -> int:
        with torch.profiler.profile(activities=[ProfilerActivity.PrivateUse1]) as profiler:
            x = torch.ones(4, device="sim")
            begun.set()
            over.wait(60)
            x.add(1)
        return len([event for event in profiler.events() if event.name == "aten::add"])

    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(profiled)
        begun.wait(60)
        try:
            record = profile_of(nn.Linear(4, 4), 2, 4)
        finally:
            over.set()
        assert theirs.result() == 1
    assert record.device_rounds
    assert record.device_rounds.how == "events"


@on_sim
def test_two_threads_of_ours_profile_one_after_the_other(sim: Simulator) -> None:
    device, second_begins = devices.get("sim:0"), threading.Event()

    def first() -> None:
        torch.ones(4, device="sim")
        second.append(pool.submit(profiled, second_begins.set, device))
        assert not second_begins.wait(0.1)  # or it would end the first, whose kernel were lost

    second: list[Future[object]] = []
    with ThreadPoolExecutor(1) as pool:
        _, kernels = events_of(profiled(first, device))
        assert second[0].result(60)
    assert len(kernels) == 1


@on_sim
def test_a_model_without_parameters_runs_where_its_inputs_are(sim: Simulator) -> None:
    sim.rules(named_ns={"aten::relu": 4_003})
    record = layerbench.profile(
        nn.ReLU(), torch.rand(2, 4).to("sim:0"), warmup=0, iterations=3, ceilings=False
    )
    assert record.environment.device.kind == "sim"
    assert nanoseconds(record.layers[0]) == (4_003, 4_003)
    asked = layerbench.profile(
        nn.ReLU(), "2x3x8x8", device="sim:0", warmup=0, iterations=3, ceilings=False
    )
    assert asked.environment.device.kind == "sim"
