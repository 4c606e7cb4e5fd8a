"""What several processes measured becomes one record."""

from __future__ import annotations

import numpy as np
import pytest

from layerbench.analysis.aggregation import assemble
from layerbench.records.conditions import DeviceConditions
from layerbench.records.samples import Run, RunFacts
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
