"""Names that a terminal, an editor or a spreadsheet would obey are shown, not obeyed."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import unicodedata

import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, reporters
from layerbench.cli import _options, _output, _progress
from layerbench.introspection.modules import named_modules
from layerbench.records.timing import Profile
from layerbench.reporters import formatting
from layerbench.reporters.result_table import FORMATS, render_table
from layerbench.store import reading, writing
from layerbench.text import encodable, one_line, shown, visible
from tests.support.sample_profiles import environment, layered
from tests.support.sample_structures import structure

HOSTILE = {
    "escape": "\x1b[2J\x1b]52;c;aGk=\x07",
    "C1": "\x9b31m",
    "NUL": "a\x00b",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "no width": "a\u200bb\ufeff",
    "line separators": "a\u2028b\u2029c\x85d",
    "lines": "a\nb\rc\td\x0be",
    "surrogate": "a\ud800b",
}
PEOPLE = ("txt", "md", "latex", "html")


def renamed(name: str) -> Profile:
    """A profile with a name in every place that has one."""
    record = layered()
    rows = tuple(
        row.model_copy(
            update={"path": f"{row.path}.{name}", "type": name, "note": name, "block": True}
        )
        for row in record.layers[1:]
    )
    return record.model_copy(
        update={
            "model_type": name,
            "workload": record.workload.model_copy(update={"model": name, "input": name}),
            "layers": (record.layers[0], *rows),
            "notes": (name,),
            "absent": {name: name},
            "environment": environment(command=name, warnings=(name,), started=name),
        }
    )


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_print_is_written_out(kind):
    name = HOSTILE[kind]
    found = visible(name)
    assert found.isprintable()
    assert eval(f"'{found}'") == name
    assert visible(found) == found


def test_what_prints_stays():
    for name in ("features.0", "µs ƒ → × 模型 é", "a\\x1b", "", " ", "[b]bold[/b]", "😀"):
        assert visible(name) is name
    assert one_line(" a\n b ", 99) == "a b"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert encodable("a\ud800") == "a\\ud800"


@pytest.mark.parametrize("format", PEOPLE)
@pytest.mark.parametrize("kind", HOSTILE)
def test_reports_for_people_hold_lines_of_what_prints(format, kind):
    plain = reporters.render(format, renamed("name"))
    text = reporters.render(format, renamed(HOSTILE[kind]))
    assert all(line.isprintable() for line in text.split("\n"))
    # Text is wrapped by its length; tables have as many lines as without.
    if format == "latex":
        assert text.count("\n") == plain.count("\n")
    text.encode("utf-8")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_result_tables_hold_lines_of_what_prints(format, kind):
    text = render_table([renamed(HOSTILE[kind])], format=format)
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_record_without_such_names_is_not_copied():
    record = layered()
    assert shown(record) is record
    assert shown(renamed("\x1b")).layers[1].type == "\\x1b"


MARKUP = "x`y</td><img src=a onerror=b>|z](http://there)"


def test_names_are_no_markdown():
    text = reporters.render("md", renamed(MARKUP))
    assert "<img" not in text
    assert "](" not in text.replace("]\\(", "")
    tables = [part.split("\n") for part in text.split("\n\n") if part.startswith("|")]
    assert sum("x3c" in line for table in tables for line in table) > 1
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert all(line.count("`") % 2 == 0 for line in text.split("\n"))
    assert formatting.markdown("a_b [1, 2] 50 % *c*") == "a_b [1, 2] 50 % *c*"


def test_cells_are_no_formulas():
    names = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1")
    for name in names:
        for text in (
            reporters.render("csv", renamed(name)),
            render_table([renamed(name)], format="csv"),
        ):
            cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
            assert f"'{name}" in cells or visible(name) in cells
            assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))], text


# --- what models are made of -----------------------------------------------------------------


def named(name: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model._modules[name] = nn.ReLU()
    model._parameters[name] = nn.Parameter(torch.zeros(1))
    return model


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_model_with_such_names_is_measured_and_its_reports_are_files(tmp_path, kind):
    model = named(HOSTILE[kind])
    found = layerbench.structure(model, torch.zeros(1, 2))
    held = layerbench.memory(model, torch.zeros(1, 2))
    for number, record in enumerate((found, held)):
        for format in ("txt", "md", "csv", "json", "html"):
            writing.write_text(tmp_path / f"{number}{format}", reporters.render(format, record))
        assert reading.read(tmp_path / f"{number}json") == record
    assert [name for name, _ in named_modules(model)][-1] == found.rows[-1].path
    assert list(model._modules)[-1] == HOSTILE[kind]


class Called(nn.Module):
    """A module that holds another one under a name that PyTorch would refuse."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self._modules[name] = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self._name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._modules[self._name](self.first(x)) + x


@pytest.mark.parametrize("name", ["x.y", "..", "add()", "a b", "\u202ea.b"])
def test_a_name_with_a_dot_or_that_of_a_function_loses_no_row(tmp_path, name):
    x, times = torch.zeros(2, 4), {"iterations": 2, "warmup": 1}
    timed = layerbench.profile(Called(name), x, **times)
    step = layerbench.profile_training(Called(name), x, **times)
    for record, rows in ((timed, 6), (step, 5)):
        writing.write_text(tmp_path / "a.json", reporters.render("json", record))
        found = reading.read(tmp_path / "a.json")
        assert found == record
        assert len(getattr(found, "layers", None) or found.rows) == rows
        assert reporters.render("txt", found)


def test_names_without_end_are_cut_and_stay_apart(tmp_path):
    model = nn.Sequential()
    for ending in "ab":
        model._modules["x" * 100_000 + ending] = nn.ReLU()
    model.__class__ = type("y" * 100_000, (nn.Sequential,), {})
    for alias in range(3_000):
        model._modules[f"{alias}" + "z" * 400] = model._modules["x" * 100_000 + "a"]
    record = layerbench.structure(model, torch.zeros(1, 2))
    writing.write_text(tmp_path / "a.json", reporters.render("json", record))
    assert reading.read(tmp_path / "a.json") == record
    assert len({row.path for row in record.rows}) == len(record.rows) == 3
    assert max(len(row.path) for row in record.rows) == 1_000
    assert len(record.model_type) == 4_096


# --- terminals -------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A terminal that keeps what it is told."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("format", ["csv", "json", "trace", "txt"])
def test_a_terminal_is_told_no_character_that_it_obeys(monkeypatch, format):
    text = reporters.render(format, renamed(HOSTILE["C1"] + HOSTILE["right to left"]))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    _options.say(text)
    told = terminal.getvalue()
    assert not [c for c in told if unicodedata.category(c).startswith("C") and c != "\n"]
    monkeypatch.setattr(sys, "stdout", pipe := io.StringIO())
    _options.say(text)
    assert pipe.getvalue() == text


def test_a_progress_bar_takes_names_for_text(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _progress.shown("[/x]", quiet=False) as progress:
        progress.step("[red]\x1b]0;title\x07[/blue]", 1, 2)
    assert "]0;title" not in terminal.getvalue().replace("\\x1b]0;title", "")
    assert "[/x]" in terminal.getvalue()


# As Python has what was no UTF-8 in a file's name; no argument holds a NUL.
FILES = [*(HOSTILE[kind] for kind in HOSTILE if kind not in ("NUL", "surrogate")), "a\udcff"]


@pytest.mark.parametrize("name", FILES)
def test_an_error_is_one_line_of_what_prints(capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["layerbench", "export", f"{name}.json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told[:-1].isprintable()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@pytest.mark.parametrize("output", ["full", "closed"])
def test_output_that_takes_no_more_is_no_traceback(tmp_path, output):
    place = tmp_path / "structure.json"
    writing.write_text(place, reporters.render("json", structure()))
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "layerbench", "export", str(place)],
            stdout=full if output == "full" else writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
        os.close(full)
    if output == "full":
        said = "error: cannot write the output: No space left on device\n"
        assert (done.returncode, done.stderr) == (2, said)
    else:
        assert (done.returncode, done.stderr) == (_output.CLOSED, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_told_where_nobody_listens_goes_nowhere(tmp_path, closed):
    place, page = tmp_path / "structure.json", tmp_path / "page.html"
    writing.write_text(place, reporters.render("json", structure()))
    words = [sys.executable, "-m", "layerbench", "report", str(place), "-o", str(page)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "", *words], capture_output=True, text=True, check=False
    )
    said = str(page) if closed == "2>&-" else ""
    assert (done.returncode, done.stdout[: len(said)], done.stderr) == (0, said, "")
    # Nor does it become part of the next file that is written.
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
