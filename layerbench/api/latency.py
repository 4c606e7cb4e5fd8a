"""Time of a model on a GPU that is not here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.api.inputs import optimizer_of, step_of, what_runs
from layerbench.environment import cards
from layerbench.environment.cards import CardChoice
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.profilers.latency.predicted import predict
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import Optimizer
from layerbench.records.workload import DType, Mode, Precision

TRAINING = 'mode="train"'


@one_at_a_time
def estimate_latency(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    device: CardChoice,
    mode: Mode = "eval",
    optimizer: Optimizer | None = None,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
) -> LatencyEstimate:
    """Predict the time that a model takes on a GPU, without one.

    Args:
        model, input, batch, precision, dtype, channels_last, seed, weights, checkpoint, inputs: as
            in `profile`.
        device: a card that `devices` lists, such as ``rtx4090``, the path of a file that describes
            one, or a `layerbench.Card`.
        mode: ``eval`` for a forward, ``train`` for a training step.
        optimizer: of the training step; ``sgd`` if none is named.
        checkpoint_activations, gradient_accumulation: of the training step; as in
            `profile_training`.

    Returns:
        the record, in seconds: ``seconds`` with an ``interval`` (90 %), ``bound``, ``rows`` with a
        time for every layer, and ``checked``: how wrong such predictions were.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    card = cards.get(device)
    training = mode == "train"
    chosen = optimizer_of(training, optimizer, TRAINING)
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        mode=mode,
        seed=seed,
        weights=weights,
        checkpoint=checkpoint,
        inputs=inputs,
        step=step_of(training, checkpoint_activations, gradient_accumulation, TRAINING),
    )
    return predict(workload, card, optimizer=chosen, subject=subject)
