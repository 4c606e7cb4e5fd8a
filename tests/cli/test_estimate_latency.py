"""The verb ``estimate latency``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import layerbench
from layerbench import cli
from layerbench.records.latency_estimate import LatencyEstimate

SMALL = ("--model", "squeezenet1_1", "--input", "2x3x64x64", "--quiet")


def estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["layerbench", "estimate", "latency", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, shown.out, shown.err


def test_one_card_has_a_report_and_several_a_table(monkeypatch, capsys, tmp_path: Path) -> None:
    status, text, _ = estimate(monkeypatch, capsys, *SMALL, "--device", "RTX 4090")
    assert status == 0
    assert text.startswith("squeezenet1_1 on 2x3x64x64: a forward predicted for NVIDIA GeForce RTX")
    assert "Layers (predicted)" in text
    words = (*SMALL, "--device", "t4,rtx4090", "--out", str(tmp_path), "--format", "json,html")
    status, text, _ = estimate(monkeypatch, capsys, *words)
    assert status == 0
    assert "a forward predicted for 2 GPUs" in text
    records = [layerbench.read(path) for path in sorted(tmp_path.glob("*.json"))]
    assert [one.card.name for one in records if isinstance(one, LatencyEstimate)] == [
        "rtx4090",
        "t4",
    ]
    assert all("Predicted time" in page.read_text() for page in tmp_path.glob("*.html"))
    assert len([*tmp_path.iterdir()]) == 4


def test_a_card_that_lacks_a_format_has_a_row_that_says_so(
    monkeypatch, capsys, tmp_path: Path
) -> None:
    words = (*SMALL, "--device", "t4,rtx4090", "--precision", "bf16", "--out", str(tmp_path))
    status, text, err = estimate(monkeypatch, capsys, *words, "--format", "json")
    assert (status, err) == (0, "")
    assert "t4: t4 has no bf16 units, and PyTorch emulates it there in float32" in text
    assert "no time for t4, and below stands why" in text
    (path,) = tmp_path.glob("*.json")
    assert "rtx4090" in path.name


def test_a_model_that_has_to_run_for_real_is_one_line(monkeypatch, capsys) -> None:
    words = ("--model", "tests/faulty/formats.py:kept", "--device", "t4", "--quiet")
    status, out, err = estimate(monkeypatch, capsys, *words)
    assert (status, out) == (2, "")
    assert "reads values of its tensors in _Kept (tests/faulty/formats.py:" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say which card, such as --device rtx4090"),
        (["--device", "t5"], "no GPU 't5' is known"),
        (["--device", "t4", "--precision", "bf16"], "t4 has no bf16 units"),
        (["--device", "t4,v100", "--precision", "bf16"], "t4, v100 have no bf16 units"),
        (["--device", "t4", "--optimizer", "adam"], "add --mode train"),
        (["--device", "t4", "--gradient-accumulation", "2"], "add --mode train"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, words, said) -> None:
    status, out, err = estimate(monkeypatch, capsys, *SMALL, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
