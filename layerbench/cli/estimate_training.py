"""``layerbench estimate training-time``: how long a training will take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from layerbench.cli import _options
from layerbench.cli._generated import fields, values_of
from layerbench.records.recipes import Recipe
from layerbench.records.view import View
from layerbench.records.workload import StepOptions
from layerbench.training.classification.options import EstimateOptions, RunOptions

NAME = "estimate training-time"
MODEL = "resnet"
USUAL = {"data": "synthetic", "batch": 8, "epochs": 3}


def command(
    *,
    what: Annotated[
        dict[str, Any],
        values_of(_options.WorkloadOptions, picked=fields("inputs", "checkpoint", model=MODEL)),
    ],
    recipe: Annotated[
        dict[str, Any],
        values_of(
            Recipe,
            picked=fields(
                *("size", "channels_last", "precision", "seed"),
                *StepOptions.model_fields,
                **USUAL,
            ),
        ),
    ],
    options: EstimateOptions,
    where: Annotated[RunOptions, fields("data_dir", "download", "device", "threads", "workers")],
    out: Annotated[
        Path | None,
        _options.out("training-time_<model>_<data>_<size>_b<batch>.* to DIR/<device>/"),
    ] = None,
    formats: _options.Formats = None,
    view: Annotated[View, fields("full")],
    quiet: _options.Quiet = False,
) -> None:
    """Measure some steps of a training, and extrapolate with an interval.

    A classifier trains on a data set, loading included. Any other model trains on one batch of its
    own inputs, and no loading is counted. The report lists its assumptions.
    """
    names = _options.checked_formats(formats, out)

    # After the cheap checks: this loads torch.
    from layerbench.api import training
    from layerbench.cli._progress import measuring

    model = what.pop("model", MODEL)
    with measuring(model, quiet, where.device) as progress:
        record = training.estimate_training_time(
            model,
            **what,
            **recipe,
            **options.model_dump(),
            **where.model_dump(exclude_unset=True),
            progress=progress,
        )
    _options.deliver(record, names, out, view)
