"""What holds for a record of every kind, in every format: cautions come first, lines fit."""

from __future__ import annotations

import csv
import io
import re

import pytest

import layerbench
from layerbench import reporters
from layerbench.cli import _options
from layerbench.errors import UsageError
from layerbench.records.bundle import Bundle
from layerbench.records.cluster_nodes import ClusterNodes
from layerbench.records.device_sweeps import DeviceSweeps
from layerbench.records.environment import Machine
from layerbench.records.view import View
from layerbench.reporters import documents
from tests.support.every_kind import RECORDS
from tests.support.long_names import with_long_names
from tests.support.sample_bundles import whole
from tests.support.sample_profiles import counted

OF_EACH_KIND = {"profile": counted, **RECORDS, "bundle": whole}
CAUTION = "it is only a test"
VOID = "nothing can be told of it"
# A number that was measured has a unit; shapes, batches and numbers of rounds have none.
FIGURE = re.compile(
    r"\d ?(ns|µs|ms|s|min|h|%|FPS|images/s|[kMGT]?FLOPs|[kMGT]?MACs|[KMGT]iB|B|[kMGT]?B/s)\b(?!\w)"
)
COLUMN = re.compile(r"_s$|_bytes$|flops|parameters|allocated|loss|accuracy|ratio|^bytes$")
# The record itself, field by field; what it is read by puts the cautions first.
AS_IT_IS = ("json",)
# Where the figures begin in formats that write no unit beside them.
_BEGINNINGS = {"latex": "midrule", "trace": '"traceEvents"', "speedscope": '"profiles"'}


@pytest.fixture(scope="module", params=OF_EACH_KIND)
def record(request: pytest.FixtureRequest) -> layerbench.Record:
    made = OF_EACH_KIND[request.param]()
    assert made.record == request.param
    return made


def weakened(record: layerbench.Record) -> layerbench.Record:
    """The record with something that weakens its figures, and nothing else that does."""
    if isinstance(record, Bundle):
        return record.model_copy(update={"profile": weakened(record.profile)})
    if isinstance(record, DeviceSweeps):
        first = record.columns[0]
        column = first.model_copy(update={"sweep": weakened(first.sweep)})
        return record.model_copy(update={"columns": (column,)})
    if isinstance(record, ClusterNodes):
        node = record.nodes[0].model_copy(update={"problem": CAUTION})
        return record.model_copy(update={"nodes": (node,)})
    update: dict[str, object] = {}
    if hasattr(record, "environment") and record.record != "memory":
        update["environment"] = record.environment.model_copy(update={"warnings": (CAUTION,)})
    else:
        update["notes"] = (f"When the baseline was measured: {CAUTION}",)
    if hasattr(record, "differences"):
        update["differences"] = ()
    if getattr(record, "step", None) is not None:
        update["step"] = record.step.model_copy(update={"missed": (), "n": 300})
    if hasattr(record, "points"):
        update["points"] = [point for point in record.points if point.latency.verdict == "stable"]
    if record.record == "detection estimates":
        many = {"step": record.rows[0].step.model_copy(update={"n": 300})}
        update["rows"] = [row.model_copy(update=many) for row in record.rows]
    return record.model_copy(update=update)


def formats_of(record: layerbench.Record) -> list[str]:
    names = []
    for name in reporters.names():
        try:
            kind = record.record
            reporters.check(name, profile=kind == "profile", step=kind == "training profile")
        except UsageError:
            continue
        names.append(name)
    assert {"txt", "md", "html", "csv", "screen"} <= {*names}
    return [name for name in names if name not in AS_IT_IS]


def before_figures(format: str, text: str) -> str:
    """What somebody has read who comes to the first measured figure."""
    if format == "csv":
        row = next(csv.DictReader(io.StringIO(text)))
        figures = next(at for at, name in enumerate(row) if COLUMN.search(name))
        return " ".join([*row.values()][:figures])
    if format in _BEGINNINGS:
        return text[: text.index(_BEGINNINGS[format])]
    if format == "html":
        text = text[text.index("<body>") :]
        text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", " ", text)
    first = FIGURE.search(text)
    assert first, f"no figure in {format}"
    return text[: first.start()]


def test_what_weakens_the_figures_stands_before_the_first_one(record: layerbench.Record) -> None:
    doubtful = weakened(record)
    # Nothing is measured in a list of nodes.
    formats = [] if record.record == "cluster nodes" else formats_of(record)
    for format in formats:
        assert CAUTION in before_figures(format, reporters.render(format, doubtful)), format
    assert any(CAUTION in text for text in documents.cautions(doubtful))


def test_what_voids_the_figures_stands_before_the_first_one(
    record: layerbench.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (hasattr(record, "environment") or record.record in ("comparison", "bundle")):
        pytest.skip("no machine was needed for it")
    if record.record == "memory":
        pytest.skip("a busy machine counts as well as any")
    monkeypatch.setattr(Machine, "too_busy", property(lambda _: VOID))
    if record.record == "comparison":
        record = record.model_copy(update={"void": VOID})
    for format in formats_of(record):
        assert VOID in before_figures(format, reporters.render(format, record)), format


# --- widths --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wordy(record: layerbench.Record) -> layerbench.Record:
    return with_long_names(record)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_terminal_is_wide_enough_for_it(
    wordy: layerbench.Record,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = []
    for colour in ("0", "1"):
        monkeypatch.setenv("NO_COLOR", colour)
        _options.show("txt", wordy)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "\x1b" not in shown[0]
    lines = shown[0].splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= columns


def test_a_pipe_and_a_file_have_lines_of_118_columns(
    wordy: layerbench.Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the command and the sentence, which are there to be copied and searched."""
    _options.show("txt", wordy, View(full=True))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    free = ("Command", "Average execution time")
    lines = [line for line in text.splitlines() if not line.strip().startswith(free)]
    assert max(map(len, lines)) <= 118
