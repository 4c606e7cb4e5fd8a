"""The structure of a model: layers, shapes, parameters, FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerbench.api.inputs import what_runs
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.errors import UsageError
from layerbench.profilers.structure import profile_structure
from layerbench.records.peers import COLUMNS, USUAL_COLUMNS, Column
from layerbench.records.structure import Structure
from layerbench.records.workload import DType, Mode, Precision


@one_at_a_time
def structure(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    batch: int | None = None,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    mode: Mode = "eval",
    seed: int = 0,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    torchinfo: bool | Sequence[Column] = False,
) -> Structure:
    """A model's structure: shapes, parameters and FLOPs of every module.

    Nothing is allocated and nothing computed, unless the model needs its tensors' values.

    Args:
        model, input, batch, precision, dtype, channels_last, mode, seed, weights, checkpoint,
            inputs: as in `profile`.
        torchinfo: whether torchinfo's table stands beside ours, in ``record.torchinfo``; or its
            columns, such as ``("output_size", "num_params")``.

    Returns:
        the record; a multiply-add is 2 FLOPs.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    columns = _columns(torchinfo)
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
    )
    return profile_structure(workload, subject, torchinfo=columns)


def _columns(said: bool | Sequence[Column]) -> tuple[Column, ...]:
    """The columns of torchinfo's table, each once; none where there is no table.

    Raises:
        UsageError: there is no such column.
    """
    if isinstance(said, bool):
        return USUAL_COLUMNS if said else ()
    columns = tuple(dict.fromkeys(said))
    for name in columns:
        if name not in COLUMNS:
            raise UsageError(f"torchinfo takes {', '.join(COLUMNS)}, got {name!r}")
    return columns
