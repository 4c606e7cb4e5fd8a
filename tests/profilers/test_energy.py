"""Energy: known power by counters in RAPL's own format, and what layers can have of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis.energy import by_layer, energy_together
from layerbench.environment import devices
from layerbench.environment.devices.energy import (
    NOT_INSTALLED,
    Counter,
    NoCounterError,
    counters,
)
from layerbench.profilers import energy
from layerbench.profilers.energy import energy_of
from layerbench.profilers.progress import Silent
from layerbench.records.energy import Energy
from layerbench.records.timing import Profile
from layerbench.reporters.html.document import bundled, of
from tests.models import Small
from tests.support.sample_profiles import layered

RANGE_UJ = 262_143_328_850


def zone(folder: Path, name: str, energy_uj: int, *limits_uw: int) -> Path:
    """One folder of /sys/class/powercap, as the kernel makes it."""
    folder.mkdir(parents=True)
    files = {"name": name, "energy_uj": energy_uj, "max_energy_range_uj": RANGE_UJ}
    files |= {f"constraint_{n}_power_limit_uw": limit for n, limit in enumerate(limits_uw)}
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")
    return folder


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which zeus looks for RAPL."""
    cpu = pytest.importorskip("zeus.device.cpu")
    monkeypatch.setattr("zeus.device.cpu.rapl.RAPL_DIR", str(tmp_path / "intel-rapl"))
    monkeypatch.setattr(cpu, "_cpus", None)
    cpu.rapl_is_available.cache_clear()
    return tmp_path / "intel-rapl"


def test_packages_and_their_memory_are_read_once_each(powercap: Path) -> None:
    first = zone(powercap / "intel-rapl:0", "package-0", 7_000_000, 100_000_000, 120_000_000)
    zone(first / "intel-rapl:0:0", "core", 1)
    zone(first / "intel-rapl:0:1", "dram", 500_000, 0)
    second = zone(powercap / "intel-rapl:1", "package-1", RANGE_UJ - 1_000_000, 90_000_000)
    zone(powercap / "intel-rapl:2", "psys", 9)  # the whole platform, packages included
    found = counters(devices.get("cpu"))
    assert [counter.name for counter in found] == ["package-0", "DRAM of package-0", "package-1"]
    assert [counter.limit_w for counter in found] == [120, None, 90]
    before = [counter.read() for counter in found]
    assert before == [7.0, 0.5, RANGE_UJ / 1e6 - 1]
    (first / "energy_uj").write_text("9500000\n")
    (second / "energy_uj").write_text("250000\n")  # it has begun anew
    after = [counter.read() for counter in found]
    used = [c.between(*ends) for c, *ends in zip(found, before, after, strict=True)]
    assert used == pytest.approx([2.5, 0.0, 1.25])


@pytest.mark.usefixtures("powercap")
def test_without_counters_there_is_one_line_and_the_times_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = layerbench.profile(
        nn.ReLU(), torch.ones(1, 2), energy=True, warmup=0, iterations=2, ceilings=False
    )
    assert record.energy is None
    assert record.absent["energy"] == "this machine shows no counter of its CPU (RAPL)"
    assert "energy: this machine shows no counter" in reporters.render("txt", record)
    assert "Energy: not known, this machine shows no" in reporters.render("screen", record)
    monkeypatch.setitem(sys.modules, "zeus.device", None)
    with pytest.raises(NoCounterError, match="pip install"):
        counters(devices.get("cpu"))
    assert "layerbench[energy]" in NOT_INSTALLED


class Machine:
    """Draws known powers; its counters move once a millisecond, and a reading takes 10 µs."""

    STEP_S = 0.001

    def __init__(self, ranges: Sequence[float | None] = (None, None)) -> None:
        self.now_s = 0.0
        self.joules = [0.0, 0.0]
        self.shown = [0.0, 0.0]
        self.counters = [
            Counter(name, lambda index=index: self.read(index), range_j)  # type: ignore[misc]
            for index, (name, range_j) in enumerate(zip(("package", "DRAM"), ranges, strict=True))
        ]

    def passes(self, seconds: float, *watts: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end - 1e-12:
            step = self.STEP_S * (self.now_s // self.STEP_S + 1)
            until = min(end, step if step - self.now_s > 1e-9 else step + self.STEP_S)
            for index, power in enumerate(watts):
                self.joules[index] += power * (until - self.now_s)
            self.now_s = until
            if abs(until / self.STEP_S - round(until / self.STEP_S)) < 1e-6:
                self.shown = list(self.joules)

    def read(self, index: int) -> float:
        self.passes(1e-5, 10, 1)
        range_j = self.counters[index].range_j
        return self.shown[index] if range_j is None else self.shown[index] % range_j

    def measured(self) -> Energy:
        return energy_of(
            self.counters,
            lambda: self.passes(0.004, 50, 5),
            lambda: None,
            Silent(),
            lambda: self.now_s,
            lambda seconds: self.passes(seconds, 10, 1),
        )


@pytest.mark.parametrize("ranges", [(None, None), (15.0, 1.5)])
def test_known_powers_come_out_as_exactly_as_the_counters_steps_allow(
    ranges: tuple[float | None, float | None],
) -> None:
    """4 ms at 50 W and 5 W; also with counters that begin anew every 0.3 s."""
    pytest.importorskip("zeus.device")
    found = Machine(ranges).measured()
    assert found.forward_j == pytest.approx(0.220, rel=0.01)
    assert found.low_j < 0.220 < found.high_j
    assert found.high_j - found.low_j < 0.03 * found.forward_j
    assert found.parts_j == pytest.approx({"package": 0.200, "DRAM": 0.020}, rel=0.01)
    assert found.power_w == pytest.approx(55, rel=0.01)
    assert found.idle_w == pytest.approx(11, rel=0.01)
    assert found.forward_s == pytest.approx(0.004, rel=0.001)
    assert found.step_s == pytest.approx(Machine.STEP_S, rel=0.05)
    assert found.window_s >= energy.LEAST_WINDOW_S
    assert found.forwards == found.windows * 50


def test_a_counter_that_stands_still_is_none() -> None:
    machine = Machine()
    machine.counters = [Counter("package", lambda: machine.read(0) * 0)]
    with pytest.raises(NoCounterError, match="package does not move"):
        machine.measured()


def with_energy(**changes: Any) -> Profile:
    """10 ms at 50 W, of which 10 W are idle."""
    figures: dict[str, Any] = {
        "forward_j": 0.5,
        "low_j": 0.49,
        "high_j": 0.51,
        "parts_j": {"package-0": 0.4, "DRAM of package-0": 0.1},
        "power_w": 50.0,
        "forward_s": 0.01,
        "idle_w": 10.0,
        "windows": 5,
        "forwards": 100,
        "window_s": 0.2,
        "step_s": 0.001,
        "counters": "package-0, DRAM of package-0, found by zeus",
    }
    return layered().model_copy(update={"energy": Energy(**{**figures, **changes})})


def test_a_layer_has_what_conservation_leaves_open() -> None:
    """The model itself takes 5 % of the time: 25 mJ, and idle power at least, as all others."""
    layer = by_layer(with_energy())[0]
    assert (layer.share, layer.joules) == pytest.approx((0.05, 0.025))
    assert layer.low == pytest.approx(10 * 0.0005)
    assert layer.high == pytest.approx(0.51 - 10 * 0.0095)
    capped = by_layer(with_energy(limit_w=120.0))[0]
    assert capped.high == pytest.approx(120 * 0.0005)
    every = by_layer(with_energy())
    assert sum(layer.joules for layer in every) == pytest.approx(0.5, rel=0.01)
    assert all(layer.low <= layer.joules <= layer.high for layer in every)
    # A machine that always draws the same leaves nothing open but the measurement's own interval.
    known = by_layer(with_energy(idle_w=50.0))[0]
    assert (known.low, known.high) == pytest.approx((0.0245, 0.035))


def test_reports_say_the_energy_and_old_records_say_none() -> None:
    record = with_energy()
    assert Profile.model_validate_json(record.model_dump_json()) == record
    for name in ("screen", "txt", "md", "html"):
        said = reporters.render(name, record)
        assert "Energy: 500 mJ [490, 510] a forward (mean, 95 % interval), 250 mJ an image" in said
        assert "at 50.0 W; idle 10.0 W" in said
    (metric,) = [one for one in of(bundled(record)).metrics if one.key == "energy"]
    assert (metric.label, metric.unit) == ("≈ Energy", "joules")
    # The model's own 5 % of the time, and between what that lies; all own parts are the whole.
    assert (metric.own[0], *metric.own_between[0]) == pytest.approx((0.025, 0.005, 0.415))
    assert sum(metric.area) == pytest.approx(metric.values[0]) == pytest.approx(0.5, rel=0.01)
    header, whole = reporters.render("csv", record).splitlines()[:2]
    cells = dict(zip(header.split(","), whole.split(","), strict=False))
    assert "energy_per_image_j" in cells
    assert "nergy" not in reporters.render("txt", layered())
    assert "energy" not in layered().model_dump_json()


def test_processes_are_put_together() -> None:
    one, other = with_energy().energy, with_energy(forward_j=0.7, low_j=0.6, high_j=0.8).energy
    both = energy_together([one, other])
    assert both
    assert (both.forward_j, both.low_j, both.high_j) == pytest.approx((0.6, 0.49, 0.8))
    assert (both.windows, both.forwards) == (10, 200)
    assert energy_together([one, None]) is energy_together([]) is None


def test_a_profile_has_the_energy_of_its_forwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way, on this machine's own clock."""
    pytest.importorskip("zeus.device")
    counter = Counter("package-0", lambda: 30 * time.perf_counter())
    monkeypatch.setattr(energy, "counters", lambda _: (counter,))
    monkeypatch.setattr(energy, "LEAST_WINDOW_S", 0.02)
    record = layerbench.profile(
        Small(), torch.rand(2, 3, 8, 8), energy=True, warmup=0, iterations=3, ceilings=False
    )
    assert record.energy
    assert record.energy.parts_j == {"package-0": pytest.approx(record.energy.forward_j)}
    shares = [layer.share for layer in by_layer(record)]
    assert sum(shares) == pytest.approx(1)
    assert sum(layer.joules for layer in by_layer(record)) == pytest.approx(record.energy.forward_j)
    assert record.plan.energy
    assert "Energy:" in reporters.render("screen", record)


class Stub:
    """A device of a kind, by name alone."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.torch_device = torch.device(kind, 1)


@pytest.mark.usefixtures("powercap")
def test_a_gpu_is_read_by_its_number_and_an_old_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through zeus's interface, in its unit: millijoules and milliwatts."""

    class Gpus:
        has_counter = True

        def supports_get_total_energy_consumption(self, index: int) -> bool:
            return self.has_counter and index == 1

        def get_total_energy_consumption(self, index: int) -> int:
            return 1_500_000 * index

        def get_power_management_limit(self, index: int) -> int:
            return 700_000 * index

    gpus = Gpus()
    monkeypatch.setattr("zeus.device.get_gpus", lambda: gpus)
    device: Any = Stub("cuda")
    (found,) = counters(device)
    assert (found.name, found.read(), found.limit_w) == ("GPU 1", 1500.0, 700.0)
    Gpus.has_counter = False
    with pytest.raises(NoCounterError, match="before Volta"):
        counters(device)
    other: Any = Stub("xpu")
    with pytest.raises(NoCounterError, match="no counter of energy is known for xpu"):
        counters(other)


@pytest.mark.usefixtures("powercap")
def test_the_parts_of_a_chip_that_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    apple = pytest.importorskip("zeus.device.soc.apple")
    seen = apple.AppleSiliconMeasurement(cpu_total_mj=2_000, gpu_mj=0, dram_mj=250)

    class Chip:
        def get_total_energy_consumption(self) -> Any:
            return seen

    monkeypatch.setattr("zeus.device.get_soc", Chip)
    found = counters(devices.get("cpu"))
    assert {c.name: c.read() for c in found} == {"CPU": 2.0, "GPU": 0.0, "DRAM": 0.25}
