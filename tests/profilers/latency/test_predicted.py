"""Times of operators become times of layers: nothing is lost, and nothing is counted twice."""

from __future__ import annotations

from math import fsum
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment import cards
from layerbench.errors import LayerbenchError, UsageError
from layerbench.profilers.latency import predicted
from layerbench.profilers.latency.fitted import OperatorTime
from layerbench.records.latency_estimate import LatencyEstimate


class Twice(nn.Module):
    """Calls one layer twice, and adds by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.blocks = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.layer(self.layer(x)) + x)


@pytest.fixture
def second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of times in which every operator takes a second."""

    def times(operators, card, workload):
        return [OperatorTime(1.0, "compute" if op.flops.at(3) else "memory") for op in operators]

    monkeypatch.setattr(predicted, "times", times)


def test_every_operator_is_in_one_layer(second_each: None) -> None:
    record = layerbench.estimate_latency(Twice(), torch.zeros(3, 4), device="t4")
    assert record.seconds == record.operators == 6
    rows = {row.path: row for row in record.rows}
    seconds = {path: (row.seconds, row.own_seconds) for path, row in rows.items()}
    assert seconds == {
        "": (6, 1),
        "layer": (2, 2),
        "unused": (None, None),
        "blocks": (3, 0),
        "blocks.0": (1, 1),
        "blocks.1": (1, 1),
        "blocks.2": (1, 1),
    }
    assert rows["layer"].flops == 2 * 2 * 3 * 4 * 4
    assert rows["blocks"].own_flops == 0
    assert rows["blocks.1"].bytes == 2 * 3 * 8 * 4
    assert (rows["layer"].limit, rows[""].limit, rows["blocks"].limit) == (
        "compute",
        "memory",
        None,
    )
    assert record.limits == {"compute": 4, "memory": 2}
    assert record.bound == "compute"
    assert record.images_per_s == 0.5
    assert rows[""].output_shapes == ((3, 4),)


def test_a_step_has_its_phases_apart(second_each: None) -> None:
    record = layerbench.estimate_latency(
        Twice(), torch.zeros(3, 4), device="t4", mode="train", optimizer="sgd"
    )
    whole = record.rows[0]
    assert record.optimizer == "sgd"
    assert fsum(record.phases.values()) == record.seconds
    assert set(record.phases) == {"forward", "loss", "backward", "optimizer"}
    assert record.phases["forward"] == whole.phases["forward"] == 6
    assert fsum(row.own_seconds or 0 for row in record.rows) + record.outside_s == record.seconds
    assert fsum(whole.phases.values()) == whole.seconds


def test_one_trace_does_for_all_cards_and_batches(
    monkeypatch: pytest.MonkeyPatch, second_each: None
) -> None:
    traced = []
    trace = predicted.trace_operators
    monkeypatch.setattr(
        predicted, "trace_operators", lambda *a, **k: traced.append(1) or trace(*a, **k)
    )
    from layerbench import zoo

    workload = zoo.resolve("squeezenet1_1", "2x3x64x64")
    both = predicted.predict_for_cards(workload, [cards.get("t4"), cards.get("a100")])
    assert len(traced) == 1
    assert [one.card.name for one in both] == ["t4", "a100"]
    assert both[0].rows[0].input_shapes == ((2, 3, 64, 64),)
    assert isinstance(both[0], LatencyEstimate)


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("t4", "bf16", "t4 has no bf16 units, and PyTorch emulates it there in float32"),
        ("v100", "tf32", "take --precision fp32"),
        ("t4", "amp-bf16", "no bf16"),
    ],
)
def test_a_format_that_a_card_lacks_is_said(device: str, precision: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        layerbench.estimate_latency("resnet18", device=device, precision=precision)


@pytest.mark.parametrize(
    ("model", "input", "said"),
    [
        (nn.Linear(3, 4), torch.empty(0, 3), "the batch must be at least 1, got 0"),
        (nn.Identity(), torch.empty(2, 3), "Identity: its forward runs no operators on a GPU"),
        (nn.Flatten(), torch.empty(2, 3, 4), "runs no operators on a GPU: there is no time"),
    ],
)
def test_nothing_to_be_predicted_is_said(model: nn.Module, input: torch.Tensor, said: str) -> None:
    with pytest.raises(LayerbenchError, match=said):
        layerbench.estimate_latency(model, input, device="t4")
    with pytest.raises(LayerbenchError, match=said):
        layerbench.estimate_devices(model, input, devices="t4")


def test_an_unknown_card_is_said_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="did you mean rtx4090"):
        layerbench.estimate_latency("no_such_model", device="rtx4091")


def test_the_committed_example_is_what_is_predicted() -> None:
    """Nothing in it depends on the machine, so that it is made anew where a prediction changes."""
    folder = Path(__file__).parents[3] / "examples" / "prediction"
    (path,) = folder.glob("*_time.json")
    committed = LatencyEstimate.model_validate_json(path.read_text())
    (now,) = predicted.predict_for_cards(committed.workload, [committed.card])
    assert now.seconds == pytest.approx(committed.seconds, rel=1e-3)
    assert now.operators == committed.operators
    assert now.checked == committed.checked
