"""``layerbench profile`` as a user meets it."""

from __future__ import annotations

import sys

import pytest

import layerbench
from layerbench import cli
from layerbench.store import reading
from tests.support.paths import ROOT

QUICK = ["--warmup", "0", "--iterations", "2", "--device", "cpu", "--threads", "1"]
NAMED = ["tests/models.py:small", "2x3x16x16"]


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(*arguments)``: status, what was printed, what was complained about."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["layerbench", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return run


def test_one_report_of_all_three(call, tmp_path):
    status, out, err = call(
        "profile", *NAMED, *QUICK, "--no-ceilings", "--out", str(tmp_path), "--format", "txt,json"
    )
    assert (status, err) == (0, "")
    text, record = sorted(tmp_path.rglob("*.*"), reverse=True)
    assert out.splitlines() == [str(text), str(record)]
    assert record.name == "tests-models-small_2x3x16x16_1-thread_joined.json"
    held = reading.read(record, layerbench.Bundle)
    assert held.parts().keys() == {"profile", "structure", "memory"}
    assert held.absent == {}
    assert text.read_text().startswith("tests/models.py:small on 2x3x16x16: time, structure and")

    status, out, err = call("export", str(record), "--format", "screen", "--sort", "memory")
    assert status == 0
    assert "Most memory: " in out
    page = tmp_path / "page.html"
    status, out, err = call("report", str(record), "-o", str(page))
    assert (status, err) == (0, "")
    assert '"self_at_peak"' not in page.read_text()
    assert "of tensors alive, reached in" in page.read_text()


def test_a_model_or_input_said_twice_is_refused(call):
    for twice in (["--model", "resnet18"], ["--input", "pascal"]):
        status, out, err = call("profile", *NAMED, *QUICK, *twice)
        assert (status, out) == (2, "")
        assert f"once: {NAMED[twice[0] == '--input']}, or {' '.join(twice)}" in err


def test_mem_takes_them_by_place(call):
    status, out, _ = call("mem", *NAMED, "--struct")
    assert status == 0
    assert out.startswith("tests/models.py:small on 2x3x16x16: structure\n")
