"""Comparisons made by hand for tests: every verdict, rows on one side only, notes."""

from __future__ import annotations

from layerbench.analysis.comparison import compare
from layerbench.records.comparison import Comparison
from layerbench.records.timing import LayerRow, Profile, Summary
from layerbench.records.workload import Plan
from tests.support.sample_profiles import environment, layered, summary

STEPS = (-2, -1, 0, 1, 2)


def in_processes(ms: float, *, spread: float = 0.004) -> Summary:
    """Five processes whose medians lie ``spread`` apart, relative to the middle one."""
    medians = tuple(round(ms / 1e3 * (1 + step * spread), 10) for step in STEPS)
    return summary(ms, n=1500, median=medians[2], process_medians=medians)


def measured(
    factors: dict[str, float] | None = None,
    *,
    whole: float = 1.0,
    spread: float = 0.004,
    **changes: object,
) -> Profile:
    """The layered sample in five processes, some rows slower or faster by a factor."""
    factors = factors or {}

    def times(row: LayerRow) -> LayerRow:
        if row.inclusive is None:
            return row
        ms = row.inclusive.mean * 1e3 * factors.get(row.path, 1.0)
        return row.model_copy(update={"inclusive": in_processes(ms, spread=spread)})

    record = layered()
    untouched = in_processes(9.9 * whole, spread=spread)
    return record.model_copy(
        update={
            "plan": Plan(processes=5, threads=1),
            "whole": untouched,
            "process_medians": untouched.process_medians,
            "layers": tuple(times(row) for row in record.layers),
            **changes,
        }
    )


def one_slower() -> Comparison:
    """One block 30 % slower, one layer twice as fast, another version of torch, a row renamed."""
    contender = measured({"features.1": 1.3, "classifier": 0.5}, whole=1.09)
    rows = [
        row.model_copy(update={"path": "features.3.conv", "type": "GELU"})
        if row.path == "features.2.conv"
        else row.model_copy(update={"type": "Conv3d", "calls": 2})
        if row.path == "features.0"
        else row
        for row in contender.layers
    ]
    software = contender.environment.software.model_copy(update={"packages": {"torch": "2.9.0"}})
    update = {"layers": tuple(rows), "environment": environment(software=software)}
    return compare(measured(), contender.model_copy(update=update), names=("a.json", "b.json"))


def one_process() -> Comparison:
    """Two records of one process each: nobody knows how far processes lie apart."""
    return compare(layered(), layered(), names=("a.json", "b.json"))


SAMPLES = {"one_slower": one_slower, "one_process": one_process}
