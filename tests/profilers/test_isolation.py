"""Leaves alone: what they take is known, and the model comes back as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters, zoo
from layerbench.analysis.isolation import beside
from layerbench.api import timing as api_timing
from layerbench.environment import devices
from layerbench.environment.caches import last_level_bytes
from layerbench.environment.devices.clocks import ManualClock
from layerbench.errors import UsageError
from layerbench.instruments.cache_sweep import CacheSweep
from layerbench.profilers import isolation
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built
from tests.models import Calls, Small, Takes
from tests.profilers.test_timing import OnManualClock

FEW = {"warmup": 0, "iterations": 2, "function_iterations": 0, "ceilings": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbench.instruments.cache_sweep._MOST_BYTES", 4096)
    monkeypatch.setattr(isolation, "HOT_CALLS", 2)
    monkeypatch.setattr(isolation, "COLD_CALLS", 2)


def isolated(model: nn.Module, *inputs: Any, **options: Any) -> dict[str, LayerRow]:
    record = layerbench.profile(model, inputs, isolate=True, **{**FEW, **options})
    assert record.isolation
    assert not record.isolation.failed
    return {row.path: row for row in record.layers if row.isolated_hot}


def set_cold(cold: bool) -> None:
    """Outside the process's objects, which are put back."""
    os.environ["TESTS_COLD"] = str(cold)


class Reads(Takes):
    """Takes ten times as long where the caches are cold, and warms them."""

    def forward(self, x: Any) -> Any:
        self.clock.advance(self.nanoseconds * (10 if os.environ["TESTS_COLD"] == "True" else 1))
        set_cold(False)
        return x


def on_manual_clock(
    monkeypatch: pytest.MonkeyPatch, run: Any, **leaves: Any
) -> tuple[Profile, dict[str, tuple[int, int, int]]]:
    """The record, and of each leaf the nanoseconds in the model, hot and cold."""
    monkeypatch.setenv("TESTS_COLD", "False")
    monkeypatch.setattr(CacheSweep, "run", lambda _: set_cold(True))
    clock = ManualClock()
    model = Calls(run, **{name: make(clock) for name, make in leaves.items()})
    workload = Workload(model="Calls", input="own", shape=(1,), batch=1)
    plan = Plan(warmup=0, iterations=3, isolate=True)
    device: Any = OnManualClock(clock)
    record = api_timing.measure(workload, plan, device, subject=Built(model, (0,), {})).profile
    times = {
        leaf.row.path: tuple(
            round(time.median * 1e9) for time in (leaf.in_context, leaf.hot, leaf.cold)
        )
        for leaf in beside(record)
    }
    return record, times  # type: ignore[return-value]


def test_hot_and_cold_times_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(model: Any, x: Any) -> Any:
        set_cold(False)
        x = model.near(x)
        set_cold(True)
        return model.twice(model.twice(model.far(x)))

    leaves = {
        "near": lambda clock: Reads(clock, 1_000),
        "far": lambda clock: Reads(clock, 2_000),
        "twice": lambda clock: Reads(clock, 300),
        "never": lambda clock: Reads(clock, 7),
    }
    record, times = on_manual_clock(monkeypatch, run, **leaves)
    assert times == {
        "near": (1_000, 1_000, 10_000),
        "far": (20_000, 2_000, 20_000),
        "twice": (600, 600, 6_000),  # of both calls in a forward
    }
    assert [leaf.place for leaf in beside(record)] == ["like hot", "like cold", "like hot"]
    far = record.layers[2]
    assert far.isolated_hot
    assert far.isolated_cold
    assert (far.isolated_hot.n, far.isolated_cold.n) == (2, 2)
    assert record.whole.median == pytest.approx(21.6e-6)
    said = " ".join(reporters.render("screen", record).split())
    assert "3 leaves take 3.600 µs alone and hot, 36.00 µs with cold caches" in said
    assert "1 of 3 are as slow as with cold caches" in said
    assert "Isolated" not in reporters.render("txt", record.without_layers())


def test_a_leaf_that_surroundings_slow_down_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disturbed(Takes):
        inside = False

        def forward(self, x: Any) -> Any:
            self.clock.advance(self.nanoseconds * (50 if Disturbed.inside else 1))
            return x

    def run(model: Any, x: Any) -> Any:
        Disturbed.inside = True
        x = model.leaf(x)
        Disturbed.inside = False
        return x

    real = isolation.Isolator._alone

    def alone(*args: Any) -> Any:
        Disturbed.inside = False
        return real(*args)

    monkeypatch.setattr(isolation.Isolator, "_alone", alone)
    record, times = on_manual_clock(monkeypatch, run, leaf=lambda clock: Disturbed(clock, 100))
    assert times == {"leaf": (5_000, 100, 100)}
    assert [leaf.place for leaf in beside(record)] == ["above both"]


class Remembers(nn.Module):
    """Appends to a cache in each call, as attention does, and refuses one that is too long."""

    def __init__(self) -> None:
        super().__init__()
        self.past: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, scale: float, *, most: int = 2) -> torch.Tensor:
        assert len(self.past) < most
        self.past.append(x)
        return x * scale


class Wild(nn.Module):
    """State of every kind: statistics, draws, in-place work, a cache, several shapes, autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.cache = Remembers()
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.cache.past.clear()
        y = self.drop(self.relu(self.norm(self.conv(x))))
        once = self.pool(self.relu(self.cache(y, 2.0)))
        with torch.no_grad():
            again = self.pool(self.cache(once, 3.0, most=3))
        with torch.autocast("cpu", torch.bfloat16):
            return [once, again, self.linear(y.mean((2, 3)))]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_state_is_as_if_no_leaf_had_run_alone(mode: Any, tmp_path: Path) -> None:
    """What the model computes while its leaves run alone is what it computes without."""
    torch.manual_seed(0)
    model, x = Wild().train(mode == "train"), torch.rand(2, 2, 8, 8)
    # A list that a hook fills would be put back, too.
    model.register_forward_hook(lambda _, __, output: torch.save(output, tmp_path / "last"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    rows = isolated(model, x, mode=mode)
    last = torch.load(tmp_path / "last")
    assert {*rows} == {"conv", "norm", "relu", "drop", "cache", "pool", "linear"}
    assert rows["relu"].calls == rows["cache"].calls == rows["pool"].calls == 2
    assert model.cache.past == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.manual_seed(3)
    plain = model(x)
    assert [torch.equal(a, b) for a, b in zip(last, plain, strict=True)] == [True] * 3
    assert last[2].dtype == torch.bfloat16


def test_a_leaf_that_cannot_run_again_is_named_and_the_others_are_timed() -> None:
    class Once(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + next(iter([1.0]))

    class Handle(nn.Module):
        """Works on one object alone, which nobody puts back."""

        def forward(self, given: Any) -> torch.Tensor:
            return next(given)

    model = Calls(
        lambda self, x: self.one(self.handle(x for x in [x])), one=Once(), handle=Handle()
    )
    record = layerbench.profile(model, torch.ones(1, 2), isolate=True, **FEW)
    assert record.isolation
    assert {*record.isolation.failed} == {"handle"}
    assert [row.path for row in record.layers if row.isolated_hot] == ["one"]
    assert "Not run alone: handle" in reporters.render("txt", record)


def test_a_real_model_in_every_format_and_back() -> None:
    built = zoo.build(zoo.resolve("mobilenet_v3_small", "1x3x32x32"))
    record = layerbench.profile(built.module, built.args, isolate=True, **FEW)
    leaves = beside(record)
    ran = [row for row in record.layers if row.calls and row.kind == "module"]
    inner = {row.path.rpartition(".")[0] for row in ran}
    assert [leaf.row.path for leaf in leaves] == [
        row.path for row in ran if row.path not in inner and row.path
    ]
    assert type(record).model_validate_json(record.model_dump_json()) == record
    for name in ("txt", "md", "html"):
        assert "alone and hot" in reporters.render(name, record)
    assert "isolated_hot_median_s" in reporters.render("csv", record).splitlines()[0]
    assert '"isolated_cold"' in reporters.render("html", record)


def test_blocks_run_alone_as_a_whole() -> None:
    rows = isolated(Small(), torch.rand(1, 3, 8, 8), granularity="blocks")
    assert {"blocks.0", "blocks.1"} <= {*rows}
    assert "blocks.0.conv" not in rows


def test_compiled_code_has_no_leaves_that_run_alone() -> None:
    with pytest.raises(UsageError, match="leave out --isolate or --compile"):
        layerbench.profile(nn.ReLU(), torch.ones(1), isolate=True, compile=True)


def test_without_layers_there_is_a_reason() -> None:
    record = layerbench.profile(nn.ReLU(), torch.ones(1), isolate=True, granularity="whole", **FEW)
    assert record.isolation is None
    assert record.absent["isolation"] == isolation.NO_LAYERS


def test_an_interrupt_meanwhile_keeps_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isolation.Isolator, "_alone", interrupted)
    model, x = Small(), torch.rand(1, 3, 8, 8)
    record = api_timing.measure(
        Workload(model="Small", input="own", shape=(1, 3, 8, 8), batch=1),
        Plan(warmup=0, iterations=2, function_iterations=0, isolate=True, energy=True),
        devices.get("cpu"),
        subject=Built(model, (x,), {}),
        keep_interrupted=True,
    ).profile
    assert record.stop == "interrupted"
    assert record.whole.n == 2
    assert record.isolation is None
    assert record.absent["isolation"] == record.absent["energy"] == isolation.UNFINISHED


def test_the_last_level_caches_of_all_reachable_cores_are_added_up(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores share one, a third has its own; the level decides, not the number of the folder."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    for core, shared in ((0, "0-1"), (1, "0-1"), (2, "2"), (3, "3")):
        for index, level, size in ((0, 3, "32768K"), (1, 1, "48K")):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    assert last_level_bytes(tmp_path) == 64 * 2**20
    assert last_level_bytes(tmp_path / "nothing") is None
