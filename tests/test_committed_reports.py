"""The reports in the repository: they lie where they should, and the README shows them.

That they say what comes out today, test_static.py holds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbench import reporters
from layerbench.cli.table import whole_records
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.reporters.result_table import update_markers
from layerbench.store import paths, reading, writing
from tests.support.paths import ROOT

FOLDERS = (ROOT / "stats", ROOT / "cpu" / "stats")
RECORDS = sorted(path for folder in FOLDERS for path in folder.rglob("*.json"))
STRUCTURES = sorted((ROOT / "model_structures").glob("*.json"))
MEMORY_REPORTS = sorted((ROOT / "memory_reports").glob("*.json"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", ["stats.sh", "cpu/stats.sh"])
def test_every_line_of_a_script_has_its_reports(script: str) -> None:
    runs = [
        {name: words[words.index(name) + 1] for name in words[2:] if name.startswith("--")}
        for line in (ROOT / script).read_text(encoding="utf-8").splitlines()
        if (words := line.split()) and words[:2] == ['"$PYTHON"', "timer.py"]
    ]
    assert runs
    for run in runs:
        threads = f"_{run['--threads']}-thread" if "--threads" in run else ""
        stem = f"{run['--model']}_{run['--input']}{threads}"
        name, sentences = f"{stem}.json", f"{stem}.sentences.txt"
        for place in (f"*/{name}", f"*/layers/{name}", f"*/layers/{sentences}"):
            assert list((ROOT / run["--out"]).glob(place)), f"{script}: no {place}"


@pytest.mark.parametrize("script", ["summary.sh", "mem_report.sh"])
def test_every_line_of_a_script_on_memory_has_its_report(script: str) -> None:
    lines = [
        line.split()
        for line in (ROOT / script).read_text(encoding="utf-8").splitlines()
        if line.startswith('"$PYTHON"')
    ]
    assert len(lines) == 10
    for words in lines:
        value = {name: words[words.index(name) + 1] for name in ("--model", "--input", "--out")}
        path = ROOT / value["--out"] / f"{value['--model']}_{value['--input']}.json"
        assert path in STRUCTURES + MEMORY_REPORTS


@pytest.mark.parametrize("path", [*RECORDS, *STRUCTURES, *MEMORY_REPORTS], ids=name_of)
def test_text_beside_a_record_is_what_the_record_renders_to(
    path: Path, request: pytest.FixtureRequest
) -> None:
    record = reading.read(path)
    if request.config.getoption("--overwrite"):  # after a change to a reporter
        writing.write_text(path, reporters.render("json", record))
        writing.write_text(path.with_suffix(".txt"), reporters.render("txt", record))
        if path.with_suffix(".sentences.txt").exists():
            said = reporters.render("sentences", record)
            writing.write_text(path.with_suffix(".sentences.txt"), said)
    assert path.read_text(encoding="utf-8") == reporters.render("json", record)
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == reporters.render("txt", record)


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_a_record_lies_where_its_content_says_and_was_taken_in_full(path: Path) -> None:
    record = reading.read(path)
    is_whole = path.parent.name != "layers"
    out = path.parents[1] if is_whole else path.parents[2]
    places = paths.places(record, out)
    assert path == (places.whole if is_whole else places.layers).with_suffix(".json")
    assert (record.plan.warmup, record.whole.n) == (25, 300 * record.plan.processes)
    assert (record.layers == ()) == is_whole
    assert record.reconciliation is not None
    assert record.reconciliation.self_sum_ratio == 1
    assert record.environment.software.dirty is False
    assert not any(str(root) in path.read_text(encoding="utf-8") for root in (ROOT, Path.home()))


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_agree_with_the_records(page: str) -> None:
    document = ROOT / page
    text = document.read_text(encoding="utf-8")
    made = update_markers(
        text, lambda names: whole_records([document.parent / name for name in names])
    )
    assert made == text, f"run: python -m layerbench table --readme {page}"


@pytest.mark.parametrize("path", STRUCTURES, ids=name_of)
def test_a_structure_lies_where_its_content_says(path: Path) -> None:
    record = reading.read(path)
    assert isinstance(record, Structure)
    assert paths.place(record, path.parent).with_suffix(".json") == path


@pytest.mark.parametrize("path", MEMORY_REPORTS, ids=name_of)
def test_a_memory_report_adds_up_and_was_taken_from_a_commit(path: Path) -> None:
    record = reading.read(path)
    assert isinstance(record, MemoryReport)
    assert paths.place(record, path.parent).with_suffix(".json") == path
    held = sum(row.self_at_peak or 0 for row in record.rows)
    assert record.resident_bytes + record.outside_bytes + held == record.peak.bytes
    assert record.environment.software.dirty is False
    assert not any(str(root) in path.read_text(encoding="utf-8") for root in (ROOT, Path.home()))


LAYERS = [path for path in RECORDS if path.parent.name == "layers"]


@pytest.mark.parametrize("path", LAYERS, ids=name_of)
def test_verdicts_name_rows_of_one_per_cent_alone(path: Path) -> None:
    record = reading.read(path)
    assert isinstance(record, Profile)
    text = path.with_suffix(".txt").read_text(encoding="utf-8")
    verdicts = text.partition("\nVerdicts\n")[2].partition("\n\n")[0]
    doubtful = {row.path: row.inclusive for row in record.layers if row.block and row.inclusive}
    doubtful = {name: time for name, time in doubtful.items() if time.missed}
    large = {n for n, time in doubtful.items() if time.mean >= 0.01 * record.base.mean}
    named = {name for name in doubtful if f"{name} (" in " ".join(verdicts.split())}
    assert named == large
    rest = len(doubtful) - len(large)
    assert ("of less than 1 % each not stable either." in verdicts) == (rest > 0)


def test_the_layers_of_mobilenet_v2_are_a_report_of_300_lines() -> None:
    reports = [path.with_suffix(".txt") for path in LAYERS if "mobilenet_v2" in path.name]
    assert len(reports) > 3
    for report in reports:
        assert len(report.read_text(encoding="utf-8").splitlines()) <= 300
