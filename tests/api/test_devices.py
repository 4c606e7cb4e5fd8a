"""Cards in Python: said by name, by file or as they are, to every call that predicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment import cards
from layerbench.environment.cards import present
from layerbench.errors import UsageError


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


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"epochs": 90}, "epochs need samples"),
        ({"epochs": 1.5, "samples": 2}, "epochs must be a whole number, got 1.5"),
        ({"samples": 1.5}, "samples must be a whole number, got 1.5"),
        ({"samples": True}, "samples must be a whole number, got True"),
        ({"samples": 2, "prices": {"t4": "1"}}, "the price of t4 must be a number, got '1'"),
        ({"samples": 2, "prices": {4: 1.0}}, "a price is of a card's name, not of 4"),
        ({"samples": 2, "prices": ["t4=1"]}, "prices are given by the names of cards"),
        ({"spare_memory": "5%"}, "spare_memory must be a number, got '5%'"),
        ({"optimizer": "adam"}, "pass training=True"),
    ],
)
def test_what_cannot_be_meant_is_said(said: dict[str, object], complaint: str) -> None:
    model, input = nn.Linear(8, 4), torch.empty(2, 8)
    with pytest.raises(UsageError, match=re.escape(complaint)):
        layerbench.estimate_devices(model, input, devices="t4", **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said", [{"optimizer": "adam"}, {"gradient_accumulation": 4}, {"checkpoint_activations": ()}]
)
def test_a_training_step_is_asked_for_as_the_call_is(said: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"belongs? to a training step: pass mode=\"train\"$"):
        layerbench.estimate_latency(
            nn.Linear(8, 4),
            torch.empty(2, 8),
            device="t4",
            **said,  # type: ignore[arg-type]
        )


def test_a_refusal_during_a_run_leaves_no_tensors(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(UsageError, match="the model has no module 'nosuch'"):
        layerbench.estimate_latency(
            *("squeezenet1_1", "1x3x32x32"),
            device="t4",
            mode="train",
            checkpoint_activations=["nosuch"],
        )
    assert not [one for one in recwarn if "without contents" in str(one.message)]


OWN = """
from torch import nn

def any():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, x):
        return self.linear(x.reshape(2, 12))

class Reads(Two):
    def forward(self, x):
        y = self.linear(x.flatten(1))
        return 2 * y if y.sum().item() > 0 else y
"""


def test_a_callable_has_the_same_largest_batch_in_both_calls(tmp_path: Path) -> None:
    file = tmp_path / "own_batches.py"
    file.write_text(OWN)
    memory = layerbench.estimate_memory(f"{file}:any", "3x8x8", device="t4").fit
    (row,) = layerbench.estimate_devices(f"{file}:any", "3x8x8", devices="t4").rows
    assert memory is not None
    assert memory.largest_batch == row.largest_batch
    assert (row.largest_batch or 0) > 1


@pytest.mark.parametrize("model", ["Two", "Reads"])
def test_of_what_takes_one_batch_or_runs_for_real_none_is_looked_for(
    model: str, tmp_path: Path
) -> None:
    file = tmp_path / "own_batches.py"
    file.write_text(OWN)
    fit = layerbench.estimate_memory(f"{file}:{model}", "2x3x2x2", device="t4").fit
    assert fit is not None
    assert (fit.fits, fit.largest_batch) == ("yes", None)
