"""``python train.py`` and ``layerbench train``: epochs on a data set, and what they cost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from layerbench.cli import _options
from layerbench.cli._generated import fields, values_of
from layerbench.records.bounds import Count
from layerbench.records.options import LEARNING, OUTCOME, WHAT_RUNS, option
from layerbench.records.recipes import Recipe
from layerbench.training.classification.options import BATCH, RunOptions

NAME = "train"
USUAL = {"model": "resnet", "phase": 2, "batch": BATCH}


def command(
    *,
    recipe: Annotated[dict[str, Any], values_of(Recipe, picked=fields(**USUAL))],
    pretrained: Annotated[
        bool | None,
        option(
            "Begin with published weights, or with random ones.",
            "--pretrained/--no-pretrained",
            panel=WHAT_RUNS,
            default_text="phase 2: where there are any; phase 1: random",
        ),
    ] = None,
    patience: Annotated[
        Count | None,
        option(
            "Epochs without a better validation accuracy before it stops; 0: never.",
            panel=LEARNING,
            default_text="10",
        ),
    ] = None,
    where: RunOptions,
    resume: Annotated[
        bool,
        option(
            "Go on with the last unfinished run of this model and phase, if there is one.",
            panel=OUTCOME,
        ),
    ] = False,
    resume_from: Annotated[
        Path | None,
        option(
            "Go on with the run in this folder, which has its recipe.",
            "--resume_from",
            panel=OUTCOME,
            metavar="DIR",
        ),
    ] = None,
    quiet: _options.Quiet = False,
) -> None:
    """Train or fine-tune a classifier; logs, metrics, weights, plots and the record are written.

    Several devices: torchrun --nproc-per-node 2 -m layerbench train ... The batch is that of each
    process.
    """
    # This loads torch.
    from layerbench.cli._progress import beside_report
    from layerbench.training.classification.recipes import recipe_for, recipe_with
    from layerbench.training.classification.run import run_training
    from layerbench.training.run_folder import begun_recipe, check_folder

    said = {**recipe, "patience": patience, "pretrained": pretrained}
    if resume_from is None:
        whole = recipe_for(**{**USUAL, **said})
    else:
        whole = recipe_with(begun_recipe(check_folder(resume_from)), **said)
    where = where.model_copy(update={"resume": resume_from or resume})
    with beside_report(whole.model, quiet) as progress, log_shown():
        run_training(whole, where, progress=progress)


@contextmanager
def log_shown() -> Iterator[None]:
    """Copy log messages to standard output; only the first process logs."""
    from layerbench.training.run_folder import PlainFormatter, log

    # Made while a bar may be shown: the bar then makes room for each line.
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter("%(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
