"""Cards in Python: said by name, by file or as they are, to every call that predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment import cards
from layerbench.environment.cards import present


@pytest.fixture
def card() -> layerbench.Card:
    return cards.get("t4").model_copy(update={"name": "mine"})


@pytest.fixture
def file(card: layerbench.Card, tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(present.toml(card))
    return path


def test_what_was_checked_of_a_card_is_not_said_of_another_of_its_name() -> None:
    card = cards.get("rtx4090")
    slower = card.model_copy(update={"bandwidth": 0.5 * card.bandwidth})
    model, input = nn.Linear(512, 512), torch.empty(65536, 512)
    seen = layerbench.estimate_latency(model, input, device=card)
    other = layerbench.estimate_latency(model, input, device=slower)
    assert "a card that is in the fit" in seen.checked.question
    assert "a card that is not in the fit" in other.checked.question
    nameless = slower.model_copy(update={"name": "mine"})
    assert layerbench.estimate_latency(model, input, device=nameless).seconds == other.seconds
    assert layerbench.devices(card).rows[0].checked != "not checked"
    assert layerbench.devices(slower).rows[0].checked == "not checked"


@pytest.mark.parametrize("how", ["path", "text", "card"])
def test_a_card_is_said_in_three_ways(how: str, card: layerbench.Card, file: Path) -> None:
    said = {"path": file, "text": str(file), "card": card}[how]
    model, input = nn.Linear(8, 4), torch.empty(2, 8)
    assert layerbench.estimate_latency(model, input, device=said).card == card
    assert layerbench.estimate_memory(model, input, device=said).card == card
    assert layerbench.devices(said).rows[0].card == card
    alone = layerbench.estimate_devices(model, input, devices=said)
    several = layerbench.estimate_devices(model, input, devices=["t4", said])
    assert [row.card.name for row in alone.rows] == ["mine"]
    assert {row.card.name for row in several.rows} == {"t4", "mine"}
