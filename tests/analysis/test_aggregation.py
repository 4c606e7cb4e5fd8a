"""What several processes measured becomes one record."""

from __future__ import annotations

import numpy as np
import pytest

from layerbench.analysis.aggregation import assemble
from layerbench.records.conditions import DeviceConditions
from layerbench.records.samples import BLOCKED, BLOCKED_QUEUE, SPAN, Run, RunFacts
from layerbench.records.workload import Plan, Workload
from tests.support.sample_profiles import environment

WORKLOAD = Workload(model="m", input="own", shape=(1, 3, 8, 8), batch=1)


def run(clock_hz: float | None) -> Run:
    conditions = None if clock_hz is None else DeviceConditions(looks=1, clock_median_hz=clock_hz)
    facts = RunFacts(
        model_type="M",
        parameters=0,
        modules=(),
        functions=(),
        environment=environment(conditions=conditions),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
    )
    return Run(facts, {"untouched": np.array([1_000, 1_000])})


@pytest.mark.parametrize(
    ("clocks", "slowest"), [((2e9, 1e9, 3e9), 1e9), ((None, 1e9), 1e9), ((None, None), None)]
)
def test_the_process_with_the_lowest_clock_tells_of_the_device(
    clocks: tuple[float | None, ...], slowest: float | None
) -> None:
    record = assemble(WORKLOAD, Plan(processes=len(clocks)), [run(clock) for clock in clocks])
    conditions = record.environment.conditions
    assert (conditions.clock_median_hz if conditions else None) == slowest


@pytest.mark.parametrize("slow", [0, 1])
def test_blocked_rounds_that_one_process_lacks_are_missing_for_its_reason(slow: int) -> None:
    runs = []
    for number in range(2):
        of_one = run(None)
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
