from __future__ import annotations

from layerbench.records.conditions import DeviceConditions, WarmUp
from layerbench.reporters.documents import shared
from tests.support.sample_profiles import environment


def test_an_accelerator_while_it_was_measured() -> None:
    measured = environment().model_copy(
        update={
            "warm_up": WarmUp(rounds=412, seconds=1.25, steady=False),
            "conditions": DeviceConditions(
                looks=40,
                clock_p5_hz=1.41e9,
                clock_median_hz=1.755e9,
                highest_clock_hz=1.98e9,
                slowed_by={"power cap": 0.75},
                power_w=699.6,
                temperature_c=71,
            ),
        }
    )
    assert shared.conditions(measured) == (
        "warm-up 1.250 s (412 rounds), when times still changed; "
        "clock 1755 MHz (median; p5 1410 MHz) of at most 1980 MHz; "
        "power cap in 75 % of 40 looks; 700 W; 71 °C"
    )
    assert ("While measured", shared.conditions(measured)) in shared.surroundings(measured)


def test_of_a_cpu_there_is_nothing_to_say() -> None:
    assert shared.conditions(environment()) == ""
    few = environment().model_copy(update={"conditions": DeviceConditions(looks=1, power_w=30)})
    assert shared.conditions(few) == "30 W"
