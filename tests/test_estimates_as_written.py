"""The commands for GPUs that are not here, as people type them, on real models."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbench import cli
from layerbench.environment import cards
from layerbench.records.card_estimates import CardEstimates
from layerbench.records.kinds import Record
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import MemoryEstimate
from layerbench.store import reading
from tests.support.pictures import draw_unrendered

Typed = Callable[..., str]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """``typed(line, out="told")``: run a line in this process, and say what it leaves open."""
    monkeypatch.chdir(tmp_path)
    draw_unrendered(monkeypatch)

    def run(line: str, **left_open: str) -> str:
        _, *words = shlex.split(line)
        verb = "mem" if words[0] == "mem.py" else "_".join(words[2 : 4 if len(words) > 3 else 3])
        for name, value in left_open.items():
            monkeypatch.setenv(f"LAYERBENCH_{verb}_{name}".upper(), value)
        monkeypatch.setattr(sys, "argv", words if verb == "mem" else ["layerbench", *words[2:]])
        with pytest.raises(SystemExit) as left:
            cli.run("mem") if verb == "mem" else cli.main()
        shown = capsys.readouterr()
        assert left.value.code == 0, shown.err
        return shown.out

    return run


def _records() -> list[Record]:
    return [reading.read(path) for path in sorted(Path("told").rglob("*.json"))]


def test_memory_on_a_card(typed: Typed) -> None:
    typed(
        "python mem.py --model resnet50 --batch 64 --train --optimizer adamw --precision amp "
        "--device t4",
        out="told",
        format="json",
    )
    (record,) = _records()
    assert isinstance(record, MemoryEstimate)
    assert record.card == cards.get("t4")
    assert record.fit is not None
    assert record.fit.fits == "yes"
    assert record.fit.largest_batch is not None
    assert record.fit.largest_batch > 64


def test_latency_on_three_cards(typed: Typed) -> None:
    shown = typed(
        "python -m layerbench estimate latency --model convnext_tiny --input 32x3x224x224 "
        "--device rtx4090,t4,a100 --precision amp --channels-last --mode eval",
        out="told",
        format="json",
    )
    assert "a forward predicted for 3 GPUs" in shown
    seconds = {}
    for record in _records():
        assert isinstance(record, LatencyEstimate)
        own = sum(row.own_seconds or 0.0 for row in record.rows)
        assert record.seconds == pytest.approx(record.outside_s + own)
        seconds[record.card.name] = record.seconds
    assert {*seconds} == {"a100", "rtx4090", "t4"}
    assert seconds["t4"] > 2 * seconds["a100"]


@pytest.mark.slow
def test_a_training_on_all_cards(typed: Typed) -> None:
    typed(
        "python -m layerbench estimate gpus --model swin_b --train --optimizer adamw "
        "--samples 1281167 --epochs 90",
        price="t4=0.35,a100=1.8",
        precision="amp",
        out="told",
        format="json",
    )
    assert len([*Path("told").glob("*.png")]) == 1
    (record,) = _records()
    assert isinstance(record, CardEstimates)
    assert {row.card.name for row in record.rows} == {card.name for card in cards.known()}
    first, second, *others = record.rows
    assert {first.card.name, second.card.name} == {"t4", "a100"}
    assert (first.cost or 0.0) <= (second.cost or 0.0)
    assert {row.cost for row in others} == {None}
    assert all(row.largest_batch and row.images_per_s for row in record.rows)


def test_the_cards_that_are_known(typed: Typed) -> None:
    shown = typed("python -m layerbench devices")
    assert all(card.name in shown for card in cards.known())
