"""Layers under the roofline: known FLOPs and bytes, and the ceilings' own arithmetic."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis import roofline
from layerbench.environment import devices
from layerbench.environment.devices.clocks import ManualClock
from layerbench.errors import ComparisonError, NotEnoughMemory
from layerbench.instruments import ceilings as measuring
from layerbench.profilers import ceilings as once
from layerbench.records.conditions import DeviceLook
from layerbench.records.timing import Profile
from layerbench.records.workload import Plan, Workload
from layerbench.store import reading, writing
from tests.support.sample_profiles import layered
from tests.support.sample_structures import ceilings, structure


def profile(**changes: object) -> Profile:
    return layered().model_copy(update={"ceilings": ceilings(), **changes})


# --- points ---------------------------------------------------------------------------------


def test_known_flops_and_bytes_of_real_layers() -> None:
    """2 k k c_in FLOPs an output element of a convolution, 2 c_in of a linear layer."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10)
    )
    timed = layerbench.profile(model, "2x3x16x16", warmup=0, iterations=1, function_iterations=0)
    conv, linear = roofline.points(timed, layerbench.structure(model, "2x3x16x16"))
    assert (conv.path, conv.type, conv.flops) == ("0", "Conv2d", 2 * 3 * 3 * 3 * (2 * 8 * 16 * 16))
    assert conv.bytes_least == 4 * (2 * 3 * 16 * 16 + 2 * 8 * 16 * 16 + (8 * 3 * 3 * 3 + 8))
    assert (conv.flops, conv.bytes_least) == (221_184, 23_424)
    assert conv.intensity == 221_184 / 23_424
    assert (linear.path, linear.flops) == ("3", 2 * 2048 * (2 * 10))
    assert linear.bytes_least == 4 * (2 * 2048 + 2 * 10 + (2048 * 10 + 10))


def test_rate_roof_and_bound_of_rows_made_by_hand() -> None:
    found = {point.path: point for point in roofline.points(profile(), structure())}
    assert list(found) == ["features.0", "features.1.conv", "features.2.conv", "classifier"]
    twice = found["features.1.conv"]
    time_s = next(row for row in layered().layers if row.path == "features.1.conv").self_.median
    assert twice.time_s == time_s
    # Two calls' inputs and outputs, and the weights once.
    assert twice.bytes_least == 4 * (2 * (4096 + 4096) + 6000)
    assert twice.rate == 2_400_000 / time_s
    assert twice.intensity == 2_400_000 / 89_536
    assert twice.intensity < roofline.ridge(ceilings()) == 50
    assert twice.bound == "memory"
    assert twice.share_of_roof == pytest.approx(2_400_000 / time_s / (2_400_000 / 89_536 * 2e7))
    once = found["features.2.conv"]
    assert once.intensity == 2_400_000 / 56_768
    # The same layer on a device that moves more bytes a second.
    wide = profile(ceilings=ceilings().model_copy(update={"bytes_per_s": 1e9}))
    bound = {point.path: point for point in roofline.points(wide, structure())}["features.2.conv"]
    assert bound.bound == "compute"
    assert bound.share_of_roof == pytest.approx(once.rate / 1e9)


def test_without_ceilings_nothing_is_said_of_a_roof() -> None:
    for point in roofline.points(layered(), structure()):
        assert (point.share_of_roof, point.bound) == (None, None)
        assert point.rate > 0


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2), ("bfloat16", 2), ("float64", 8)])
def test_bytes_follow_the_number_format(dtype: str, size: int) -> None:
    workload = layered().workload.model_copy(update={"dtype": dtype})
    found = roofline.points(profile(workload=workload), structure(workload=workload))
    assert found[-1].bytes_least == size * (2 * 8 + 2 * 10 + 90)


def test_a_layer_with_other_calls_has_no_point() -> None:
    rows = tuple(
        row.model_copy(update={"calls": 3}) if row.path == "classifier" else row
        for row in structure().rows
    )
    found = roofline.points(profile(), structure(rows=rows))
    assert "classifier" not in [point.path for point in found]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "other"}, "model is tiny and the structure's other"),
        ({"shape": (4, 3, 32, 32)}, "shape is 2x3x32x32 and the structure's 4x3x32x32"),
        ({"batch": 4}, "batch is 2 and the structure's 4"),
        ({"dtype": "float16"}, "dtype is float32 and the structure's float16"),
    ],
)
def test_other_work_is_refused(change: dict[str, object], says: str) -> None:
    other = structure(workload=layered().workload.model_copy(update=change))
    with pytest.raises(ComparisonError, match=says) as told:
        roofline.points(profile(), other)
    assert "layerbench mem --struct" in str(told.value)


def test_another_seed_is_the_same_work() -> None:
    other = structure(workload=layered().workload.model_copy(update={"seed": 7}))
    assert roofline.points(profile(), other) == roofline.points(profile(), structure())


def test_it_loads_no_torch() -> None:
    code = (
        "import sys, layerbench.analysis.roofline, layerbench.plots; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- ceilings -------------------------------------------------------------------------------


class Ticking(ManualClock):
    """Every second mark comes a known time after the one before."""

    def __init__(self, nanoseconds: int) -> None:
        super().__init__()
        self.nanoseconds = nanoseconds

    def mark(self) -> int:
        self.advance(self.nanoseconds)
        return super().mark()


def device_with(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> devices.Device:
    device = devices.get("cpu")
    monkeypatch.setattr(type(device), "clock", lambda _: clock)
    return device


def test_rates_are_the_works_over_the_clocks_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**20)
    device = device_with(Ticking(20_000_000), monkeypatch)  # 20 ms, whatever ran
    found = measuring.measure_ceilings(device, "float32")
    assert found.flops_per_s == pytest.approx(2 * 256**3 / 0.02)
    assert found.bytes_per_s == pytest.approx(2 * 2**20 / 0.02)
    assert (found.dtype, found.threads) == ("float32", torch.get_num_threads())
    assert "256 x 256" in found.how
    assert "buffer of 1 MiB" in found.how


def test_ceilings_say_how_an_accelerator_was_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**20)
    device = device_with(Ticking(20_000_000), monkeypatch)
    assert measuring.measure_ceilings(device, "float32").conditions is None
    look = DeviceLook(1400e6, 1980e6)
    monkeypatch.setattr(type(device), "look", lambda _: look)
    seen = measuring.measure_ceilings(device, "float32").conditions
    assert seen is not None
    assert seen.clock_median_hz == 1400e6
    assert seen.warning


class Launching(ManualClock):
    """A mark takes the device 5 µs, as launching does on a GPU."""

    def mark(self) -> int:
        self.advance(5_000)
        return super().mark()


@pytest.mark.parametrize(("copy_ns", "in_a_row"), [(100_000, 16), (1_000_000, 10), (10**7, 1)])
def test_short_copies_follow_one_another_between_two_marks(
    copy_ns: int, in_a_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One alone of 100 µs would be 5 % too slow."""
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**20)
    clock = Launching()
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, _: clock.advance(copy_ns) or target)
    copied = measuring._fastest_copy(device_with(clock, monkeypatch), "float32")
    assert copied.bytes_per_s == pytest.approx(2 * 2**20 / (copy_ns * 1e-9), rel=0.005)
    assert copied.in_a_row == in_a_row


def test_the_buffer_is_larger_than_an_accelerators_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measuring.ACCELERATOR_BUFFER_BYTES >= 8 * 256 * 10**6 * 0.9
    monkeypatch.setattr(measuring, "ACCELERATOR_BUFFER_BYTES", 2**21)
    device, forgotten = device_with(Ticking(20_000_000), monkeypatch), []
    monkeypatch.setattr(type(device), "kind", "xpu")
    monkeypatch.setattr(type(device), "forget_freed", lambda _: forgotten.append(True))
    found = measuring.measure_ceilings(device, "float32")
    assert "copies of a buffer of 2 MiB" in found.how
    assert forgotten == [True]


def test_a_product_grows_until_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**10)
    monkeypatch.setattr(measuring, "MOST_REPEATS", 6)
    sides: list[int] = []
    clock = ManualClock()

    def product(device: object, dtype: str, side: int) -> object:
        def multiply() -> None:
            sides.append(side)
            clock.advance(side**3 // 100)  # 200 FLOPs in a nanosecond

        return multiply

    monkeypatch.setattr(measuring, "_product", product)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, _: clock.advance(1000) or target)
    found = measuring.measure_ceilings(device_with(clock, monkeypatch), "float64")
    assert found.flops_per_s == pytest.approx(2e11)
    assert found.bytes_per_s == pytest.approx(2 * 2**10 / 1e-6)
    assert sides == sorted(sides)
    # 256 takes a fraction of a millisecond; four times that is the most to grow at once.
    assert list(dict.fromkeys(sides)) == [256, 1024]
    assert sides.count(256) == 3


@pytest.mark.parametrize(
    ("side", "took_s", "larger"),
    [(256, 0.0, 1024), (256, 1e-9, 1024), (1024, 0.0099, 1088), (16_000, 0.001, 16_384)],
)
def test_the_next_side(side: int, took_s: float, larger: int) -> None:
    assert measuring._larger(side, took_s) == larger


def test_the_fastest_repetition_counts() -> None:
    clock, times = ManualClock(), iter([5, 3, 4, 9, 8])
    found = measuring.fastest_s(lambda: clock.advance(next(times)), clock, budget_s=0, fewest=5)
    assert found == (pytest.approx(3e-9), 5)


def test_repetitions_end_with_the_budget_or_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_REPEATS", 12)
    clock = ManualClock()
    slow, instant = (lambda: clock.advance(10**8)), (lambda: None)
    assert measuring.fastest_s(slow, clock, budget_s=0.7, fewest=5)[1] == 7
    assert measuring.fastest_s(instant, clock, budget_s=0.7, fewest=5)[1] == 12


def test_random_state_and_gradients_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**10)
    before = torch.get_rng_state()
    measuring.measure_ceilings(device_with(Ticking(20_000_000), monkeypatch), "bfloat16")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_threads_are_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUFFER_BYTES", 2**10)
    device = device_with(Ticking(20_000_000), monkeypatch)
    workload = Workload(model="m", input="1x3x8x8", shape=(1, 3, 8, 8), batch=1)
    before = torch.get_num_threads()
    assert once.ceilings(workload, Plan(threads=1), device).threads == 1
    assert torch.get_num_threads() == before


# --- in the record --------------------------------------------------------------------------


def test_a_profile_has_them_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        once, "measure_ceilings", lambda device, dtype: asked.append(dtype) or ceilings()
    )
    monkeypatch.setattr(once, "_measured", {})
    few = {"warmup": 0, "iterations": 1, "function_iterations": 0}
    model = nn.Linear(8, 4)
    assert layerbench.profile(model, torch.zeros(2, 8), **few, ceilings=False).ceilings is None
    assert layerbench.profile(model, torch.zeros(2, 8), **few, granularity="whole").ceilings is None
    assert asked == []
    for _ in range(2):  # under the same roof
        found = layerbench.profile(model, torch.zeros(2, 8), **few)
        assert found.ceilings == found.without_layers().ceilings == ceilings()
    assert asked == ["float32"]


def test_ceilings_that_cannot_be_measured_do_not_lose_the_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise NotEnoughMemory("no room for a matrix")

    monkeypatch.setattr(once, "measure_ceilings", fails)
    monkeypatch.setattr(once, "_measured", {})
    record = layerbench.profile(nn.Linear(8, 4), torch.zeros(2, 8), warmup=0, iterations=1)
    assert record.absent["ceilings"] == "no room for a matrix"
    assert record.whole.median > 0


def test_a_record_without_ceilings_says_nothing_of_them(tmp_path) -> None:
    assert "ceilings" not in reporters.render("json", layered())
    text = reporters.render("json", profile())
    assert '"ceilings"' in text
    path = tmp_path / "x.json"
    writing.write_text(path, text)
    assert reading.read(path) == profile()
    assert reporters.render("json", reading.read(path)) == text
