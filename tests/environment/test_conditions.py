from __future__ import annotations

import pytest

from layerbench.environment import conditions, watch
from layerbench.environment.conditions import INTERVAL_S, ConditionsWatch
from layerbench.records.conditions import DeviceConditions, DeviceLook, WarmUp
from layerbench.records.environment import DeviceInfo
from layerbench.reporters.documents import shared
from tests.support.sample_profiles import environment

MHZ = 1e6


class Looks:
    """A device that is looked at by a clock of its own."""

    def __init__(self, *looks: DeviceLook | None) -> None:
        self.now = 100.0
        self._looks = iter(looks)
        self.watch = ConditionsWatch(lambda: next(self._looks), lambda: self.now)

    def take(self, count: int) -> DeviceConditions | None:
        for _ in range(count):
            self.watch.take()
            self.now += INTERVAL_S
        return self.watch.conditions()


def test_clock_power_and_temperature_of_all_looks():
    clocks = [1980, 1980, 1965, 1980, 1950]
    looks = [
        DeviceLook(clock * MHZ, 1980 * MHZ, 400.0 + n, 60.0 + n) for n, clock in enumerate(clocks)
    ]
    seen = Looks(*looks).take(5)
    assert seen
    assert seen == DeviceConditions(
        looks=5,
        clock_p5_hz=seen.clock_p5_hz,
        clock_median_hz=1980 * MHZ,
        highest_clock_hz=1980 * MHZ,
        power_w=402,
        temperature_c=64,
    )
    assert seen.clock_p5_hz == pytest.approx(1953 * MHZ)
    assert seen.warning == ""


def test_why_the_clock_was_low_and_for_how_long():
    slow = DeviceLook(1400 * MHZ, 1980 * MHZ, slowed_by=("power cap",))
    hot = slow._replace(slowed_by=("power cap", "thermal slowdown"))
    seen = Looks(slow, slow, hot, DeviceLook(1980 * MHZ, 1980 * MHZ)).take(4)
    assert seen is not None
    assert seen.slowed_by == {"power cap": 0.75, "thermal slowdown": 0.25}
    assert seen.warning.startswith(
        "The accelerator's clock was 1400 MHz, 71 % of its highest (power cap, thermal slowdown):"
    )


@pytest.mark.parametrize(("clock", "warned"), [(1882, False), (1881, False), (1880, True)])
def test_a_clock_below_95_percent_of_the_highest_is_a_warning(clock, warned):
    seen = Looks(DeviceLook(clock * MHZ, 1980 * MHZ)).take(1)
    assert bool(seen.warning) is warned


def test_a_device_that_tells_nothing_has_no_conditions():
    assert Looks(None, None).take(2) is None
    assert Looks(DeviceLook(power_w=3.0)).take(1) == DeviceConditions(looks=1, power_w=3)


def test_it_is_looked_at_now_and_then_only():
    device = Looks(*[DeviceLook(MHZ)] * 2)
    for _ in range(100):
        device.watch.take()
    device.now += INTERVAL_S
    device.watch.take()
    assert device.watch.conditions().looks == 2


def test_of_a_long_measurement_all_parts_weigh_alike(monkeypatch):
    monkeypatch.setattr(conditions, "MOST_LOOKS", 8)
    device = Looks(*[DeviceLook(MHZ)] * 40, *[DeviceLook(2 * MHZ)] * 40)
    seen = device.take(80)
    assert 4 < seen.looks <= 8
    assert seen.clock_median_hz in (MHZ, 1.5 * MHZ, 2 * MHZ)
    assert device.watch.conditions().clock_p5_hz == MHZ


def test_the_environment_of_a_measurement_has_them():
    looks = [DeviceLook(1000 * MHZ, 2000 * MHZ)]
    began = watch.watch(
        DeviceInfo(kind="cuda", name="GPU", slug="gpu"),
        threads=1,
        interop_threads=1,
        look=lambda: looks[0],
        pause=lambda _: None,
    )
    began.conditions.take()
    began.conditions.add_warm_up(WarmUp(rounds=40, seconds=1.2, steady=True))
    environment = began.finish()
    assert environment.conditions
    assert environment.conditions.clock_median_hz == 1000 * MHZ
    assert environment.warm_up == began.conditions.warm_up
    assert "50 % of its highest" in environment.warnings[0]
    written = environment.model_dump_json()
    assert type(environment).model_validate_json(written) == environment


@pytest.mark.parametrize(
    ("steady", "said"),
    [
        ((True, True, True), "warm-up 2.500 s (90 rounds), the longest of 3"),
        (
            (True, False, False),
            "warm-up 2.500 s (90 rounds), the longest of 3; at the end of 2 of them times still "
            "changed",
        ),
        ((False,), "warm-up 1.200 s (40 rounds), when times still changed"),
    ],
)
def test_several_warm_ups_are_the_longest_and_as_steady_as_all(steady, said):
    figures = [(40, 1.2), (90, 2.5), (50, 1.4)]
    taken = [
        WarmUp(rounds=rounds, seconds=seconds, steady=one)
        for (rounds, seconds), one in zip(figures, steady, strict=False)
    ]
    room = ConditionsWatch()
    for one in (None, *taken):
        room.add_warm_up(one)
    together = room.warm_up
    assert together is not None
    assert together.steady is all(steady)
    assert WarmUp.together([WarmUp.together(taken[:2]), *taken[2:]]) == together
    assert WarmUp.model_validate_json(together.model_dump_json()) == together
    assert shared.conditions(environment(warm_up=together)) == said


def test_of_a_cpu_nothing_of_it_is_written():
    cpu = DeviceInfo(kind="cpu", name="CPU", slug="cpu")
    environment = watch.watch(cpu, threads=1, interop_threads=1, pause=lambda _: None).finish()
    assert not {"conditions", "warm_up"} & set(environment.model_dump())
