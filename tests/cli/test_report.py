"""``layerbench report`` of a trace: what it writes, prints and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerbench
from layerbench import cli, reporters
from layerbench.profilers.trace_profile import profile_trace
from layerbench.records.trace_profile import TraceProfile
from tests.support.sample_traces import cuda_trace, written


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return written(Path("resnet.pt.trace.json.gz"), cuda_trace())


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["layerbench", "report", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_a_trace_becomes_a_page(
    trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--from-trace", str(trace)) == 0
    said = capsys.readouterr().out
    page = Path("resnet.html").read_text()
    assert page == reporters.render("html", profile_trace(trace))
    assert said.startswith("Trace resnet.pt.trace.json.gz\n")
    assert said.splitlines()[-1].startswith("resnet.html (")


def test_other_formats_have_other_names(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ending in (("txt", "txt"), ("csv", "csv"), ("md", "md"), ("json", "json")):
        assert run(monkeypatch, "--from-trace", str(trace), "--format", name) == 0
        assert Path(f"resnet.{ending}").exists()
    record = layerbench.read("resnet.json")
    assert isinstance(record, TraceProfile)
    assert record == profile_trace(trace)
    assert run(monkeypatch, "resnet.json", "--format", "txt", "-o", "again.txt") == 0
    assert Path("again.txt").read_text() == Path("resnet.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a record, such as stats/*/layers/X.json, or a trace: --from-trace"),
        (("a.json", "--from-trace", "t.json"), "give either records or --from-trace t.json"),
        (("--from-trace", "nix.json"), "there is no trace nix.json"),
        (("--from-trace", "t.json", "--format", "json"), "t.json is what the report is of"),
        (("--from-trace", "t.json", "--format", "pdf"), "unknown format 'pdf'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = written(Path("t.json"), cuda_trace()).read_bytes()
    assert run(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert Path("t.json").read_bytes() == before
