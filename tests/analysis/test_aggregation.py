"""What several processes measured becomes one record."""

from __future__ import annotations

import io
from zipfile import ZipFile

import numpy as np
import pytest

from layerbench.analysis.aggregation import assemble
from layerbench.records.conditions import DeviceConditions, DeviceLook, WarmUp
from layerbench.records.environment import Environment
from layerbench.records.samples import (
    BLOCKED,
    BLOCKED_QUEUE,
    INSTRUMENTED,
    SELF,
    SPAN,
    Run,
    RunFacts,
)
from layerbench.records.workload import Plan, Workload
from tests.support.sample_profiles import environment

WORKLOAD = Workload(model="m", input="own", shape=(1, 3, 8, 8), batch=1)


HIGHEST = 2e9
NONE: tuple[float, ...] = ()


def run(clocks: tuple[float, ...] = NONE, steady: bool = True, others: int | None = None) -> Run:
    """A process that looked at the device as often as there are clocks."""
    looks = tuple(
        DeviceLook(clock, HIGHEST, clock / 1e7, clock / 5e7, ("cap",)) for clock in clocks
    )
    conditions = DeviceConditions.of(looks)
    warning = conditions.warning if conditions else ""
    taken = WarmUp(rounds=len(clocks), seconds=float(len(clocks)), steady=steady)
    quiet = environment()
    facts = RunFacts(
        model_type="M",
        parameters=0,
        modules=(),
        functions=(),
        environment=environment(
            conditions=conditions,
            machine=quiet.machine.model_copy(update={"other_processes_on_device": others}),
            warm_up=taken if clocks else None,
            warnings=(*([warning] if warning else []), "the load was high"),
        ),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
        looks=looks,
    )
    return Run(facts, {"untouched": np.array([1_000, 1_000])})


def assembled(*runs: Run) -> Environment:
    return assemble(WORKLOAD, Plan(processes=len(runs)), runs).environment


FAST, SLOW = (2e9, 2e9, 1.98e9, 2e9), (1e9, 1.2e9)


def test_conditions_are_those_of_all_looks_of_all_processes() -> None:
    several = assembled(run(FAST), run(SLOW), run())
    assert several.conditions == DeviceConditions.of(
        [look for clocks in (FAST, SLOW) for look in run(clocks).facts.looks]
    )
    seen = several.conditions
    assert seen is not None
    assert (seen.looks, seen.clock_median_hz, seen.temperature_c) == (6, 1.99e9, 40)
    assert seen.slowed_by == {"cap": 1.0}
    assert assembled(run(), run()).conditions is None


def test_of_a_low_clock_there_is_one_warning_and_of_some_processes_how_many() -> None:
    all_low = assembled(run(SLOW), run((1.3e9, 1.3e9)))
    assert all_low.warnings[0].startswith("The accelerator's clock was 1250 MHz, 62 %")
    assert all_low.warnings[1:] == ("the load was high",)
    some = assembled(run(FAST), run(SLOW))
    assert some.warnings[0].startswith("In 1 of 2 processes: the accelerator's clock was 1100 MHz")
    assert some.warnings[1:] == ("the load was high",)
    assert assembled(run(FAST)).warnings == ("the load was high",)
    assert assembled(run(SLOW)).warnings == run(SLOW).facts.environment.warnings


def test_a_warm_up_is_the_longest_and_says_how_many_did_not_settle() -> None:
    taken = assembled(run(FAST), run(SLOW, steady=False), run(SLOW, steady=False)).warm_up
    assert taken == WarmUp(rounds=4, seconds=4.0, steady=False, warm_ups=3, unsteady=2)
    assert assembled(run(FAST), run(SLOW)).warm_up == WarmUp(
        rounds=4, seconds=4.0, steady=True, warm_ups=2
    )
    assert assembled(run(FAST)).warm_up == WarmUp(rounds=4, seconds=4.0, steady=True)
    assert assembled(run(), run()).warm_up is None


def test_the_most_other_processes_on_the_device_count() -> None:
    counts = [
        assembled(*(run(others=one) for one in others)).machine.other_processes_on_device
        for others in ((0, 2, 1), (None, 1), (None, 0), (None, None))
    ]
    assert counts == [2, 1, 0, None]


def test_looks_travel_from_one_process_to_another() -> None:
    archive = io.BytesIO()
    sent = run((*FAST, *SLOW))
    with ZipFile(archive, "w") as parts:
        Run.pack([sent], parts)
    with ZipFile(archive) as parts:
        (received,) = Run.unpacked(parts)
    assert received.facts == sent.facts


@pytest.mark.parametrize("slow", [0, 1])
def test_blocked_rounds_that_one_process_lacks_are_missing_for_its_reason(slow: int) -> None:
    runs = []
    for number in range(2):
        of_one = run()
        facts = of_one.facts.model_copy(update={"device_times": "kernels"})
        arrays = {**of_one.arrays, SPAN: np.array([900, 900]), BLOCKED: np.array([950])}
        if number == slow:
            facts = facts.model_copy(update={"absent": {BLOCKED_QUEUE: "it waits"}})
            del arrays[BLOCKED]
        runs.append(Run(facts, arrays))
    record = assemble(WORKLOAD, Plan(processes=2), runs)
    assert record.device_rounds
    assert record.device_rounds.blocked is None
    assert record.absent == {BLOCKED_QUEUE: "it waits"}


def test_what_an_event_costs_is_that_of_the_slowest_process_that_knows() -> None:
    costs = [(1e-6, 1.5e-6), (2e-6, 0.5e-6), (None, None)]
    runs = []
    for event_s, least_s in costs:
        of_one = run()
        update = {"event_s": event_s, "least_event_s": least_s}
        arrays = {**of_one.arrays, INSTRUMENTED: np.array([1000, 1000]), SELF: np.zeros((2, 0))}
        runs.append(Run(of_one.facts.model_copy(update=update), arrays))
    record = assemble(WORKLOAD, Plan(processes=3), runs)
    assert record.reconciliation
    assert record.reconciliation.event_s == 2e-6
    assert record.reconciliation.least_event_s == 1.5e-6
    of_cpu = assemble(WORKLOAD, Plan(), [runs[2]]).reconciliation
    assert of_cpu
    assert "event_s" not in of_cpu.model_dump()
