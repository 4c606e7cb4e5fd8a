"""Traces of torch.profiler by module: known answers, and genuine traces made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from layerbench.environment import devices
from layerbench.instruments.kernel_timer import kernel_activity
from layerbench.profilers.trace_profile import profile_trace
from layerbench.records.timing import Summary
from layerbench.records.trace_profile import TraceProfile
from tests.simulated import Simulator
from tests.simulated.process import on_sim
from tests.support.sample_traces import (
    AUTOGRAD,
    MAIN,
    cuda_step,
    cuda_trace,
    event,
    kernel,
    launch,
    module,
    node,
    operator,
    profiled,
    rows,
)


def us(summary: Summary | None) -> float | None:
    """A median in microseconds."""
    return None if summary is None else round(summary.median * 1e6, 3)


# --- known answers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> TraceProfile:
    return profiled(tmp_path_factory.mktemp("cuda"), cuda_trace())


def test_each_step_is_a_sample(cuda: TraceProfile) -> None:
    assert (cuda.steps, cuda.step.n, us(cuda.step)) == (3, 3, 1000.0)
    convolution = rows(cuda)["Net_0.Conv2d_0"].kernel_time
    assert convolution is not None
    assert (convolution.n, convolution.min, convolution.max) == pytest.approx((3, 500e-6, 520e-6))
    assert (convolution.ci_low, convolution.ci_high) == pytest.approx((500e-6, 520e-6))


def test_modules_are_nested_as_they_ran(cuda: TraceProfile) -> None:
    assert [(row.path, row.type, row.kind, row.depth, row.calls) for row in cuda.rows] == [
        ("", "step", "range", 0, 1),
        ("Net_0", "Net", "module", 1, 1),
        ("Net_0.Conv2d_0", "Conv2d", "module", 2, 1),
        ("Net_0.Linear_0", "Linear", "module", 2, 1),
        ("Optimizer·step#SGD·step", "range", "range", 1, 1),
    ]
    assert cuda.rows[-1].name == "Optimizer.step#SGD.step"


def test_times_of_the_host_are_inclusive_and_own(cuda: TraceProfile) -> None:
    assert [(us(row.time), us(row.time_self)) for row in cuda.rows] == [
        (1000.0, 500.0),  # 1000 less Net and the optimizer; the backward has a thread of its own
        (400.0, 200.0),
        (100.0, 100.0),
        (100.0, 100.0),
        (100.0, 100.0),
    ]


def test_the_backward_belongs_to_the_module_of_its_forward(cuda: TraceProfile) -> None:
    assert [(us(row.backward), us(row.backward_self)) for row in cuda.rows] == [
        (190.0, 40.0),  # the loss, and gradients being accumulated
        (150.0, None),
        (90.0, 90.0),
        (60.0, 60.0),
        (None, None),
    ]


def test_kernels_belong_to_the_module_that_launched_them(cuda: TraceProfile) -> None:
    assert [(us(row.kernel_time), us(row.kernel_time_self), row.kernels) for row in cuda.rows] == [
        (695.0, 15.0, 24),
        (660.0, None, 15),
        (510.0, 510.0, 9),
        (150.0, 150.0, 6),
        (20.0, 20.0, 3),
    ]
    longest = cuda.kernels[0]
    assert (longest.name, longest.module, longest.backward, longest.calls) == (
        *("conv_kernel", "Net_0.Conv2d_0", False),
        3,
    )
    assert longest.seconds == pytest.approx(210e-6)
    assert ("dgrad_kernel", True) in {(one.name, one.backward) for one in cuda.kernels}


def test_the_coverage_of_the_host_counts_each_moment_once(cuda: TraceProfile) -> None:
    host = cuda.host_coverage
    parts = [host.whole, host.modules, host.ranges, host.operators, host.rest]
    # A step: Net 400 and its nodes 150; the optimizer 100; copy 50, loss 40, its node 30 and the
    # accumulation 10.
    assert parts == pytest.approx([3000e-6, 1650e-6, 300e-6, 390e-6, 660e-6])


def test_the_coverage_of_the_device_adds_kernels_up(cuda: TraceProfile) -> None:
    device = cuda.device_coverage
    assert device is not None
    parts = [device.whole, device.modules, device.ranges, device.operators, device.rest]
    assert parts == pytest.approx([2085e-6, 1980e-6, 60e-6, 45e-6, 0])
    assert us(cuda.busy) == 5 + 210 + 50 + 10 + 100 + 150 + 20
    assert cuda.devices == ("NVIDIA A100-SXM4-40GB",)


def test_phases_have_names_where_the_trace_has_them(cuda: TraceProfile) -> None:
    assert [(phase.name, us(phase.time)) for phase in cuda.phases] == [
        *(("forward", 400.0), ("backward", 190.0)),
        ("optimizer", 100.0),
    ]


def test_a_closure_of_the_optimizer_is_no_time_of_its_own(tmp_path: Path) -> None:
    events = [
        event("user_annotation", "Optimizer.step#SGD.step", 0, 500),
        event("user_annotation", "closure", 10, 400),
        *(module("Net_0", 20, 100), operator("aten::mm", 30, 50, 1, 5)),
        node("MmBackward0", 200, 150, 5, MAIN),
        event("user_annotation", "Optimizer.zero_grad#SGD.zero_grad", 380, 20),
    ]
    record = profiled(tmp_path, events)
    assert {phase.name: us(phase.time) for phase in record.phases} == {
        **{"forward": 100.0, "backward": 150.0, "zero_grad": 20.0},
        "optimizer": 230.0,
    }


def test_operators_have_their_own_time(cuda: TraceProfile) -> None:
    own = {one.name: (one.calls, round(one.self_s * 1e6, 3)) for one in cuda.operators}
    assert own["aten::conv2d"] == (3, 10.0)
    assert own["aten::convolution"] == (3, 50.0)
    # The node itself lies in the engine's call of it, which counts as one.
    assert own["AddmmBackward0"] == (3, 50.0)


def test_a_whole_trace_lacks_nothing(cuda: TraceProfile) -> None:
    assert cuda.lacks == cuda.notes == ()


# --- one thing at a time ---------------------------------------------------------------------


def test_one_step_is_one_sample(tmp_path: Path) -> None:
    record = profiled(tmp_path, cuda_step(3, 1000))
    assert (record.steps, record.step.n) == (1, 1)
    assert record.lacks == (
        "one profiler step: one sample, without intervals; record several, active=10",
    )


def test_without_steps_the_trace_is_one_sample(tmp_path: Path) -> None:
    events = [one for one in cuda_step(3, 1000) if not one["name"].startswith("ProfilerStep")]
    record = profiled(tmp_path, events)
    assert (record.steps, record.step.n, us(record.step)) == (0, 1, 950.0 - 10)
    assert "no profiler steps" in record.lacks[0]


def test_kernels_find_their_operator_by_its_number_where_no_launch_was_recorded(
    tmp_path: Path,
) -> None:
    events = [
        *(module("Net_0", 0, 100), operator("aten::mm", 10, 50, external=12)),
        kernel("gemm", 77, 60, 30, External_id=12),
        kernel("lost", 78, 95, 7, External_id=13),
    ]
    record = profiled(tmp_path, events)
    assert us(rows(record)["Net_0"].kernel_time) == 30.0
    assert record.device_coverage is not None
    assert record.device_coverage.rest == pytest.approx(7e-6)
    assert "kernels without a launch in the trace, which belong to no row: 1" in record.notes


def test_kernels_alone_are_told(tmp_path: Path) -> None:
    record = profiled(tmp_path, [kernel("gemm", 77, 60, 30)], {})
    assert any("ProfilerActivity.CPU" in text for text in record.lacks)
    assert us(record.rows[0].kernel_time) == 30.0


def test_a_number_of_the_graph_counts_for_its_own_thread(tmp_path: Path) -> None:
    """Each thread of forwards numbers for itself: other nodes say which thread it was."""
    other = {"tid": 950}
    events = [
        *(
            module("A_0", 0, 100),
            operator("aten::a", 10, 10, 1, 5),
            operator("aten::b", 30, 10, 2, 6),
        ),
        *(module("B_0", 0, 100) | other, operator("aten::c", 10, 10, 3, 5) | other),
        node("BBackward", 200, 20, 6),
        node("ABackward", 230, 40, 5),
    ]
    record = profiled(tmp_path, events)
    assert us(rows(record)["A_0"].backward) == 60.0
    assert rows(record)["B_0"].backward is None
    assert "ran in other threads than the steps (1): " in record.notes[0]


def test_the_last_operator_before_the_node_made_it(tmp_path: Path) -> None:
    """An operator that puts nothing into the graph has the number of the next one that does."""
    events = [
        *(module("A_0", 0, 50), operator("aten::empty", 10, 10, 1, 5)),
        *(module("B_0", 60, 50), operator("aten::mm", 70, 10, 2, 5)),
        node("MmBackward0", 200, 20, 5),
    ]
    record = profiled(tmp_path, events)
    assert us(rows(record)["B_0"].backward) == 20.0
    assert rows(record)["A_0"].backward is None


def test_a_forward_that_runs_again_in_the_backward_is_backward(tmp_path: Path) -> None:
    again = [one | {"tid": AUTOGRAD} for one in (module("Linear_0", 210, 30),)]
    events = [
        module("Block_0", 0, 100),
        operator("CheckpointFunction", 10, 80, 1, 5),
        module("Linear_0", 20, 60),
        node("CheckpointFunctionBackward", 200, 50, 5),
        *again,
    ]
    found = rows(profiled(tmp_path, events))
    assert [*found] == ["", "Block_0", "Block_0.Linear_0"]
    assert (us(found["Block_0.Linear_0"].time), found["Block_0.Linear_0"].calls) == (60.0, 1)
    assert us(found["Block_0.Linear_0"].backward) == 30.0
    assert (us(found["Block_0"].backward), us(found["Block_0"].backward_self)) == (50.0, 20.0)


def test_what_begins_as_another_ends_is_not_in_it(tmp_path: Path) -> None:
    record = profiled(tmp_path, [module("A_0", 0, 50), module("B_0", 50, 50)])
    assert [row.path for row in record.rows] == ["", "A_0", "B_0"]


def test_ranges_that_do_not_nest_are_cut_and_told(tmp_path: Path) -> None:
    events = [
        event("user_annotation", "outer", 0, 100),
        event("user_annotation", "inner", 60, 80),
        event("user_annotation", "rounded", 50, 5),
    ]
    record = profiled(tmp_path, events)
    assert us(rows(record)["outer.inner"].time) == 40.0
    assert us(rows(record)["outer"].time_self) == 55.0
    assert "1 events end after the one that they began in" in record.notes[0]


def test_a_range_around_all_steps_names_nothing(tmp_path: Path) -> None:
    events = [event("user_annotation", "training", 900, 4000), *cuda_trace()]
    record = profiled(tmp_path, events)
    assert record.rows[1].path == "Net_0"
    assert record.notes == ("ranges that hold whole steps name nothing here: training",)
    assert record.host_coverage.ranges == pytest.approx(300e-6)


def test_calls_that_vary_are_told(tmp_path: Path) -> None:
    events = [*cuda_trace(), event("user_annotation", "save", 1960, 20)]
    row = rows(profiled(tmp_path, events))["save"]
    assert (row.note, row.calls) == ("calls varied between steps", 1)
    assert row.time is not None
    assert row.time.mean == pytest.approx(20e-6 / 3, abs=1e-10)


def test_events_that_cannot_be_are_left_out_and_told(tmp_path: Path) -> None:
    good = module("Net_0", 0, 100)
    bad = [
        good | {"dur": -5},
        good | {"ts": "soon"},
        good | {"ts": 1e300},
        {key: value for key, value in good.items() if key != "name"},
        {key: value for key, value in good.items() if key != "dur"},
        "no event",
    ]
    odd = [good | {"args": [], "pid": [1], "tid": None, "ts": 300}, good | {"cat": ["x"]}]
    record = profiled(tmp_path, [good, *bad, *odd])
    assert record.notes[0].startswith("6 events without a name or with times")
    assert rows(record)["Net_0"].calls == 2


def test_too_many_and_too_deep_places_count_for_what_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerbench.analysis.trace_places.MOST_PLACES", 3)
    events = [event("user_annotation", f"batch {number}", 100 * number, 50) for number in range(5)]
    record = profiled(tmp_path, events)
    assert [row.name for row in record.rows] == ["", "batch 0", "batch 1"]
    assert us(record.rows[0].time_self) == 450.0 - 100
    assert "3 calls lie too deep or at too many places" in record.notes[0]
    monkeypatch.setattr("layerbench.analysis.trace_places.MOST_DEPTH", 2)
    nested = [module(f"A_{depth}", depth, 100 - 2 * depth) for depth in range(4)]
    assert [row.path for row in profiled(tmp_path, nested).rows] == ["", "A_0", "A_0.A_1"]


def test_of_very_many_steps_the_first_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerbench.analysis.trace_nesting.MOST_STEPS", 2)
    monkeypatch.setattr("layerbench.analysis.trace_nesting.MOST_SAMPLES", 6)
    record = profiled(tmp_path, cuda_trace())
    assert (record.steps, record.step.n) == (2, 2)
    assert record.host_coverage.whole == pytest.approx(2000e-6)
    assert [row.path for row in record.rows] == ["", "Net_0", "Net_0.Conv2d_0"]
    assert us(rows(record)["Net_0"].time_self) == 300.0
    assert us(record.rows[0].kernel_time) == 690.0
    assert record.notes[1] == "the first 2 steps count, and 1 more do not"


def test_names_of_lightnings_profiler_are_attribute_paths(tmp_path: Path) -> None:
    events = [
        event("user_annotation", "[pl][module]my.net.Backbone: backbone", 0, 100),
        event("user_annotation", "[pl][module]torch.nn.modules.conv.Conv2d: backbone.conv1", 5, 50),
    ]
    found = profiled(tmp_path, events).rows
    assert [(row.path, row.type, row.kind) for row in found[1:]] == [
        ("backbone", "Backbone", "module"),
        ("backbone.conv1", "Conv2d", "module"),
    ]


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    names = ["", "a.b", "\x1b[2J", "x" * 9_000, "Net_0", "a·b"]
    events = [
        *(event("user_annotation", name, 100 * at, 50) for at, name in enumerate(names)),
        module("Net_0", 900, 50),
    ]
    record = profiled(tmp_path, events)
    assert [row.name for row in record.rows[1:4]] == ["(unnamed)", "a.b", "\x1b[2J"]
    assert [row.depth for row in record.rows] == [0, 1, 1, 1, 1, 1]
    assert rows(record)["Net_0"].calls == 2
    assert rows(record)["a·b"].calls == 2
    assert len(record.rows[4].path) <= 80


def test_older_traces_have_other_names_for_the_same(tmp_path: Path) -> None:
    """As PyTorch 1.8 wrote them, in whole microseconds: ends cross by one."""
    old = [
        event("Operator", "ProfilerStep#3", 0, 100),
        event("Operator", "aten::mm", 10, 50, external_id=12),
        event("Runtime", "cudaLaunchKernel", 20, 41, correlation=4),
        kernel("gemm", 4, 60, 30) | {"cat": "Kernel"},
        kernel("Memset", 9, 95, 2, external_id=12) | {"cat": "Memset"},
    ]
    record = profiled(tmp_path, old, {})
    assert (record.steps, us(record.rows[0].kernel_time)) == (1, 32.0)
    assert record.device_coverage is not None
    assert record.device_coverage.operators == pytest.approx(32e-6)
    assert record.notes == ()


def test_a_launch_of_many_kernels(tmp_path: Path) -> None:
    """A CUDA graph's."""
    events = [
        module("Net_0", 0, 100),
        launch(4, 20) | {"name": "cudaGraphLaunch"},
        *(kernel("k", 4, 30 + 10 * number, 10) for number in range(3)),
    ]
    assert us(rows(profiled(tmp_path, events))["Net_0"].kernel_time) == 30.0


def test_steps_of_a_second_process_are_no_samples(tmp_path: Path) -> None:
    other = [one | {"pid": 77} for one in cuda_step(3, 1500) if one["tid"] == MAIN]
    assert profiled(tmp_path, [*cuda_trace(), *other]).steps == 3


# --- genuine traces --------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.more = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.more(self.conv(images))


def recorded(path: Path, device: str = "cpu", steps: int = 3, **options: bool) -> Path:
    """Train a small model for some steps under torch.profiler, as its users do."""
    model = Small().to(device)
    images, labels = torch.ones(2, 3, 8, 8, device=device), torch.tensor([0, 1], device=device)
    activity = kernel_activity(devices.get(device))
    with profile(
        activities=[ProfilerActivity.CPU, *([activity] if activity else [])],
        schedule=schedule(wait=0, warmup=1, active=steps),
        on_trace_ready=lambda made: made.export_chrome_trace(str(path)),
        **options,
    ) as running:
        for _ in range(steps + 1):
            with record_function("my forward"):
                loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            # As torch.optim.SGD calls it, which to make takes seconds: it loads the compiler.
            with record_function("Optimizer.step#SGD.step"), torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=0.1)
            running.step()
    return path


def test_a_trace_with_stack_names_modules_forward_and_backward(tmp_path: Path) -> None:
    record = profile_trace(recorded(tmp_path / "t.json.gz", with_stack=True))
    found = rows(record)
    small = "my forward.Small_0"
    assert [*found] == [
        "",
        "my forward",
        small,
        f"{small}.Conv2d_0",
        f"{small}.Sequential_0",
        *(f"{small}.Sequential_0.{name}_0" for name in ("ReLU", "Flatten", "Linear")),
        "Optimizer·step#SGD·step",
    ]
    assert record.lacks == record.notes == ()
    assert (record.steps, {row.calls for row in record.rows}) == (3, {1})
    for path in (small, f"{small}.Conv2d_0", f"{small}.Sequential_0.Linear_0", "my forward"):
        assert found[path].backward is not None, path
    assert found["Optimizer·step#SGD·step"].backward is None
    host = record.host_coverage
    assert 0 < host.modules < host.whole
    assert host.ranges > 0
    assert [phase.name for phase in record.phases] == ["forward", "backward", "optimizer"]
    # What runs in the same thread adds up: all own times are the steps'.
    own = sum(
        time.mean
        for row in record.rows
        for time in (row.time_self, row.backward_self)
        if time is not None
    )
    assert own == pytest.approx(record.step.mean, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"with_modules": True}])
def test_a_trace_without_stack_has_the_users_ranges_and_says_so(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    record = profile_trace(recorded(tmp_path / "t.json", **options))
    assert [row.path for row in record.rows][:2] == ["", "my forward"]
    assert rows(record)["my forward"].backward is not None
    assert record.host_coverage.modules == 0
    assert record.lacks[0].startswith(
        "recorded without with_stack: only ranges of record_function have names; record with"
    )


def test_one_forward_without_anything(tmp_path: Path) -> None:
    model = Small()
    with profile(activities=[ProfilerActivity.CPU]) as made:
        model(torch.ones(1, 3, 8, 8))
    made.export_chrome_trace(str(tmp_path / "t.json"))
    record = profile_trace(tmp_path / "t.json")
    assert [row.path for row in record.rows] == [""]
    assert "nothing has a name" in record.lacks[0]
    assert record.operators
    assert record.host_coverage.operators > 0


@on_sim
def test_kernels_of_a_genuine_accelerator_have_their_modules(
    sim: Simulator, tmp_path: Path
) -> None:
    """Its plug-in records no calls of a runtime: kernels have their operators' numbers."""
    sim.rules(kernel_ns=5_000)
    record = profile_trace(recorded(tmp_path / "t.json", "sim", with_stack=True))
    found = rows(record)
    assert record.device_coverage is not None
    assert record.device_coverage.whole == pytest.approx(
        len(sim.kernels()) and record.rows[0].kernels * 5e-6
    )
    linear = found["my forward.Small_0.Sequential_0.Linear_0"]
    assert linear.kernels is not None
    assert linear.kernels > 0
    assert us(linear.kernel_time) == linear.kernels / 3 * 5
    assert any(one.backward and one.module == linear.path for one in record.kernels)
