"""The model of times: shortest times by hand, waiting for the host, weights as fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.latency_fit.held_out import Prediction
from benchmarks.latency_fit.published import Published, published
from benchmarks.latency_fit.questions import QUESTIONS, answers
from benchmarks.latency_fit.traces import Traces
from benchmarks.latency_fit.training import Dataset, Fit, Learner, dataset_of, fit
from layerbench.environment import cards
from layerbench.profilers.latency.features import PATH_BYTES_PER_CLOCK, features_of
from layerbench.profilers.latency.network import Network, fitted
from layerbench.profilers.latency.operators import Amount, Operator
from layerbench.profilers.latency.table import table_of
from layerbench.profilers.latency.whole import launch_of, waits_of, whole_of

PRODUCT = Operator(
    owner="fc",
    place=None,
    phase="forward",
    name="aten.mm",
    kind="product",
    flops=Amount(0, 2 * 1000 * 2000),
    read=Amount(4 * 1000 * 2000, 4 * 1000),
    written=Amount(0, 4 * 2000),
    m=Amount(0, 1),
    n=Amount(2000),
    k=Amount(1000),
)
BATCH = 500


def _shortest(card: str, precision: str | None, format: str = "float32") -> tuple[float, float]:
    from dataclasses import replace

    rows = table_of([replace(PRODUCT, format=format)]).rows
    features = features_of(
        rows,
        BATCH,
        cards.get(card),
        precision=precision,
        channels_last=False,  # type: ignore[arg-type]
    )
    return float(features.compute_s[0]), float(features.memory_s[0])


@pytest.mark.parametrize(
    ("card", "precision", "format", "rate"),
    [
        ("a100", None, "float32", 19.5e12),
        ("a100", "tf32", "float32", 156e12),
        ("a100", "amp", "float16", 312e12),
        ("a100", "amp-bf16", "bfloat16", 312e12),
        ("t4", "tf32", "float32", 8.1e12),
        # No units for it: PyTorch computes in float32.
        ("t4", "amp-bf16", "bfloat16", 8.1e12),
    ],
)
def test_products_take_at_least_what_the_data_sheet_says(
    card: str, precision: str | None, format: str, rate: float
) -> None:
    compute, _ = _shortest(card, precision, format)
    assert compute == pytest.approx(BATCH * 2 * 1000 * 2000 / rate, rel=1e-3)


def test_tensors_go_through_the_memory_and_the_cache() -> None:
    card = cards.get("a100")
    moved = 4 * 1000 * 2000 + BATCH * 4 * (1000 + 2000)
    path = PATH_BYTES_PER_CLOCK * card.multiprocessors * card.clock_hz
    _, memory = _shortest("a100", None)
    assert memory == pytest.approx(moved / card.bandwidth + moved / path)


def test_a_whole_takes_as_long_as_the_device_or_the_host() -> None:
    assert whole_of(1.0, 100, 1e-6) == pytest.approx(1.0)
    assert whole_of(1e-6, 100, 1e-3) == pytest.approx(0.1)
    assert 0.1 < whole_of(0.1, 100, 1e-3) < 0.12
    assert whole_of(0.0, 0, 1e-3) == 0


def test_what_the_device_waits_makes_up_the_whole() -> None:
    device = np.array([1e-6, 2e-3, 5e-6, 4e-6])
    launched = np.array([True, True, True, False])
    waits = waits_of(device, launched, 1e-3)
    assert device.sum() + waits.sum() == pytest.approx(whole_of(float(device.sum()), 3, 1e-3))
    # Neither a kernel longer than its launch nor one that is launched with others.
    assert waits[1] == waits[3] == 0
    assert waits[0] > waits[2] > 0


@pytest.fixture(scope="module")
def few() -> Dataset:
    """Some published times."""
    rows = [row for row in published() if row.traced.startswith(("resnet18", "vit_tiny", "legacy"))]
    return dataset_of(rows, Traces())


def test_the_package_computes_what_was_fitted(few: Dataset) -> None:
    learner = Learner(few.inputs.shape[1], ["rtx4090"])
    torch.nn.init.normal_(learner.last.weight, 0, 0.5)
    network = Network.of_bytes(Fit([learner, learner]).network().to_bytes())
    at = next(i for i, row in enumerate(few.rows) if row.card == "rtx4090")
    row, (rows, counts) = few.rows[at], Traces().of(few.rows[at].traced)
    features = features_of(
        rows, row.batch, cards.get(row.card), precision="amp", channels_last=row.channels_last
    )
    device = network.device_times(features, "rtx4090").seconds @ counts
    with torch.no_grad():
        learned = learner(few, np.array([at])).exp().item() / 1e3
    host = 12e-6 * float(few.launched[at])
    assert whole_of(float(device), 1, host) == pytest.approx(learned, rel=1e-3)
    other = network.device_times(features, "t4").seconds @ counts
    assert other != pytest.approx(device, rel=1e-6)


def test_the_same_rows_give_the_same_weights(few: Dataset) -> None:
    everything = np.arange(len(few.rows))
    first, second = (fit(few, everything, epochs=2).network() for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.slow
def test_a_fit_comes_nearer_to_its_rows(few: Dataset) -> None:
    everything = np.arange(len(few.rows))

    def off(epochs: int) -> float:
        errors = fit(few, everything, epochs=epochs).errors(few, everything)
        return float(np.median(np.abs(errors)))

    assert off(60) < 0.8 * off(1)


def test_the_weights_of_the_package_are_those_of_its_data() -> None:
    timm = {row.card for row in published() if row.source == "timm"}
    assert {*fitted().cards} == timm
    assert all(np.isfinite(array).all() for array in fitted()[1:])
    # At batch 1 the published model's 542 operators take 24.9 ms, whatever the card.
    assert launch_of(cards.get("t4")) == pytest.approx(24.9e-3 / 542, rel=0.05)


def _prediction(error: float, part: str) -> Prediction:
    row = Published("timm", "rtx3090", "2.4", "amp", "infer", "m", False, 224, 1024, 1.0)
    return Prediction(row, "family", part, error)


def test_intervals_hold_nine_of_ten_of_what_their_quantiles_have_not_seen() -> None:
    random = np.random.default_rng(0)
    every = [
        _prediction(float(random.normal(shift, 0.1)), str(part))
        for part, shift in enumerate((-0.1, 0.0, 0.1))
        for _ in range(300)
    ]
    answer = answers([*every, *_one_of_each()])["family unseen"]
    assert 0.9 <= answer["within"] <= 0.92
    assert answer["low"] < np.exp(-0.2)
    assert answer["high"] > np.exp(0.2)


def _one_of_each() -> list[Prediction]:
    """A prediction of each kind of question, without an error."""
    rows = {
        "timm": Published("timm", "rtx3090", "2.4", "amp", "infer", "m", False, 224, 64, 1.0),
        "train": Published("timm", "rtx3090", "2.4", "amp", "train", "m", False, 224, 64, 1.0),
        "amp": Published("nvidia", "t4", "", "amp", "infer", "m", False, 224, 64, 1.0),
        "fp32": Published("nvidia", "t4", "", "fp32", "infer", "m", False, 224, 64, 1.0),
        "step": Published("nvidia", "t4", "", "amp", "train", "m", False, 224, 64, 1.0),
    }
    ways = ("family", "card", "model")
    return [Prediction(row, way, "0", 0.0) for row in rows.values() for way in ways]


def test_every_question_is_answered() -> None:
    few = [_prediction(0.0, "0"), *_one_of_each()]
    assert {*answers(few)} == {*QUESTIONS}
