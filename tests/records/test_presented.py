"""How a record shows itself: repr, first screen, notebook, files, data frame, largest layers."""

from __future__ import annotations

import base64
import gzip
import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

import layerbench
from layerbench import reporters
from layerbench.analysis.hotspots import BETWEEN
from layerbench.errors import RecordError, UsageError
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Profile
from layerbench.reporters.html import embedded
from tests.support import sample_runs
from tests.support.every_kind import RECORDS
from tests.support.paths import ROOT
from tests.support.sample_bundles import whole as bundle
from tests.support.sample_profiles import deep, layered, whole
from tests.support.sample_structures import counted, structure

MOBILENET = ROOT / "stats" / "amd-epyc-2c" / "layers" / "mobilenet_v2_pascal.json"
MEMORY = ROOT / "memory_reports" / "mobilenet_v2_pascal.json"
OTHERS = [structure, whole, sample_runs.run, sample_runs.sweep, sample_runs.forecast]


@pytest.mark.parametrize("made", [layered, counted, *OTHERS], ids=lambda made: made.__name__)
def test_a_repr_says_what_it_is_and_how_to_see_more(made) -> None:
    record = made()
    lines = repr(record).splitlines()
    assert 2 <= len(lines) <= 10
    assert max(map(len, lines)) <= 100
    title = reporters.render("screen", record).partition("\n")[0]
    assert lines[0] == f"{type(record).__name__}: {title}"
    assert lines[-1].startswith("More: print()")
    assert str(record) == reporters.render("screen", record).removesuffix("\n")


def test_a_repr_has_the_answer() -> None:
    record = layered()
    assert f"FPS: {record.whole.verdict}" in repr(record)
    assert "Slowest: " in repr(record)
    # A long one no more than that.
    assert len(repr(deep(9, 9, 9))) <= 1000


def test_a_repr_of_what_is_half_made_does_not_fail() -> None:
    assert repr(Profile.model_construct(model_type="Net")).startswith("<Profile with ")
    held = Bundle(profile=layered())
    assert repr(held).splitlines()[0].startswith(("<Bundle with", "Bundle: "))
    assert str(held)


def test_errors_of_a_record_name_the_field_in_few_words() -> None:
    with pytest.raises(ValidationError) as caught:
        Bundle(profile=structure())
    assert "profile" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert layered() == layered()
    assert layered() != whole()


def test_records_load_no_reports() -> None:
    """Their methods find the presenter when they are called."""
    code = (
        "import sys, layerbench.records.bundle, layerbench.store.reading\n"
        "print([n for n in sys.modules if n.startswith('layerbench.reporters')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- a notebook -----------------------------------------------------------------------------


def test_a_notebook_has_the_page_in_a_frame_of_its_own() -> None:
    record = layerbench.read(MOBILENET, Profile)
    markup = record._repr_html_()
    assert len(markup.encode()) <= 350_000
    # What stands before the frame is styles for the frame alone.
    style, _, rest = markup.partition("</style>")
    selectors = re.findall(r"([^{}]+)\{", style.removeprefix("<style>"))
    assert all(one.endswith(" .layerbench") for group in selectors for one in group.split(","))
    frame = re.fullmatch(r"<iframe ([^>]*)srcdoc='([^']*)'></iframe>(.*)", rest, re.DOTALL)
    assert frame is not None
    assert 'sandbox="allow-scripts allow-downloads"' in frame[1]
    packed = re.search(r'atob\("([^"]+)"\)', frame[2])
    assert packed is not None
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == record.to_html()
    assert not re.search(r"\b(?:src|href)=|https?:", frame[2].replace(packed[1], ""))
    assert "Slowest: features.2.conv.0.0" in frame[3]
    assert record._repr_markdown_() == record.to_markdown() == reporters.render("md", record)


def test_no_text_of_a_record_leaves_its_frame() -> None:
    record = layered().model_copy(update={"model_type": "</pre><b>'\"&"})
    assert "<b>" not in embedded.frame(record, "a <b>'", "</pre><b>")


def test_show_prints_the_first_screen_or_all(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    record = counted()
    record.show()
    assert capsys.readouterr().out == reporters.render("screen", record)
    record.show(full=True)
    assert capsys.readouterr().out == reporters.render("txt", record)
    with pytest.raises(UsageError, match="size"):
        record.show(size=3)


# --- files and values -----------------------------------------------------------------------


# Of each kind some columns of its data frame.
COLUMNS = {
    "latency estimate": {"path", "type", "seconds", "own_seconds", "limit", "own_flops"},
    "latency comparison": {"path", "type", "baseline_s", "contender_s", "ratio", "verdict"},
    "card estimates": {"card", "seconds", "images_per_s", "bound", "checked"},
    "cards": {"name", "multiprocessors", "memory_bytes", "fp32_flops", "checked"},
    "structure": {"path", "type", "flops", "own_parameters", "input_shapes"},
    "memory": {"path", "type", "allocated", "self_at_peak"},
    "memory estimate": {"path", "type", "allocated", "self_at_peak"},
    "comparison": {"path", "type", "baseline_s", "contender_s", "ratio", "verdict"},
    "training profile": {"path", "type", "forward_median_s", "backward_median_s", "kept_bytes"},
    "training run": {"epoch", "train_loss", "val_accuracy", "images_per_s"},
    "training forecast": {"epochs", "step_mean_s", "total_s"},
    "cluster nodes": {"host", "address", "devices", "torch", "problem"},
    "device sweeps": {"column", "model", "height", "batch", "median_s", "flops"},
    "sweep": {"model", "height", "batch", "median_s", "flops"},
    "detection run": {"epoch", "loss", "images_per_s", "backward_s"},
    "detection estimates": {"model", "peak_bytes", "training_s", "inference_s"},
    "profile": {"path", "type", "self_median_s", "inclusive_median_s", "self_flops"},
    "bundle": {"path", "type", "self_median_s", "self_flops", "own_parameters", "self_at_peak"},
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_is_read_back_equal_and_has_a_data_frame(kind, tmp_path) -> None:
    record = {**RECORDS, "profile": counted, "bundle": bundle}[kind]()
    assert record.record == kind
    assert layerbench.read(record.save(tmp_path / "record")) == record
    assert type(record).model_validate(record.to_dict()) == record
    frame = record.to_dataframe()
    assert set(frame.columns) >= COLUMNS[kind]
    figures = [name for name in COLUMNS[kind] if name.endswith(("_s", "flops", "at_peak"))]
    assert all(frame[name].dtype.kind in "if" and frame[name].notna().any() for name in figures)


@pytest.mark.parametrize("made", [layered, whole], ids=lambda made: made.__name__)
def test_a_saved_record_is_read_back_equal(made, tmp_path) -> None:
    record = made()
    path = record.save(tmp_path / "new" / "record")
    assert path == tmp_path / "new" / "record.json"
    assert layerbench.read(path) == record
    assert type(record).model_validate(record.to_dict()) == record


def test_the_ending_of_a_path_is_its_format(tmp_path) -> None:
    record = layered()
    for name, format in {
        "a.txt": "txt",
        "a.md": "md",
        "a.trace.json": "trace",
        "a.1.json": "json",
    }.items():
        record.save(str(tmp_path / name))
        assert (tmp_path / name).read_text(encoding="utf-8") == reporters.render(format, record)
    assert record.to_html() == reporters.render("html", record)
    with pytest.raises(UsageError, match=r"ending of a\.pdf: choose from \.csv, \.html"):
        record.save(tmp_path / "a.pdf")
    with pytest.raises(UsageError, match="is a folder: name a file in it"):
        record.save("")
    with pytest.raises(RecordError):
        layerbench.read(tmp_path / "a.txt")


def test_a_data_frame_has_the_rows_of_csv(monkeypatch) -> None:
    record = counted()
    frame = record.to_dataframe()
    text = reporters.render("csv", record).splitlines()
    assert [*frame.columns] == text[0].split(",")
    assert len(frame) == len(text) - 1
    assert frame["path"].tolist()[1:] == [row.path for row in record.layers]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[notebook\]'"):
        record.to_dataframe()


# --- the largest layers ---------------------------------------------------------------------


def test_the_slowest_layers_and_types_of_a_profile() -> None:
    record = layered()
    first, second = record.top(2)
    assert first.median_s >= second.median_s
    assert repr(first).startswith(f"<{first.row.path} {first.row.type}: ")
    assert sum(group.share for group in record.by_type()) == pytest.approx(1)
    assert {spot.row.type for spot in record.top(9, type="Conv2d")} == {"Conv2d"}
    assert BETWEEN in {group.name for group in record.by_type()}
    with pytest.raises(UsageError, match="n must be at least 1, got 0"):
        record.top(0)
    with pytest.raises(UsageError, match="sort takes self, time, flops"):
        record.top(1, sort="age")
    with pytest.raises(UsageError, match="granularity 'layers'"):
        whole().top()


def test_the_largest_layers_of_other_records() -> None:
    shapes = structure()
    most = max(shapes.rows, key=lambda row: row.self_flops or 0)
    (largest,) = shapes.top(1)
    assert (largest.row, largest.value) == (most, most.self_flops)
    assert sum(group.value for group in shapes.by_type()) == sum(
        r.self_flops or 0 for r in shapes.rows
    )
    (largest,) = shapes.top(1, sort="params")
    assert largest.value == max(row.own_parameters for row in shapes.rows)
    memory = layerbench.read(MEMORY)
    (largest,) = memory.top(1)
    assert largest.value == max(row.self_at_peak or 0 for row in memory.rows)
    assert repr(largest) == "<features.2.conv.0.0 Conv2d: 15.3 MiB, 46.2 %>"
    assert repr(memory.by_type()[0]) == "<BatchNorm2d (2): 17.8 MiB, 53.8 %>"
    with pytest.raises(UsageError, match="sorts by memory, params, not by time"):
        memory.top(1, sort="time")
    with pytest.raises(UsageError, match="sweep record has no rows of layers"):
        sample_runs.sweep().by_type()
