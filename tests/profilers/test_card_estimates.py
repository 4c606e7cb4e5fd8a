"""Several cards side by side: each row is what a prediction for its card alone says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment import cards
from layerbench.errors import UsageError
from layerbench.reporters import render

MIB = 2**20

# Takes any batch but the one that operators are traced with.
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3)

    def forward(self, x):
        if x.shape[0] % 509 == 0:
            raise ValueError("not so many")
        return torch.relu(self.conv(x))
"""


def test_operators_of_one_batch_are_not_those_of_the_largest(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(NET)
    model = f"{file}:Net"
    (row,) = layerbench.estimate_devices(model, "cifar100", devices="t4").rows
    assert row.batch is not None
    assert row.batch > 1000
    alone = layerbench.estimate_latency(model, "cifar100", batch=row.batch, device="t4")
    assert row.seconds == pytest.approx(alone.seconds)


@pytest.mark.parametrize(
    ("input", "batch", "searched"),
    [("3x32x32", None, True), ("2x3x32x32", None, False), ("3x32x32", 2, False)],
)
def test_the_largest_batch_is_looked_for_where_none_is_said(
    input: str, batch: int | None, searched: bool
) -> None:
    (row,) = layerbench.estimate_devices("squeezenet1_1", input, batch=batch, devices="t4").rows
    assert (row.batch == row.largest_batch) == searched
    assert (row.batch == 2) != searched


def test_of_inputs_of_the_users_own_the_batch_is_theirs() -> None:
    (row,) = layerbench.estimate_devices("tests/faulty/formats.py:bfloat16", devices="a100").rows
    assert (row.batch, row.largest_batch, row.fits) == (4, None, "yes")


def _with_memory(name: str, size: int) -> layerbench.Card:
    return cards.get(name).model_copy(update={"name": f"{name}-small", "memory_bytes": size})


def test_a_card_that_has_no_room_says_so_and_comes_last() -> None:
    small, t4 = _with_memory("a100", 600 * MIB), cards.get("t4")
    model, input = nn.Conv2d(3, 64, 3), torch.empty(64, 3, 256, 256)
    record = layerbench.estimate_devices(model, input, devices=[small, t4], samples=100)
    fast, full = record.rows
    assert (fast.card, fast.fits, fast.absent) == (t4, "yes", "")
    assert (full.card, full.fits, full.absent) == (small, "no", "a batch of 64 does not fit")
    assert (full.memory_bytes or 0) > small.memory_bytes
    assert {full.seconds, full.batch, full.total_s, full.images_per_s} == {None}
    assert "a100-small: a batch of 64 does not fit" in render("txt", record)


def test_without_a_batch_a_card_may_have_no_room_for_one_image() -> None:
    small = _with_memory("t4", 460 * MIB)
    (row,) = layerbench.estimate_devices("squeezenet1_1", devices=small).rows
    assert (row.fits, row.largest_batch, row.absent) == ("no", 0, "no image fits")


def test_a_card_that_lacks_the_format_says_so_in_its_row() -> None:
    model, input = nn.Linear(64, 8), torch.empty(4, 64)
    record = layerbench.estimate_devices(
        model, input, devices=["v100", "a100"], precision="tf32", samples=8, prices={"v100": 1.0}
    )
    able, lacking = record.rows
    assert (able.card.name, able.absent) == ("a100", "")
    assert able.seconds
    assert (lacking.card.name, lacking.seconds, lacking.cost) == ("v100", None, None)
    assert lacking.absent.startswith("v100 has no tf32 units")
    assert lacking.price == 1


def test_spare_memory_is_left_to_others() -> None:
    model, input = nn.Conv2d(3, 64, 3), torch.empty(64, 3, 256, 256)
    free = layerbench.estimate_devices(model, input, devices="t4").rows[0]
    needed = (free.memory_bytes or 0) / free.card.memory_bytes
    shared = layerbench.estimate_devices(model, input, devices="t4", spare_memory=1 - needed / 2)
    assert (free.fits, shared.rows[0].fits) == ("yes", "no")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prices": {"t5": 1.0}, "samples": 9}, "a price for t5, which is not among the devices"),
        ({"prices": {"t4": 1.0}}, "prices need samples"),
        ({"prices": {"t4": -1.0}, "samples": 9}, "an hour costs nothing or more"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"samples": 9, "epochs": 0}, "epochs must be at least 1"),
        ({"spare_memory": 1.0}, "spare_memory is a part of a card's memory"),
        ({"devices": ["t4", "t5"]}, "no GPU 't5' is known"),
        ({"devices": []}, "say one device at least"),
    ],
)
def test_what_cannot_be_meant_is_said(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        layerbench.estimate_devices("resnet18", **{"devices": ["t4"], **arguments})  # type: ignore[arg-type]


def test_an_epochs_last_step_has_the_images_that_are_left() -> None:
    """Each with its own time: two full steps and one of five images, three times."""
    model, size, card = "timm:test_resnet", "8x3x64x64", "t4"
    (row,) = layerbench.estimate_devices(
        model, size, devices=[card], samples=21, epochs=3, prices={card: 2.0}
    ).rows
    full, last = (
        layerbench.estimate_latency(model, f"{batch}x3x64x64", device=card) for batch in (8, 5)
    )
    total = 3 * (2 * full.seconds + last.seconds)
    assert row.total_s == pytest.approx(total)
    assert row.total_interval is not None
    assert row.total_interval.low == pytest.approx(3 * (2 * full.interval.low + last.interval.low))
    assert row.cost == pytest.approx(total / 3600 * 2)


def test_what_may_not_fit_is_not_the_best_without_a_word() -> None:
    record = layerbench.estimate_devices(
        "timm:test_resnet", "8x3x64x64", devices=["t4", "l4"], samples=100,
        prices={"t4": 1.0, "l4": 50.0},
    )  # fmt: skip
    cheap, dear = record.rows
    assert (cheap.card.name, cheap.fits, dear.fits) == ("t4", "yes", "yes")
    assert "cheapest: NVIDIA T4," in render("txt", record)
    unclear = cheap.model_copy(update={"fits": "unclear"})
    text = render("txt", record.model_copy(update={"rows": (unclear, dear)}))
    assert "cheapest: NVIDIA L4," in text
    assert "unclear" in text
    alone = render("txt", record.model_copy(update={"rows": (unclear,)}))
    assert "cheapest: NVIDIA T4, which may not fit," in alone
