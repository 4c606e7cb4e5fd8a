"""The first screens of records other than profiles: short, and the answer is the record's."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import layerbench
from layerbench import reporters, units
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Operator, Structure
from layerbench.records.view import View
from layerbench.store import reading
from tests.models import Small
from tests.support.paths import ROOT
from tests.support.sample_structures import structure

CAUTION = "it is only a test"
Make = Callable[[], layerbench.Record]


def screen(record: layerbench.Record, **view: object) -> str:
    return reporters.render("screen", record, View.model_validate(view))


def stored(path: str) -> layerbench.Record:
    (found,) = ROOT.glob(path)
    return reading.read(found)


def predicted() -> MemoryEstimate:
    import torch

    return layerbench.estimate_memory(Small(), torch.zeros(2, 3, 8, 8), gpu_memory="2GiB")


RECORDS: dict[str, Make] = {
    "structure": lambda: stored("model_structures/resnet101_cityscapes.json"),
    "memory": lambda: stored("memory_reports/mobilenet_v2_pascal.json"),
    "memory estimate": predicted,
}


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
    answer = text.splitlines()[2]
    assert answer[:40] in reporters.render("md", record)[:400]


def test_where_it_ran_comes_last(record: layerbench.Record) -> None:
    titles = re.findall(r"^(?! )(?!.*  ).+(?=\n  )", reporters.render("txt", record), re.MULTILINE)
    assert titles[-1] in ("What ran", "Measured on")


def weakened(record: layerbench.Record) -> layerbench.Record:
    """The record with something that weakens its figures."""
    if hasattr(record, "environment") and record.record != "memory":
        environment = record.environment.model_copy(update={"warnings": (CAUTION,)})
        return record.model_copy(update={"environment": environment})
    return record.model_copy(update={"notes": (CAUTION,)})


def test_what_weakens_the_figures_stands_before_them(record: layerbench.Record) -> None:
    lines = screen(weakened(record)).splitlines()
    assert lines[2].startswith(CAUTION)
    assert not any(line.startswith(CAUTION) for line in screen(record).splitlines())


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
    environment = record.environment.model_copy(update={"warnings": (CAUTION,)})
    busy = record.model_copy(update={"environment": environment})
    assert screen(busy) == screen(record)


def test_predicted_memory_says_whether_it_fits() -> None:
    record = RECORDS["memory estimate"]()
    assert isinstance(record, MemoryEstimate)
    text, bounds = screen(record), record.peak_interval
    assert f"Peak {units.mebibytes(record.peak_bytes)} [{units.bytes_(bounds.low)} to " in text
    assert "It fits into 2.00 GiB." in text


def test_a_terminal_shows_it_alone(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from layerbench.cli import _options

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    record = stored("memory_reports/resnet18_pascal.json")
    _options.deliver(record, ["txt"], None)
    shown = capsys.readouterr()
    assert "Tensors before the run" not in shown.out
    assert "--full shows all of it" in shown.err
