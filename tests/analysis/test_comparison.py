from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from layerbench import reporters
from layerbench.analysis.comparison import check_same_input, compare, judge
from layerbench.analysis.evidence import WHOLES_APART, Estimate, session_allowance
from layerbench.analysis.paired import of_rounds
from layerbench.analysis.ratios import LogRatio
from layerbench.analysis.student_t import quantile
from layerbench.errors import ComparisonError
from layerbench.records import samples
from layerbench.records.comparison import CHANGES, ComparedRow
from layerbench.records.samples import RowFacts, Run, RunFacts
from layerbench.records.workload import Workload
from layerbench.reporters.documents import comparison as report
from layerbench.reporters.html.document import bundled, of
from tests.support.sample_comparisons import in_processes, measured, one_process, one_slower
from tests.support.sample_profiles import environment, layered, summary


def verdicts(comparison):
    return {row.path: row.verdict for row in comparison.rows}


# --- two records ----------------------------------------------------------------------------


def test_a_record_is_the_same_as_itself():
    found = compare(measured(), measured())
    assert found.whole.verdict == "SAME"
    assert set(verdicts(found).values()) == {"SAME"}
    assert not found.slower
    assert (found.added, found.missing, found.differences) == ((), (), ())


def test_what_changed_is_found_and_nothing_else():
    found = one_slower()
    by_path = verdicts(found)
    assert by_path["features.1"] == "SLOWER"
    assert by_path["classifier"] == "FASTER"
    assert {path for path, verdict in by_path.items() if verdict != "SAME"} == {
        "features.1",
        "classifier",
    }
    row = next(row for row in found.rows if row.path == "features.1")
    assert row.ratio == pytest.approx(1.3, rel=1e-3)
    assert row.ratio_low < 1.3 < row.ratio_high
    assert found.slower
    assert found.whole.verdict == "SLOWER"


def test_rows_of_one_side_and_changed_rows_are_named():
    found = one_slower()
    assert found.added == ("features.3.conv",)
    assert found.missing == ("features.2.conv",)
    notes = {row.path: row.note for row in found.rows}
    assert notes["features.0"] == "was Conv2d; calls: 1 before, 2 now"
    differs = {(d.what, d.baseline, d.contender) for d in found.differences}
    assert ("torch", "2.8.0", "2.9.0") in differs
    assert ("torchvision", "0.23.0", "-") in differs


def test_a_change_below_the_threshold_is_none_however_sure():
    quiet = {"spread": 0.0001}
    found = compare(measured(**quiet), measured({"features.1": 1.02}, whole=1.004, **quiet))
    assert set(verdicts(found).values()) == {"SAME"}
    strict = compare(
        measured(**quiet), measured({"features.1": 1.02}, whole=1.004, **quiet), threshold=0.005
    )
    assert verdicts(strict)["features.1"] == "SLOWER"


def test_noise_makes_a_change_unclear():
    noisy = {"spread": 0.1}
    found = compare(measured(**noisy), measured({"features.1": 1.1}, **noisy))
    assert set(verdicts(found).values()) == {"UNCLEAR"}
    assert found.whole.verdict == "UNCLEAR"


def test_one_process_each_says_what_it_does_not_know():
    found = one_process()
    assert found.method == "one process"
    assert set(verdicts(found).values()) == {"UNCLEAR"}
    assert "--processes" in " ".join(found.notes)
    slow = layered().model_copy(update={"whole": in_processes(40.0)})
    assert compare(layered(), slow).whole.verdict == "SLOWER"


@pytest.mark.parametrize(
    ("whole", "block", "expected"),
    [
        (1.4, 1.4, ("UNCLEAR", "UNCLEAR")),
        (2.0, 2.0, ("SLOWER", "UNCLEAR")),
        (0.5, 0.3, ("FASTER", "FASTER")),
        (2.0, 3.5, ("SLOWER", "SLOWER")),
    ],
)
def test_one_process_each_tells_a_model_that_doubled(whole, block, expected):
    before = layered()
    rows = tuple(
        row.model_copy(update={"inclusive": summary(row.inclusive.mean * 1e3 * block)})
        if row.path == "features.1"
        else row
        for row in before.layers
    )
    after = before.model_copy(update={"whole": summary(9.9 * whole), "layers": rows})
    found = compare(before, after)
    assert (found.whole.verdict, verdicts(found)["features.1"]) == expected
    assert {verdict for path, verdict in verdicts(found).items() if path != "features.1"} == {
        "UNCLEAR"
    }
    first = reporters.render("txt", found).split("Baseline", 1)[0]
    assert "--processes 5" in first
    assert "compare --live" in first


def test_processes_are_assumed_as_far_apart_as_they_were_seen():
    """By 9 % in half of the pairs of processes, by 32 % in one of twenty."""
    for share, seen in ((0.5, 1.09), (0.95, 1.32)):
        reach = quantile(share, WHOLES_APART.df) * WHOLES_APART.scale
        assert math.log(seen) <= reach < 1.2 * math.log(seen)


@pytest.mark.parametrize("swapped", [False, True])
def test_one_process_against_several(swapped):
    """However far the several lie apart: their own interval may even hold 0."""
    several = measured(spread=0.1)
    wide = several.whole.model_copy(update={"ci_low": -0.01, "ci_high": 0.03})
    rows = tuple(
        row.model_copy(
            update={"inclusive": row.inclusive.model_copy(update={"ci_low": -1.0, "ci_high": 1.0})}
        )
        if row.inclusive
        else row
        for row in several.layers
    )
    several = several.model_copy(update={"whole": wide, "layers": rows})
    sides = (several, layered()) if swapped else (layered(), several)
    found = compare(*sides)
    assert found.method == "one process"
    assert len(found.rows) == 9
    name = "contender" if swapped else "baseline"
    assert any(f"in one process: the {name}. How" in note for note in found.notes)


def test_a_machine_whose_processes_differ_also_changes_between_runs():
    calm, wild = measured(spread=0.001), measured(spread=0.05)
    assert session_allowance(calm, calm) < 0.01
    assert session_allowance(wild, wild) > 0.05


def test_only_the_whole_can_be_compared_where_there_are_no_layers():
    found = compare(measured().without_layers(), measured())
    assert found.rows == ()
    assert found.whole.verdict == "SAME"
    assert found.added[0] == "features"
    assert "the baseline holds no layers" in " ".join(found.notes).lower()


def test_of_many_rows_on_one_side_some_are_named():
    rows = measured().layers
    more = tuple(rows[-1].model_copy(update={"path": f"extra.{number}"}) for number in range(30))
    found = compare(measured(), measured().model_copy(update={"layers": (*rows, *more)}))
    assert len(found.added) == 30
    for format in ("txt", "md"):
        text = reporters.render(format, found)
        assert "extra.19" in text
        assert "extra.20" not in text
        assert "and 10 more" in text


def test_what_was_wrong_with_a_side_is_said():
    noisy = measured()
    whole = noisy.whole.model_copy(update={"verdict": "noisy", "missed": ("one sample",)})
    found = compare(measured(), noisy.model_copy(update={"whole": whole, "notes": ("see",)}))
    assert "The contender's whole model is noisy: one sample." in found.notes
    assert "Of the contender: see" in found.notes


def test_rows_that_took_no_time_are_left_out():
    record = measured()
    nothing = in_processes(0.0)
    rows = tuple(
        row.model_copy(update={"inclusive": nothing}) if row.path == "classifier" else row
        for row in record.layers
    )
    found = compare(record, record.model_copy(update={"layers": rows}))
    assert "classifier" not in verdicts(found)
    assert "Without a ratio, as some time is 0: classifier." in found.notes


@pytest.mark.parametrize(
    "changes",
    [{"model": "other"}, {"shape": (4, 3, 32, 32), "batch": 4}],
)
def test_different_work_is_refused(changes):
    record = measured()
    other = record.model_copy(update={"workload": record.workload.model_copy(update=changes)})
    with pytest.raises(ComparisonError, match=r"a\.json measured tiny on 2x3x32x32 and b\.json"):
        compare(record, other, names=("a.json", "b.json"))


def test_only_profiles_are_compared():
    with pytest.raises(
        ComparisonError, match=r"b\.json is not a profile: only profiles can be compared"
    ):
        compare(measured(), one_slower(), names=("a.json", "b.json"))


def test_other_precision_is_compared_and_said():
    record = measured()
    half = record.model_copy(
        update={"workload": record.workload.model_copy(update={"dtype": "float16"})}
    )
    found = compare(record, half)
    assert [(d.where, d.what) for d in found.differences] == [("workload", "dtype")]


# --- in turn --------------------------------------------------------------------------------


def run_of(times: np.ndarray, functions: np.ndarray | None = None) -> Run:
    """A model with the layers a and b; ``times`` of shape (rounds, 3), root first, in ns."""
    rows = tuple(
        RowFacts(
            path=path, type="Layer", kind="module", depth=min(i, 1), order=i, calls=1, block=i > 0
        )
        for i, path in enumerate(("", "a", "b"))
    )
    facts = RunFacts(
        model_type="Tiny",
        parameters=1,
        modules=rows,
        functions=(),
        environment=environment(),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
    )
    arrays = {
        samples.UNTOUCHED: times[:, 0],
        samples.INSTRUMENTED: times[:, 0],
        samples.INCLUSIVE: times,
        samples.SELF: times,
        samples.PLACEMENT + samples.UNTOUCHED: np.arange(len(times)) // 25,
        samples.PLACEMENT + samples.INSTRUMENTED: np.arange(len(times)) // 25,
    }
    return Run(facts, arrays)


def drifting_pair(seed: int, factor: float = 1.0) -> tuple[Run, Run]:
    """Both drift together by half; b of the contender takes ``factor`` times as long."""
    draw = np.random.default_rng(seed)
    common = np.linspace(1.0, 1.5, 150) * draw.lognormal(0, 0.05, 150)

    def times(slow: float) -> np.ndarray:
        a, b = (1e6 * common * draw.lognormal(0, 0.01, 150) * f for f in (1.0, slow))
        return np.stack([a + b, a, b], axis=1).astype(np.int64)

    return run_of(times(1.0)), run_of(times(factor))


def judged(pairs):
    record = layered()
    rows = tuple(
        row.model_copy(update={"path": path, "depth": len(path), "block": True})
        for row, path in zip(record.layers[:3], ("", "a", "b"), strict=True)
    )
    profile = record.model_copy(update={"layers": rows})
    return judge(profile, profile, of_rounds(pairs), names=("a", "b"))


@pytest.mark.parametrize("processes", [1, 4])
def test_in_turn_a_common_drift_cancels(processes):
    same = judged([drifting_pair(seed) for seed in range(processes)])
    assert (same.whole.verdict, verdicts(same)) == ("SAME", {"a": "SAME", "b": "SAME"})
    slower = judged([drifting_pair(seed, 1.2) for seed in range(processes)])
    assert verdicts(slower) == {"a": "SAME", "b": "SLOWER"}
    assert slower.whole.ratio == pytest.approx(1.1, rel=0.01)
    assert slower.method == ("live, processes" if processes > 1 else "live, one process")


def test_rounds_that_do_not_match_cannot_be_paired():
    first, _ = drifting_pair(0)
    short = run_of(first.arrays[samples.INCLUSIVE][:100])
    with pytest.raises(ComparisonError):
        of_rounds([(first, short)])


def test_few_rounds_are_no_evidence():
    first, second = drifting_pair(0, 1.2)
    few = [run_of(run.arrays[samples.INCLUSIVE][:9]) for run in (first, second)]
    with pytest.raises(ComparisonError, match="at least 10 rounds"):
        of_rounds([(few[0], few[1])])


def test_in_turn_only_on_the_same_input():
    def workload(size: int) -> Workload:
        return Workload(model="m", input="x", shape=(1, 3, size, size), batch=1)

    check_same_input(workload(8), workload(8), ("a", "b"))
    with pytest.raises(ComparisonError, match="a would run on 1x3x8x8 and b on 1x3x9x9"):
        check_same_input(workload(8), workload(9), ("a", "b"))


def test_the_p_value_is_about_the_margin():
    found = compare(measured(), measured(whole=1.5))
    assert found.whole.p < 1e-6
    assert compare(measured(), measured()).whole.p == pytest.approx(1)


# --- times and change --------------------------------------------------------------------------


def contradicting_pair() -> tuple[Run, Run]:
    """In every round the contender takes 12 % longer, and by the sides' own medians 68 %."""
    number = np.arange(150)
    common = np.where(number < 80, 1.0, 1.5) * np.random.default_rng(3).lognormal(0, 0.01, 150)
    disturbed = np.where((number >= 70) & (number < 80), 1.5, 1.0)
    before = np.stack([common * ns for ns in (3e6, 1e6, 2e6)], axis=1)
    after = 1.12 * before * disturbed[:, None]
    return run_of(before.astype(np.int64)), run_of(after.astype(np.int64))


def agree(before: str, after: str, change: str) -> bool:
    """Whether two printed times, each rounded, can have the printed change."""

    def bounds(text: str) -> tuple[float, float]:
        half = 0.5 * 10.0 ** -len(text.partition(".")[2])
        return float(text) - half, float(text) + half

    (low_before, high_before), (low_after, high_after) = bounds(before), bounds(after)
    printed = float(change.removesuffix(" %")) / 100
    tolerance = 0.0005 + 1e-9
    lowest, highest = low_after / high_before - 1, high_after / low_before - 1
    return lowest - tolerance <= printed <= highest + tolerance


def rows_of_every_report(found) -> Iterator[tuple[str, str, str]]:
    """Baseline, contender and change of each row, as the reports print them."""
    for line in reporters.render("txt", found).splitlines():
        if match := re.search(
            r"(?:SLOWER|FASTER|SAME|UNCLEAR)\s+([\d.]+)\s+([\d.]+)\s+(\S+ %)", line
        ):
            yield match[1], match[2], match[3]
    for line in reporters.render("md", found).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in CHANGES:
            yield cells[3], cells[4], cells[5]
    for row in csv.DictReader(io.StringIO(reporters.render("csv", found))):
        yield row["baseline_s"], row["contender_s"], f"{100 * float(row['ratio']) - 100} %"
    changed = of(bundled(found)).changed
    for before, after, ratio in zip(changed.before, changed.after, changed.ratio, strict=True):
        if ratio is not None:
            yield str(before), str(after), f"{100 * ratio - 100} %"


@pytest.mark.parametrize(
    "found",
    [
        lambda: judged([contradicting_pair()]),
        lambda: judged([drifting_pair(seed, 1.2) for seed in range(4)]),
        one_slower,
        one_process,
        lambda: compare(measured(spread=0.2), measured({"classifier": 0.7}, spread=0.3)),
        lambda: compare(measured(), layered()),
    ],
)
def test_printed_times_and_change_agree(found):
    printed = list(rows_of_every_report(found()))
    assert len(printed) > 6
    assert [row for row in printed if not agree(*row)] == []


def test_digits_show_the_change():
    ratios = (1.0, 0.999, 1.001, 1.012, 1.124, 0.719, 1.7, 30.0)
    levels = (2.7e-8, 9.96e-4, 0.0281, 0.6421, 12.0)
    for ratio, level, scale in product(ratios, levels, (1e-4, 0.01, 0.5)):
        known = Estimate(LogRatio(math.log(ratio), scale, 9), level)
        row = ComparedRow(
            path="", type="T", kind="module", depth=0, p=1, verdict="UNCLEAR", ratio=ratio,
            baseline_s=known.baseline_s, contender_s=known.contender_s,
            ratio_low=ratio / math.exp(scale), ratio_high=ratio * math.exp(scale),
        )  # fmt: skip
        before, after = report.milliseconds(row)
        assert agree(before, after, report.ratio(row))
        assert float(after) / float(before) == pytest.approx(ratio, rel=0.01)


def test_in_turn_the_times_are_apart_by_the_change_and_not_by_their_medians():
    pair = contradicting_pair()
    found = judged([pair]).whole
    own = [float(np.median(run.arrays[samples.UNTOUCHED])) for run in pair]
    assert own[1] / own[0] > 1.6
    assert found.ratio == pytest.approx(1.12, rel=1e-3)
    assert found.contender_s / found.baseline_s == pytest.approx(found.ratio, rel=1e-5)
