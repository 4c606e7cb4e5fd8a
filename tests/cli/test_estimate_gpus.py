"""The verb ``estimate gpus``: fits, time and cost of several cards, and what cannot be meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import layerbench
from layerbench import cli
from layerbench.records.card_estimates import CardEstimates

SMALL = ("--model", "squeezenet1_1", "--input", "4x3x64x64", "--quiet")


def estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["layerbench", "estimate", "gpus", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, shown.out, shown.err


def test_a_row_a_card_the_cheapest_first(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ("--device", "T4,a100,t4", "--samples", "1001", "--epochs", "3")
    priced = ("--price", "t4=0.36,a100=3600", "--out", str(tmp_path), "--format", "json,txt,csv")
    status, _, err = estimate(monkeypatch, capsys, *SMALL, *words, *priced)
    assert (status, err) == (0, "")
    (path,) = tmp_path.glob("*.json")
    record = layerbench.read(path)
    assert isinstance(record, CardEstimates)
    assert (record.order, [row.card.name for row in record.rows]) == ("cost", ["t4", "a100"])
    for row, price in zip(record.rows, (0.36, 3600), strict=True):
        assert (row.fits, row.batch) == ("yes", 4)
        assert row.largest_batch is not None
        assert row.largest_batch > 4
        assert row.seconds is not None
        # 1,001 images in fours are 251 steps.
        assert row.total_s == pytest.approx(3 * 251 * row.seconds)
        assert row.cost == pytest.approx((row.total_s or 0) / 3600 * price)
    (picture,) = tmp_path.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_time_there_is_no_picture(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ("--device", "t4", "--precision", "bf16", "--out", str(tmp_path), "--format", "json")
    status, out, _ = estimate(monkeypatch, capsys, *SMALL, *words)
    assert status == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert ".png" not in out


def test_nothing_may_be_spared(monkeypatch, capsys) -> None:
    words = ("--device", "t4", "--spare-memory", "0%", "--format", "json")
    status, out, _ = estimate(monkeypatch, capsys, *SMALL, *words)
    assert status == 0
    assert "is left to others" not in out


def test_the_help_speaks_of_cards(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = estimate(monkeypatch, capsys, "--help")
    assert "(1)]" not in out
    assert "the largest that fits each card, in eights" in out
    assert "Number of cards on the first screen" in out


def test_a_model_that_has_to_run_for_real_is_one_line(monkeypatch, capsys) -> None:
    words = ("--model", "tests/faulty/formats.py:kept", "--device", "t4", "--quiet")
    status, out, err = estimate(monkeypatch, capsys, *words)
    assert (status, out) == (2, "")
    assert "reads values of its tensors in _Kept (tests/faulty/formats.py:" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "t5"], "no GPU 't5' is known"),
        (["--price", "t4=0.35"], "--price needs --samples"),
        (["--epochs", "90"], "--epochs needs --samples"),
        (["--spare-memory", "100%"], "a percentage from 0% on and below 100%"),
        (["--price", "t4:1", "--samples", "9"], "such as t4=0.35,a100=1.8"),
        (
            ["--price", "l4=1", "--samples", "9", "--device", "t4", "--device", "a100"],
            "a price for l4, which is not among the devices: t4, a100",
        ),
        (
            ["--price", "rtx4091=1", "--samples", "9"],
            "rtx4091, which is not among the devices (did you mean",
        ),
        (["--price", "t4=-1", "--samples", "9"], "an hour costs nothing or more"),
        (["--price", "t4=nan", "--samples", "9"], "an hour costs nothing or more"),
        (["--price", "t4=inf", "--samples", "9"], "and at most 1e+12"),
        (["--price", "t4=1", "--price", "t4=2", "--samples", "9"], "--price has 2 prices for t4"),
        (["--price", "t4=1,Tesla T4=2", "--samples", "9"], "there are two prices for t4"),
        (["--optimizer", "adam"], "add --train"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, words, said) -> None:
    status, out, err = estimate(monkeypatch, capsys, *SMALL, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
