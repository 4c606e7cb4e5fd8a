"""Traces and flame graphs of a profile: valid, nested, and adding up to the record's means."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest

from layerbench import cli, reporters
from layerbench.analysis.views import finest
from layerbench.errors import UsageError
from layerbench.reporters import formatting
from layerbench.reporters.spans import spans
from layerbench.store import reading
from tests.support.paths import ROOT
from tests.support.sample_bundles import whole as bundle
from tests.support.sample_devices import launch_bound
from tests.support.sample_profiles import layered, on_gpu, whole
from tests.support.sample_structures import counted

RECORD = next(iter(sorted((ROOT / "stats").glob("*/layers/mobilenet_v2_pascal*.json"))))


def schema(name: str):
    return json.loads((ROOT / "tests" / "data" / f"{name}.schema.json").read_text(encoding="utf-8"))


def records():
    return [layered(), on_gpu(), reading.read(RECORD)]


@pytest.mark.parametrize("record", records(), ids=["layered", "on_gpu", "committed"])
@pytest.mark.parametrize(
    ("format", "name"), [("trace", "trace-event"), ("speedscope", "speedscope")]
)
def test_what_is_written_is_valid(record, format, name):
    jsonschema.validate(json.loads(reporters.render(format, record)), schema(name))


def test_the_schemas_refuse_something():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"traceEvents": [{"name": "x", "ph": "X"}]}, schema("trace-event"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"profiles": []}, schema("speedscope"))


def test_of_a_bundle_the_profile_is_written_by_formats_for_profiles_alone(tmp_path):
    for name in ("trace", "speedscope", "latex", "sentences"):
        assert reporters.render(name, bundle()) == reporters.render(name, bundle().profile)
    assert bundle().save(tmp_path / "a.tex").read_text() == reporters.render("latex", counted())
    with pytest.raises(
        UsageError, match="the format trace is for time profiles and training steps only"
    ):
        reporters.render("trace", bundle().model_copy(update={"profile": None}))


@pytest.mark.parametrize("record", records(), ids=["layered", "on_gpu", "committed"])
def test_spans_nest_and_follow_each_other(record):
    stack = []
    for span in spans(record):
        while stack and stack[-1].row.depth >= span.row.depth:
            stack.pop()
        assert span.start_s <= span.end_s
        if stack:
            assert stack[-1].start_s <= span.start_s
            assert span.end_s <= stack[-1].end_s
        assert not any(
            earlier.end_s > span.start_s for earlier in stack if earlier.row.depth >= span.row.depth
        )
        stack.append(span)


def test_every_timed_row_has_its_mean():
    drawn = {span.row.path: span for span in spans(layered())}
    timed = {row.path: row for row in layered().layers if row.inclusive}
    assert drawn.keys() == timed.keys()
    for path, row in timed.items():
        assert drawn[path].end_s - drawn[path].start_s == pytest.approx(row.inclusive.mean)


def test_what_a_container_holds_that_is_never_called_is_drawn_below_its_parent():
    """As the layers of an FPN, in a `torch.nn.ModuleList`."""
    record = layered()
    rows = tuple(
        row.model_copy(update={"inclusive": None, "self_": None, "calls": 0})
        if row.path == "features"
        else row
        for row in record.layers
    )
    before = {span.row.path: span for span in spans(record)}
    after = {span.row.path: span for span in spans(record.model_copy(update={"layers": rows}))}
    assert before.keys() - after.keys() == {"features"}
    assert all(after[path].start_s == before[path].start_s for path in ("features.0", "features.2"))


def test_speedscope_events_are_a_bracket_sequence_in_order_of_time():
    profile = json.loads(reporters.render("speedscope", reading.read(RECORD)))["profiles"][0]
    open_frames, at = [], 0.0
    for event in profile["events"]:
        assert event["at"] >= at
        at = event["at"]
        if event["type"] == "O":
            open_frames.append(event["frame"])
        else:
            assert open_frames.pop() == event["frame"]
    assert open_frames == []
    assert at == profile["endValue"]


@pytest.mark.parametrize("format", ["trace", "speedscope"])
def test_a_record_without_layers_says_what_to_take(format):
    with pytest.raises(UsageError, match="layers/"):
        reporters.render(format, whole())


@pytest.mark.parametrize("format", ["trace", "speedscope", "latex"])
def test_only_profiles_are_drawn(format):
    structure = reading.read(ROOT / "model_structures" / "mobilenet_v2_pascal.json")
    with pytest.raises(UsageError, match="is for time profiles"):
        reporters.render(format, structure)


def test_what_cannot_be_written_is_said_before_measuring():
    reporters.check("trace", profile=True)
    with pytest.raises(UsageError, match="is for time profiles"):
        reporters.check("latex", profile=False)
    reporters.check("latex", profile=False, step=True)
    with pytest.raises(UsageError, match="time profiles only"):
        reporters.check("speedscope", profile=False, step=True)
    with pytest.raises(UsageError, match="--granularity layers"):
        reporters.check("speedscope", profile=True, layers=False)
    reporters.check("latex", profile=True, layers=False)


def test_names_are_text_in_html():
    record = layered()
    rows = list(record.layers)
    rows[2] = rows[2].model_copy(update={"type": "<script>alert(1)</script>"})
    page = reporters.render("html", record.model_copy(update={"layers": tuple(rows)}))
    assert "<script>alert" not in page
    assert "\\u003cscript>alert" in page
    assert "default-src 'none'" in page
    named = record.workload.model_copy(update={"model": "pkg/__init__.py:build"})
    page = reporters.render("html", record.model_copy(update={"workload": named}))
    assert "pkg/__init__.py:build" in page


@pytest.fixture
def export(monkeypatch, capsys):
    """``export(*arguments)``: exit status, what was printed, what was complained about."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["layerbench", "export", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_verb_prints_or_writes(export, tmp_path):
    status, out, _ = export(str(RECORD), "--format", "csv")
    assert status == 0
    assert out.splitlines()[0].startswith("model,input")
    target = tmp_path / "deep" / "x.json"
    status, out, _ = export(str(RECORD), "--format", "trace", "-o", str(target))
    assert (status, out.strip()) == (0, str(target))
    assert json.loads(target.read_text(encoding="utf-8"))["traceEvents"]


def test_a_row_for_each_layer_or_block(export):
    record = reading.read(RECORD)
    leaves = [row for row in finest(record).layers if row.block]
    assert len(leaves) > 150
    text = export(str(RECORD), "--format", "md")[1]
    assert all(f"`{row.path}`" in text for row in leaves)
    assert (
        "`features.17.conv.0.0`" not in export(str(RECORD), "--format", "md", "--rows", "blocks")[1]
    )
    assert export(str(RECORD), "--rows", "some")[0] == 2


def test_a_record_without_layers_is_written_too(export):
    path = next(iter(sorted((ROOT / "stats").glob("*/mobilenet_v2_pascal*.json"))))
    status, out, _ = export(str(path), "--format", "md")
    assert status == 0
    assert out.startswith("### mobilenet_v2")


def test_the_finest_view_leaves_nothing_out_and_counts_nothing_twice():
    record = reading.read(RECORD)
    finer = finest(record)
    assert 0 <= formatting.between_blocks_s(finer) < 0.1 * finer.base.mean
    shown = [row.path for row in finer.layers if row.block]
    assert not any(inner.startswith(f"{outer}.") for outer in shown for inner in shown)
    unchanged = {"block", "position"}
    for before, after in zip(record.layers, finer.layers, strict=True):
        assert before.model_dump(exclude=unchanged) == after.model_dump(exclude=unchanged)


def test_the_verb_complains_in_one_line(export, tmp_path):
    assert export(str(tmp_path / "none.json")) == (
        2,
        "",
        f"error: there is no record {tmp_path / 'none.json'}\n",
    )
    status, _, complaint = export(str(RECORD), "--format", "pdf")
    assert status == 2
    assert "unknown format 'pdf'" in complaint


def test_an_export_beside_records_is_no_record(tmp_path):
    (tmp_path / "x.trace.json").write_text(reporters.render("trace", layered()), encoding="utf-8")
    (tmp_path / "x.json").write_text(reporters.render("json", layered()), encoding="utf-8")
    assert [path.name for path, _ in reading.read_all([tmp_path])] == ["x.json"]


def test_no_torch_is_needed(tmp_path):
    code = (
        "import sys\n"
        f"sys.argv = ['layerbench', 'export', {str(RECORD)!r}, '--format', 'trace', '-o', "
        f"{str(tmp_path / 'x')!r}]\n"
        "from layerbench.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_kernels_are_listed_or_it_is_said_why_there_are_none(export, tmp_path):
    status, out, err = export(str(RECORD), "--format", "txt", "--rows", "blocks", "--kernels")
    assert status == 0
    assert out == RECORD.with_suffix(".txt").read_text(encoding="utf-8")
    assert err == "--kernels has no effect: a CPU has kernels under --compile alone\n"
    path = tmp_path / "x.json"
    path.write_text(reporters.render("json", launch_bound()), encoding="utf-8")
    status, out, err = export(str(path), "--format", "md", "--kernels")
    assert (status, err) == (0, "")
    assert "Kernels, the longest first" in out
