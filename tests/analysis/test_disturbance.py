"""What disturbs the host is in no kernel's time, and what disturbs the device in no host time."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from layerbench import reporters
from layerbench.analysis import disturbance
from layerbench.analysis.aggregation import assemble
from layerbench.analysis.comparison import compare, judge
from layerbench.analysis.paired import of_rounds
from layerbench.records import samples
from layerbench.records.comparison import Comparison
from layerbench.records.conditions import DeviceConditions
from layerbench.records.contention import Waits
from layerbench.records.environment import DeviceInfo, Environment
from layerbench.records.samples import RowFacts, Run, RunFacts
from layerbench.records.timing import Profile
from layerbench.records.workload import Plan, Workload
from tests.support.sample_comparisons import in_processes
from tests.support.sample_devices import by_events, compute_bound, launch_bound
from tests.support.sample_profiles import environment, layered

ROUNDS = 40
GPU = DeviceInfo(kind="cuda", name="GPU", slug="gpu")
WORKLOAD = Workload(model="stand-in", input="x", shape=(1, 1), batch=1)
ROWS = ("", "first", "second")
LAUNCHING_NS = 200_000


def on_gpu(others: int | None = None, clock_mhz: float = 1980) -> Environment:
    quiet = environment(
        device=GPU,
        conditions=DeviceConditions(
            looks=9, clock_p5_hz=clock_mhz * 1e6, clock_median_hz=clock_mhz * 1e6,
            highest_clock_hz=1980e6,
        ),
    )  # fmt: skip
    machine = quiet.machine.model_copy(update={"other_processes_on_device": others})
    return quiet.model_copy(update={"machine": machine})


def measured(
    seed: int, *, second: float = 1.0, waited: float = 0.0, busy: bool = False, **room: Any
) -> Run:
    """Rounds whose kernels were seen: 50 us and 100 us; launching takes 200 us.

    Args:
        seed: of the noise, 0.2 %.
        second: factor of the second layer's times, on both clocks.
        waited: share of the host's forwards that waited for a core, for a millisecond.
        busy: the device works for 300 us besides, and never waits for the host.
    """
    draw = np.random.default_rng(seed)

    def noisy(ns: float) -> np.ndarray:
        return np.round(ns * draw.normal(1, 0.002, ROUNDS)).astype(np.int64)

    first, other = noisy(50_000), noisy(100_000 * second)
    rest = noisy(300_000) if busy else np.zeros(ROUNDS, dtype=np.int64)
    span = first + other + rest
    waits = np.where(np.arange(ROUNDS) < waited * ROUNDS, 1_000_000, 0)
    host = noisy(LAUNCHING_NS) + waits
    own = np.stack([rest, first, other], axis=1)
    arrays = {
        samples.UNTOUCHED: span if busy else host,
        samples.HOST + samples.UNTOUCHED: host,
        samples.INSTRUMENTED: host,
        samples.HOST + samples.INSTRUMENTED: host,
        samples.INCLUSIVE: np.stack([span, first, other], axis=1),
        samples.SELF: own,
        samples.HOST + samples.INCLUSIVE: np.stack(
            [host, host // 3, (host * second).astype(np.int64) // 3], axis=1
        ),
        samples.HOST + samples.SELF: np.stack([host // 3] * 3, axis=1),
        samples.SPAN: span,
        samples.IDLE: 0 * span,
        samples.BLOCKED: span[::5],
        samples.WAITED + samples.UNTOUCHED: waits,
        samples.WAITED + samples.INSTRUMENTED: waits,
    }
    facts = RunFacts(
        model_type="StandIn",
        parameters=1,
        modules=tuple(
            RowFacts(
                path=path, type="Layer", kind="module", depth=bool(path), order=order, calls=1,
                block=bool(path), kernels=1,
            )
            for order, path in enumerate(ROWS)
        ),
        functions=(),
        environment=on_gpu(**room),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
        device_times="kernels",
    )  # fmt: skip
    return Run(facts, arrays)


def in_turn(**changes: Any) -> Comparison:
    """The second layer takes twice as long in the contender."""
    pair = (measured(0, **changes), measured(1, second=2.0, **changes))
    sides = [assemble(WORKLOAD, Plan(threads=1), [run]) for run in pair]
    return judge(*sides, of_rounds([pair]), names=("a", "b"))


def verdicts(found: Comparison) -> tuple[dict[str, str], dict[str, str]]:
    return tuple({row.path: row.verdict for row in rows} for rows in (found.rows, found.host_rows))  # type: ignore[return-value]


# --- measured in turn -----------------------------------------------------------------------


def test_a_busy_host_voids_host_times_and_no_kernels() -> None:
    found = in_turn(waited=1.0)
    assert found.void == ""
    assert found.void_in_part.startswith("The host was too busy to be measured on: the whole and")
    assert verdicts(found) == (
        {"first": "SAME", "second": "SLOWER"},
        {"first": "UNCLEAR", "second": "UNCLEAR"},
    )
    assert found.whole.verdict == "UNCLEAR"
    assert found.slower
    text = reporters.render("txt", found).splitlines()
    assert text[0].endswith("UNCLEAR, the host was too busy, some rows SLOWER")
    assert found.void_in_part[:60] in text[2]
    cells = next(csv.DictReader(io.StringIO(reporters.render("csv", found))))
    assert (cells["void"], cells["void_in_part"]) == ("", found.void_in_part)


def test_of_kernels_rounds_in_which_the_host_waited_count() -> None:
    pair = (measured(0, waited=0.45), measured(1, waited=0.45))
    loud = replace(pair[1], arrays=dict(pair[1].arrays))
    times = loud.arrays[samples.INCLUSIVE].copy()
    times[: int(0.45 * ROUNDS)] *= 3  # in the rounds that the host waited in
    of_kernels, without = (
        of_rounds([(pair[0], replace(pair[1], arrays={**pair[1].arrays, samples.INCLUSIVE: own}))])
        for own in (times, pair[1].arrays[samples.INCLUSIVE])
    )
    assert of_kernels.rows["first"].ratio.scale > 5 * without.rows["first"].ratio.scale


def test_a_device_that_never_waits_for_the_host_has_a_whole_of_its_own() -> None:
    found = in_turn(waited=1.0, busy=True)
    assert found.whole.verdict == "SLOWER"
    assert found.void_in_part.startswith(
        "The host was too busy to be measured on: host times hold its waits; device times do not."
    )


def test_others_on_the_device_void_its_times_and_none_of_the_host() -> None:
    found = in_turn(others=2)
    assert found.void == ""
    assert found.void_in_part.startswith(
        "The accelerator was disturbed: 2 other processes used it."
    )
    assert verdicts(found) == (
        {"first": "UNCLEAR", "second": "UNCLEAR"},
        # Of few rounds, how far two copies lie apart on the host is assumed.
        {"first": "UNCLEAR", "second": "SLOWER"},
    )
    title = reporters.render("md", found).splitlines()[0]
    assert title.endswith("UNCLEAR, the accelerator was disturbed, some rows SLOWER")


def test_both_disturbed_void_everything() -> None:
    found = in_turn(others=1, waited=1.0)
    assert "1 other process used it" in found.void
    assert "The host was too busy" in found.void
    assert found.void_in_part == ""
    assert not found.slower


def test_a_quiet_pair_says_nothing_of_it() -> None:
    found = in_turn(others=0)
    assert found.disturbed == ""
    assert verdicts(found)[0] == {"first": "SAME", "second": "SLOWER"}


# --- one profile ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("busy", "verdict", "said"),
    [(False, "noisy", "the whole and host times"), (True, "stable", "host times hold its waits")],
)
def test_verdicts_of_a_profile_on_a_busy_host(busy: bool, verdict: str, said: str) -> None:
    found = assemble(WORKLOAD, Plan(threads=1), [measured(0, waited=1.0, busy=busy)])
    assert found.whole.verdict == verdict
    assert found.whole_host is not None
    assert found.whole_host.missed == ("rounds that waited for a core 100 % > 50 %",)
    assert {row.inclusive.verdict for row in found.layers if row.inclusive} == {"stable"}
    assert found.device_rounds is not None
    assert found.device_rounds.blocked is not None
    assert found.device_rounds.blocked.verdict == "stable"
    text = reporters.render("txt", found)
    assert text.splitlines()[2].startswith("The host was too busy to be measured on:")
    assert said in text.splitlines()[2]
    assert text.count("The host was too busy") == 2  # first, and among the warnings


def busy(record: Profile) -> Profile:
    machine = record.environment.machine.model_copy(
        update={"waits": Waits(rounds=0.9, time=0.6), "threads": 1}
    )
    room = record.environment.model_copy(update={"machine": machine})
    return record.model_copy(update={"environment": room})


@pytest.mark.parametrize(
    ("record", "held"),
    [
        (launch_bound(), "launching"),
        (compute_bound(), "host"),
        (by_events(), "every"),
        (layered(), "every"),
    ],
    ids=["launch-bound", "compute-bound", "by events", "CPU"],
)
def test_which_times_hold_the_waits(record: Profile, held: str) -> None:
    assert disturbance.held_in(record) == held
    assert disturbance.is_void(busy(record)) is (held == "every")
    assert disturbance.too_busy(record) == ""


def test_advice_on_layers_stays_and_that_on_launching_does_not() -> None:
    quiet = launch_bound()
    assert "fewer calls for as much work" in reporters.render("txt", quiet)
    assert "fewer calls for as much work" not in reporters.render("txt", busy(quiet))


# --- two records ----------------------------------------------------------------------------


def in_five(record: Profile, factor: float = 1.0) -> Profile:
    """The same in five processes, whose rows take longer by a factor."""
    whole = in_processes(record.whole.median * 1e3)
    rows = [
        row.model_copy(
            update={
                name: in_processes(time.median * 1e3 * (factor if name == "inclusive" else 1.0))
                for name in ("inclusive", "host_inclusive")
                if (time := getattr(row, name))
            }
        )
        for row in record.layers
    ]
    return record.model_copy(
        update={"whole": whole, "process_medians": whole.process_medians, "layers": tuple(rows)}
    )


@pytest.mark.parametrize("side", ["baseline", "contender"])
def test_a_record_of_a_busy_host_tells_of_its_kernels(side: str) -> None:
    records = {"baseline": in_five(launch_bound()), "contender": in_five(launch_bound(), 1.5)}
    records[side] = busy(records[side])
    found = compare(records["baseline"], records["contender"])
    assert found.void == ""
    assert found.void_in_part.startswith(f"Of the {side}: The host was too busy")
    rows, host_rows = verdicts(found)
    assert rows["features.0"] == "SLOWER"
    assert set(host_rows.values()) == {"UNCLEAR"}
    assert found.whole.verdict == "UNCLEAR"


def test_a_record_by_events_of_a_busy_host_tells_nothing() -> None:
    found = compare(in_five(by_events()), in_five(busy(by_events()), 1.5))
    assert found.void.startswith("Of the contender: The machine was too busy")
    assert not found.slower


@pytest.mark.parametrize(
    ("clocks", "apart", "verdict"),
    [
        ((1980, 1400), 1980 / 1400 - 1, "UNCLEAR"),
        ((1400, 1400), 0.0, "SLOWER"),
        ((1980, 1900), 0.0, "SLOWER"),  # as fast as it may be
    ],
)
def test_a_change_may_be_the_clocks(
    clocks: tuple[float, float], apart: float, verdict: str
) -> None:
    before, after = (
        in_five(launch_bound(), factor).model_copy(update={"environment": on_gpu(clock_mhz=clock)})
        for factor, clock in zip((1.0, 1.3), clocks, strict=True)
    )
    found = compare(before, after)
    assert found.clock_allowance == pytest.approx(apart)
    assert verdicts(found)[0]["features.0"] == verdict
    assert set(verdicts(found)[1].values()) == {"SAME"}
    said = "the accelerator's clock's" in reporters.render("txt", found)
    assert said is (verdict == "UNCLEAR")
