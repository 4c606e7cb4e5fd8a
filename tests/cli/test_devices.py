"""The verb ``devices``: the cards known, one of them, and the GPU of this machine."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import layerbench
from layerbench import cli
from layerbench.environment import cards
from layerbench.environment.cards import present
from layerbench.environment.devices import cuda
from layerbench.errors import UsageError
from layerbench.records.card import Card


def devices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["layerbench", "devices", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, shown.out, shown.err


def properties_of(card: Card) -> SimpleNamespace:
    """The card as PyTorch tells of it on a machine that has it: clocks in kHz."""
    major, minor = card.version
    return SimpleNamespace(
        name=card.title,
        major=major,
        minor=minor,
        multi_processor_count=card.multiprocessors,
        total_memory=card.memory_bytes,
        L2_cache_size=card.l2_bytes,
        clock_rate=int(card.clock_hz / 1e3),
        memory_clock_rate=int(card.memory_clock_hz / 1e3),
        memory_bus_width=card.bus_bits,
        uuid="0",
    )


def test_all_known_cards_are_in_the_table_and_in_the_data(monkeypatch, capsys) -> None:
    status, text, _ = devices(monkeypatch, capsys)
    assert status == 0
    assert text.startswith(f"{len(cards.known())} GPUs that predictions are made for\n")
    assert {card.name for card in cards.known()} <= set(text.split())
    _, data, _ = devices(monkeypatch, capsys, "--format", "csv")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(data))}
    assert float(rows["rtx3090"]["fp16_flops"]) == 71e12
    assert rows["t4"]["bf16_flops"] == ""


def test_one_card_has_its_sources(monkeypatch, capsys) -> None:
    status, text, _ = devices(monkeypatch, capsys, "NVIDIA GeForce RTX 3090")
    assert status == 0
    assert text.startswith("rtx3090: NVIDIA GeForce RTX 3090\n")
    assert "GA102 architecture whitepaper, table 9" in text
    assert layerbench.devices("t4").rows[0].card == cards.get("t4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rtx3091"], "did you mean rtx3090"),
        (["--describe"], "there is no NVIDIA GPU on this machine"),
        (["t4", "--describe"], "leave out the others"),
        (["--format", "pdf"], "unknown format 'pdf'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, words, said) -> None:
    monkeypatch.setattr(cuda.CudaType, "names", lambda _: [])
    status, out, err = devices(monkeypatch, capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_described_gpu_is_read_back(monkeypatch, capsys, tmp_path: Path) -> None:
    card = cards.get("rtx4090")
    fake = SimpleNamespace(
        current_device=lambda: 0, get_device_properties=lambda _: properties_of(card)
    )
    monkeypatch.setattr(cuda, "cuda", fake)
    monkeypatch.setattr(cuda.CudaType, "names", lambda _: ["cuda:0"])
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(cuda, "smi_details", lambda _: {"power limit": "450.00 W"})
    file = tmp_path / "mine.toml"
    assert devices(monkeypatch, capsys, "--describe", "--out", str(file))[0] == 0
    read = cards.get(str(file))
    assert (read.name, read.title, read.power_w) == ("rtx4090", card.title, 450)
    same = ("capability", "multiprocessors", "memory_bytes", "bus_bits", "l2_bytes", "clock_hz")
    assert [getattr(read, name) for name in same] == [getattr(card, name) for name in same]
    assert "not from a data sheet" in read.sources["flops"]
    assert present.toml(read) == file.read_text()


# The data sheet of one has half of its chip's rates; those of others have them at a lower clock.
@pytest.mark.parametrize("card", [card for card in cards.known() if card.name != "a10g"], ids=str)
def test_rates_of_a_described_card_are_those_of_its_data_sheet(card: Card) -> None:
    made = present.described(properties_of(card))
    for name, rate in made.flops.items():
        assert rate == pytest.approx(card.flops[name], rel=0.085), name
    assert set(made.flops) == set(card.flops) - {"fp64"}
    assert made.bandwidth == pytest.approx(card.bandwidth, rel=0.01)


def test_a_figure_that_is_not_told_is_named() -> None:
    properties = properties_of(cards.get("t4"))
    del properties.memory_bus_width
    with pytest.raises(UsageError, match="does not tell its memory_bus_width"):
        present.described(properties)
    properties = properties_of(cards.get("t4"))
    properties.clock_rate = 1
    with pytest.raises(UsageError, match=r"^NVIDIA T4: clock_hz: 1000 is not plausible"):
        present.described(properties)
    properties = properties_of(cards.get("t4"))
    properties.major = 3
    with pytest.raises(UsageError, match=r"compute capability 3\.5 is not known"):
        present.described(properties)
