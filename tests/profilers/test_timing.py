from __future__ import annotations

import gc
import io
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode as get_current_dispatch_mode

import layerbench
from layerbench import zoo
from layerbench.api import timing as api_timing
from layerbench.environment import devices
from layerbench.environment.conditions import DeviceLook
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock, ManualClock
from layerbench.errors import (
    BadInput,
    ModelRunError,
    NotEnoughMemory,
    UnknownModel,
    UntrustedError,
    UsageError,
)
from layerbench.profilers import rounds, timing
from layerbench.profilers.timing import measure
from layerbench.records.samples import Run
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built
from tests.models import Composite, Small, Takes

QUICK = {"warmup": 1, "iterations": 4, "function_iterations": 2, "threads": 1, "device": "cpu"}
SPEC = "tests/models.py:small"


def quick(model: str | nn.Module = SPEC, input: object = "2x3x16x16", **options: object) -> Profile:
    return layerbench.profile(model, input, **{**QUICK, **options})  # type: ignore[arg-type]


def row(profile: Profile, path: str) -> LayerRow:
    return next(row for row in profile.layers if row.path == path)


class OnManualClock:
    """The CPU, with a clock that stands still unless a model moves it."""

    def __init__(self, clock: Clock) -> None:
        self._cpu = devices.get("cpu")
        self._clock = clock

    def clock(self) -> Clock:
        return self._clock

    def __getattr__(self, name: str) -> object:
        return getattr(self._cpu, name)


def manual_run(plan: Plan) -> tuple[Run, Profile]:
    clock = ManualClock()
    model = Composite(clock, 1_000, Takes(clock, 10_000), Takes(clock, 20_000))
    workload = Workload(model="Composite", input="own", shape=(1,), batch=1)
    device: Device = OnManualClock(clock)  # type: ignore[assignment]
    measurement = api_timing.measure(workload, plan, device, subject=Built(model, (0,), {}))
    return measurement.runs[0], measurement.profile


def test_exact_profile_from_a_manual_clock() -> None:
    run, profile = manual_run(Plan(warmup=2, iterations=12))
    assert run.arrays["untouched"].tolist() == [33_000] * 12
    assert run.arrays["instrumented"].tolist() == [33_000] * 12
    assert (run.arrays["self"].sum(axis=1) == run.arrays["instrumented"]).all()
    assert profile.whole.median == pytest.approx(33e-6)
    assert profile.whole.verdict == "stable"
    assert [(r.path, r.calls) for r in profile.layers] == [
        ("", 1),
        ("inner", 0),
        ("inner.0", 1),
        ("inner.1", 1),
    ]
    slow = row(profile, "inner.1")
    assert slow.inclusive
    assert slow.inclusive.mean == pytest.approx(20e-6)
    assert row(profile, "inner").inclusive is None
    reconciliation = profile.reconciliation
    assert reconciliation
    assert reconciliation.self_sum_ratio == 1
    assert reconciliation.overhead == 1
    assert reconciliation.layers_gap == 0
    assert reconciliation.timed_calls == 2


def test_rounds_alternate_and_warm_up_is_not_kept() -> None:
    clock = ManualClock()
    seen = io.StringIO()  # what it closes over is put back, what it writes into a file is not

    class Notes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = Takes(clock, 5)

        def forward(self, x: int) -> int:
            touched = {"forward", "_call_impl"} & self.leaf.__dict__.keys()
            print("instrumented" if touched else "untouched", file=seen)
            return self.leaf(x)

    workload = Workload(model="Notes", input="own", shape=(1,), batch=1)
    device: Device = OnManualClock(clock)  # type: ignore[assignment]
    plan = Plan(warmup=1, iterations=3, function_iterations=0)
    run = measure(workload, plan, device, subject=Built(Notes(), (0,), {}))
    rounds = seen.getvalue().split()[1:]  # the first forward looks at shapes and counts FLOPs
    assert rounds == [
        *("untouched", "instrumented"),  # warm-up
        *("untouched", "instrumented"),
        *("instrumented", "untouched"),
        *("untouched", "instrumented"),
    ]
    assert len(run.arrays["untouched"]) == 3


def test_a_profile_by_name() -> None:
    profile = quick()
    assert profile.model_type == "Small"
    assert profile.workload.shape == (2, 3, 16, 16)
    assert profile.parameters == sum(p.numel() for p in Small().parameters())
    assert profile.whole.n == 4
    blocks = [(r.type, r.position) for r in profile.layers if r.block]
    assert ("ResidualBlock", 1) in blocks
    assert ("ResidualBlock", 2) in blocks
    assert ("adaptive_avg_pool2d", 1) in blocks
    assert row(profile, "unused").calls == 0
    assert row(profile, "blocks.0.relu").parameters == 0
    assert profile.environment.machine.threads == 1
    assert profile.absent == {}


def test_a_device_is_looked_at_between_the_measured_rounds_alone() -> None:
    """Before them it has a low clock, as it has had nothing to do."""
    clock = ManualClock()
    model, forwards, seen_at = Takes(clock, 5), [0], []
    model.register_forward_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))

    class Telling(OnManualClock):
        def look(self) -> DeviceLook:
            seen_at.append(forwards[0])
            return DeviceLook(clock_hz=1.98e9)

    workload = Workload(model="Takes", input="own", shape=(1,), batch=1)
    device: Device = Telling(clock)  # type: ignore[assignment]
    plan = Plan(warmup=30, iterations=3, function_iterations=0)
    run = measure(workload, plan, device, subject=Built(model, (0,), {}))
    assert run.facts.environment.conditions
    assert run.facts.environment.conditions.clock_median_hz == 1.98e9
    assert min(seen_at) > 2 * plan.warmup  # an untouched forward and one with marks in each


def test_threads_and_garbage_collection_come_back() -> None:
    before = torch.get_num_threads()
    quick(threads=2)
    assert torch.get_num_threads() == before
    assert gc.isenabled()


def test_a_module_is_measured_and_left_as_it_was() -> None:
    model = Small().train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    profile = quick(model, torch.rand(2, 3, 16, 16))
    assert profile.model_type == "Small"
    assert profile.workload.shape == (2, 3, 16, 16)
    assert [module.training for module in model.modules()] == modes
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("granularity", ["whole", "blocks", "layers"])
def test_granularity(granularity: str) -> None:
    profile = quick(granularity=granularity)
    kinds = {r.path for r in profile.layers}
    if granularity == "whole":
        assert kinds == set()
        assert profile.reconciliation is None
        assert "whole" in profile.absent["layers"]
    else:
        assert ("blocks.0.conv" in kinds) == (granularity == "layers")
        assert {"", "blocks.0", "flatten()"} <= kinds
        assert profile.reconciliation
        assert profile.reconciliation.self_sum_ratio == 1


def test_compiled_models_without_known_kernels_are_timed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(model) or model)
    profile = quick(compile=True)
    assert len(compiled) == 1
    assert profile.layers == ()
    assert "torch.compile" in profile.absent["layers"]
    assert profile.workload.compile == "default"
    assert profile.compilation
    assert profile.compilation.graphs == 0


def test_train_mode_builds_a_graph_and_keeps_buffers() -> None:
    seen: list[bool] = []

    class Norm(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = super().forward(x)
            seen.append(self.training and output.requires_grad)
            return output

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Norm(3))
    quick(model, torch.rand(2, 3, 4, 4), mode="train")
    assert all(seen)
    assert model[1].num_batches_tracked == 0


@pytest.mark.slow
def test_processes_are_fresh_and_pooled() -> None:
    workload = zoo.resolve(SPEC, "1x3x8x8")
    plan = Plan(warmup=1, iterations=3, function_iterations=2, processes=2, threads=1)
    measurement = api_timing.measure(workload, plan, devices.get("cpu"))
    profile = measurement.profile
    assert len(measurement.runs) == 2
    assert profile.whole.n == 6
    assert len(profile.process_medians) == 2
    assert profile.reconciliation
    assert profile.reconciliation.self_sum_ratio == 1
    assert "layerbench.profilers.processes" not in profile.environment.command
    assert row(profile, "flatten()").inclusive


@pytest.mark.slow
def test_a_workers_error_is_the_parents() -> None:
    with pytest.raises(ModelRunError, match="Conv2d at stem"):
        quick(input="1x4x8x8", processes=2)


def test_until_goes_on_to_the_cap_or_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "relative_half_width", lambda *_: 0.5)
    profile = quick(iterations=2, until=0.01)
    assert profile.stop == "cap"
    assert profile.whole.n == 20
    monkeypatch.setattr(rounds, "relative_half_width", lambda *_: 0.001)
    profile = quick(iterations=2, until=0.01)
    assert profile.stop == "until"
    assert profile.whole.n == 2


def test_calls_that_vary_are_said() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sometimes = nn.Identity()
            self.count = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return self.sometimes(x) if self.count % 3 else x

    profile = quick(Moody(), torch.rand(1, 3), iterations=9)
    assert any("sometimes" in note for note in profile.notes)


def test_samples_survive_the_way_between_processes() -> None:
    run, _ = manual_run(Plan(warmup=0, iterations=2, function_iterations=0))
    archive = ZipFile(BytesIO(), "w")
    Run.pack([run], archive)
    (loaded,) = Run.unpacked(archive)
    assert loaded.facts == run.facts
    assert loaded.arrays.keys() == run.arrays.keys()
    for name, array in run.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"model": "resnet5o"}, UnknownModel, "resnet50"),
        ({"input": "3x-1x4"}, BadInput, "-1"),
        ({"input": "1x5x16x16"}, ModelRunError, "Conv2d at stem"),
        ({"iterations": 0}, UsageError, "iterations"),
        ({"threads": 0}, UsageError, "threads"),
        ({"batch": -1}, UsageError, "batch"),
        ({"input": "1000000x3x4096x4096"}, NotEnoughMemory, "free"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, object], error: type, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        quick(**options)
    assert "\n" not in str(caught.value)


class FailsLater(nn.Module):
    """Raises in its ``after``-th forward, and under a function mode if asked to."""

    def __init__(self, after: int, under_mode: bool = False) -> None:
        super().__init__()
        self.leaf = nn.Identity()
        self.left = after
        self.under_mode = under_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left == 0 or (self.under_mode and torch.overrides.has_torch_function((x,))):
            raise ValueError("not this time\nwith a second line")
        return self.leaf(x) + 1


def test_a_model_that_fails_later_is_one_line() -> None:
    with pytest.raises(ModelRunError, match="after it had run once: not this time") as caught:
        quick(FailsLater(after=4), torch.rand(1, 3))
    assert "\n" not in str(caught.value)


def test_functions_that_cannot_be_timed_are_absent_with_the_reason() -> None:
    profile = quick(FailsLater(after=0, under_mode=True), torch.rand(1, 3))
    assert "not this time" in profile.absent["functions"]
    assert {r.kind for r in profile.layers} == {"module"}


def test_an_allocator_that_gives_up_is_explained() -> None:
    class Greedy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(2**50)

    with pytest.raises(NotEnoughMemory, match=r"requested .* free"):
        quick(Greedy(), torch.rand(1))


def test_strict_refuses_a_verdict_that_is_not_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "check_environment", lambda *_: None)
    _, profile = manual_run(Plan(warmup=0, iterations=4, function_iterations=0))
    noisy = profile.model_copy(
        update={
            "whole": profile.whole.model_copy(
                update={"verdict": "noisy", "missed": ("relative IQR 40 % > 10 %",)}
            )
        }
    )
    monkeypatch.setattr(api_timing, "assemble", lambda *_: noisy)
    with pytest.raises(UntrustedError, match="relative IQR"):
        quick(strict=True)


def test_a_model_that_bears_no_counter_is_timed_without_flops() -> None:
    class Refuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = nn.Linear(2, 2)
            self.drawn: list[float] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.drawn.append(float(torch.rand(())))
            if get_current_dispatch_mode() is not None:
                raise RuntimeError("no modes here")
            return self.leaf(x)

    model = Refuses()
    workload = Workload(model="Refuses", input="own", shape=(1, 2), batch=1)
    plan = Plan(warmup=1, iterations=2, function_iterations=0)
    cpu = devices.get("cpu")
    drawn: list[float] = []
    run = measure(
        workload,
        plan,
        cpu,
        subject=Built(model, (torch.ones(1, 2),), {}),
        begun=lambda _: drawn.extend(model.drawn),
    )
    assert "no modes here" in run.facts.absent["flops"]
    assert [row.path for row in run.facts.modules] == ["", "leaf"]
    assert drawn[0] == drawn[1]  # the forward that failed and the one in its place


# torch 2.4 does not read annotations that are text.
@torch.library.custom_op("layerbench_tests::opaque", mutates_args=(), schema="(Tensor x) -> Tensor")
def opaque(x: torch.Tensor) -> torch.Tensor:
    """PyTorch cannot tell what shape it gives, and so compiles no model with it."""
    return x.clone()


def test_a_model_that_cannot_be_compiled_is_one_line():
    class Opaque(nn.Module):
        def forward(self, x):
            return opaque(x) + 1

    model = Opaque()
    with pytest.raises(ModelRunError, match=r"it ran, but not compiled: .*no fake impl") as caught:
        layerbench.profile(model, torch.rand(2), compile=True, warmup=0, iterations=1)
    assert "\n" not in str(caught.value)
    assert vars(model).keys() == vars(Opaque()).keys()
    assert "forward" not in vars(model)
