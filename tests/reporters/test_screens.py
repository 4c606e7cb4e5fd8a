"""The first screens of records other than profiles: short, and the answer is the record's."""

from __future__ import annotations

import re

import pytest

import layerbench
from layerbench import reporters, units
from layerbench.records.comparison import Difference
from layerbench.records.detection_estimate import DetectionEstimates
from layerbench.records.detection_run import DetectionRun
from layerbench.records.environment import Machine
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Operator, Structure
from layerbench.records.sweep import Sweep
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_run import TrainingRun
from layerbench.records.training_step import TrainingProfile
from layerbench.records.view import View
from layerbench.reporters import documents, formatting
from tests.support.every_kind import RECORDS, stored
from tests.support.sample_comparisons import one_slower
from tests.support.sample_structures import structure


def screen(record: layerbench.Record, **view: object) -> str:
    return reporters.render("screen", record, View.model_validate(view))


@pytest.fixture(scope="module", params=RECORDS)
def record(request: pytest.FixtureRequest) -> layerbench.Record:
    made = RECORDS[request.param]()
    assert made.record == request.param
    return made


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits(record: layerbench.Record, width: int) -> None:
    lines = screen(record, width=width).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width


def test_no_column_is_empty(record: layerbench.Record) -> None:
    lines = screen(record, width=120).splitlines()
    for at, line in enumerate(lines):
        if set(line) == {"-", " "}:
            cells = [row.split() for row in lines[at + 1 :] if not row.startswith(("By ", "Peak"))]
            filled = [row for row in cells if len(row) == len(lines[at - 1].split())]
            assert not any({*column} == {"-"} for column in zip(*filled, strict=True))


def test_every_format_begins_with_it(record: layerbench.Record) -> None:
    text = screen(record)
    assert reporters.render("txt", record).startswith(text)
    # What ran, or the answer where a record says no more of that than the title.
    answer, ran = text.splitlines()[2:4]
    said = [part for part in re.split(r"  +", ran or answer) if part][-1]
    for name in ("md", "html"):
        assert said[:30] in reporters.render(name, record)


def test_where_it_ran_comes_last(record: layerbench.Record) -> None:
    if record.record in ("cards", "cluster nodes"):
        return  # data sheets and nodes, on which nothing ran
    titles = re.findall(r"^(?! )(?!.*  ).+(?=\n  )", reporters.render("txt", record), re.MULTILINE)
    # Of two predictions, that is how their cards differ.
    last = (
        ("What differs",) if record.record == "latency comparison" else ("What ran", "Measured on")
    )
    assert titles[-1] in last


def test_what_voids_the_figures_stands_before_them() -> None:
    void = "Nothing can be told."
    assert screen(one_slower().model_copy(update={"void": void})).splitlines()[2] == void


def test_a_structure_answers_with_its_totals_and_its_largest_layers() -> None:
    record = RECORDS["structure"]()
    assert isinstance(record, Structure)
    text = screen(record)
    most = max(record.rows, key=lambda row: row.self_flops or 0)
    share = units.percent((most.self_flops or 0) / record.flops, digits=1)
    assert text.splitlines()[2] == (
        f"{units.flops(record.flops)} ({units.macs(record.macs)}) a forward, "
        f"{units.count(record.parameters)} parameters ({units.bytes_(record.parameter_bytes)})"
    )
    assert f"Most FLOPs: {most.path} (Conv2d), {share} of all" in text
    convolutions = [row for row in record.rows if row.type == "Conv2d"]
    together = sum(row.self_flops or 0 for row in convolutions) / record.flops
    assert f"By type   Conv2d ({len(convolutions)}) {units.percent(together, digits=1)}" in text
    assert "  7x7     3x1024x2048→64x512x1024" in text


def test_operators_without_a_formula_are_named_before_the_flops() -> None:
    record = structure(uncounted=(Operator(name="aten.grid_sampler_2d", calls=1, paths=("x",)),))
    assert "the FLOPs leave out" in screen(record).splitlines()[2]


@pytest.mark.parametrize(
    ("view", "says"),
    [
        ({"sort": "params"}, "Most parameters: features.1.conv (Conv2d), 48.7 % of all"),
        ({"type": "Linear"}, "Most FLOPs: classifier (Linear)"),
        (
            {"type": "Dropout"},
            "No layer of type Dropout has any of what layers are sorted by",
        ),
        ({"top": 1}, "By type   Conv2d (3) 100.0 %"),
        ({"depth": 1}, "Most FLOPs: features (Sequential), 100.0 % of all"),
    ],
)
def test_other_layers_of_a_structure(view: dict[str, object], says: str) -> None:
    assert says in screen(structure(), **view)


def test_measured_memory_answers_with_its_peak() -> None:
    record = RECORDS["memory"]()
    assert isinstance(record, MemoryReport)
    text, peak = screen(record), record.peak
    assert text.splitlines()[2] == (
        f"Peak {units.mebibytes(peak.bytes)} of tensors alive, reached in the {peak.phase} of "
        f"BatchNorm2d ({peak.owner})"
    )
    most = max(record.rows, key=lambda row: row.self_at_peak or 0)
    share = units.percent((most.self_at_peak or 0) / peak.bytes, digits=1)
    assert f"Most held at the peak: {most.path} ({most.type}), {share} of the peak" in text
    activations = units.percent(peak.by_category["activations"] / peak.bytes, digits=1)
    assert f"Peak      activations {activations}" in text
    shares = re.findall(r"([\d.]+) %", text[text.index("By type") : text.index("By block")])
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.3)


def test_a_busy_machine_holds_as_many_bytes() -> None:
    record = RECORDS["memory"]()
    assert isinstance(record, MemoryReport)
    environment = record.environment.model_copy(update={"warnings": ("it is only a test",)})
    busy = record.model_copy(update={"environment": environment})
    assert screen(busy) == screen(record)


def test_predicted_memory_says_whether_it_fits() -> None:
    record = RECORDS["memory estimate"]()
    assert isinstance(record, MemoryEstimate)
    text, bounds = screen(record), record.peak_interval
    assert f"Peak {units.mebibytes(record.peak_bytes)} [{units.bytes_(bounds.low)} to " in text
    assert "It fits into 2.00 GiB." in text


def test_a_comparison_answers_with_the_whole_and_its_largest_change() -> None:
    record = one_slower()
    text = screen(record)
    assert f"The whole model is {record.whole.verdict}: 9.90 ms → 10.79 ms, +9.0 % [+8.0" in text
    assert "Rows: 1 SLOWER, 1 FASTER, 6 SAME, 0 UNCLEAR" in text
    called = [row for row in record.rows if row.verdict in ("SLOWER", "FASTER")]
    most = max(called, key=lambda row: abs(row.baseline_s - row.contender_s))
    assert f"Largest change: {most.path} ({most.type}), {most.verdict} by +30.0 %" in text


def test_a_comparison_s_gravest_caution_comes_first() -> None:
    def doubts(*differ: str, notes: tuple[str, ...] = ()) -> list[str]:
        different = [
            Difference(where="environment", what=what, baseline="a", contender="b")
            for what in differ
        ]
        update = {"differences": tuple(different), "notes": notes}
        return documents.cautions(one_slower().model_copy(update=update))

    busy = "When the baseline was measured: the load was 2"
    noisy = "The baseline's whole model is noisy: relative IQR 14 % > 10 %."
    assert doubts("commit", "torch", "threads", "cpu", notes=(noisy, busy)) == [
        busy,
        "the surroundings differ: cpu, threads, torch, commit",
        noisy,
    ]
    assert doubts("commit", notes=(noisy,)) == [noisy, "the code differs: commit"]


def test_a_training_step_answers_with_its_time_its_phases_and_its_slowest_module() -> None:
    record = RECORDS["training profile"]()
    assert isinstance(record, TrainingProfile)
    text = screen(record)
    time = f"{formatting.time(record.step, 'median')} {formatting.interval(record.step)}"
    rate = units.per_second(record.workload.batch / record.step.mean)
    assert f"{time} a step (median, 95 % interval), {rate} images/s: {record.step.verdict}" in text
    backward = next(phase.time for phase in record.phases if phase.name == "backward")
    share = units.percent(backward.mean / record.step.mean, digits=1)
    assert f"Phases    backward {share}, forward" in text
    (slowest,) = record.top(1)
    share = units.percent(slowest.share, digits=1)
    assert f"forward and backward: {slowest.row.path} (Conv2d), {share} of all" in text
    assert "Slowest in forward and backward: fc (Linear)" in screen(record, type="Linear")
    assert "Most kept for the backward: the model itself" in screen(record, sort="memory")


def test_a_training_run_answers_with_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    record = RECORDS["training run"]()
    assert isinstance(record, TrainingRun)
    assert record.best is not None
    accuracy = units.percent(record.best.val_accuracy, digits=2)
    text = screen(record)
    assert f"Outcome   {record.outcome}; best validation accuracy {accuracy}" in text
    assert record.step is not None
    slowest = max(record.phases, key=lambda phase: phase.time.mean)
    share = units.percent(slowest.time.mean / record.step.mean, digits=1)
    assert f"Phases    {slowest.name} {share}" in text
    assert "Besides   validation 8.6 % of the epochs" in text
    assert "Advice    A step waits for data 18 % of its time: try more --workers." in text
    monkeypatch.setattr(Machine, "too_busy", property(lambda _: "Nothing can be told."))
    assert "Advice" not in screen(record)


def test_estimates_answer_with_their_durations() -> None:
    record = RECORDS["training forecast"]()
    assert isinstance(record, TrainingEstimate)
    assert f"Total     {units.duration(record.total.value)} (95 %: " in screen(record)
    detectors = RECORDS["detection estimates"]()
    assert isinstance(detectors, DetectionEstimates)
    quickest = min(detectors.rows, key=lambda row: row.training.value)
    assert f"Training takes {units.duration(quickest.training.value)} (95 %" in screen(detectors)
    assert f": {quickest.model}, the quickest to train" in screen(detectors)


def test_a_sweep_answers_with_the_most_images_a_second() -> None:
    record = RECORDS["sweep"]()
    assert isinstance(record, Sweep)
    best = min(record.points, key=lambda point: point.per_image_s)
    rate = units.per_second(1 / best.per_image_s)
    assert f"{rate} images/s at most: {best.model}" in screen(record)


def test_a_detector_s_run_answers_with_its_bottleneck() -> None:
    record = RECORDS["detection run"]()
    assert isinstance(record, DetectionRun)
    assert record.bottleneck is not None
    share = units.percent(record.bottleneck.shares[record.bottleneck.kind])
    assert f"Verdict   the bottleneck is computing: {share} of a step" in screen(record)


def test_a_long_title_is_wrapped() -> None:
    record = RECORDS["training run"]()
    assert isinstance(record, TrainingRun)
    recipe = record.recipe.model_copy(update={"model": "path.to.my.models:" + "a_model" * 8})
    lines = screen(record.model_copy(update={"recipe": recipe}), width=80).splitlines()
    assert max(map(len, lines)) <= 80


def test_a_terminal_shows_it_alone(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from layerbench.cli import _options

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    record = stored("memory_reports/resnet18_pascal.json")
    _options.deliver(record, ["txt"], None)
    shown = capsys.readouterr()
    assert "Tensors before the run" not in shown.out
    assert "--full shows all of it" in shown.err
