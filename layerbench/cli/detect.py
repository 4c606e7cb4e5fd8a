"""``layerbench detect`` and ``sh detect.sh``: a detector's training, profiled while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from layerbench.cli import _options
from layerbench.cli._generated import fields, values_of
from layerbench.records.bounds import Positive
from layerbench.records.options import PLACE, WHAT_RUNS, option
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.view import View
from layerbench.training.detection.config import RunOptions, settled

NAME = "detect"


def command(
    *,
    config: Annotated[
        Path | None,
        option(
            "Configuration in TOML, one table named training. It replaces the defaults below; "
            "options replace what it says.",
            panel=WHAT_RUNS,
            metavar="FILE",
            default_text=".config/config.toml, if it is there",
        ),
    ] = None,
    options: Annotated[dict[str, Any], values_of(DetectionRecipe, RunOptions)],
    tune: Annotated[
        bool,
        option(
            "First try numbers of workers and prefetch factors in short measured stretches, and go "
            "on with the best.",
            panel=PLACE,
        ),
    ] = False,
    tune_steps: Annotated[
        Positive,
        option(
            "Steps measured with each setting of --tune, at least.", "--tune_steps", panel=PLACE
        ),
    ] = 8,
    view: Annotated[View, fields("full")],
    quiet: _options.Quiet = False,
) -> None:
    """Fine-tune a detector; time every phase and part of its training, and name the bottleneck.

    Waiting for data, copying, forward by backbone, RPN and heads, backward, optimizer; operators
    by part, utilization, memory, and the bottleneck. Report, record, Chrome trace and plot are
    written; a terminal shows the report's first screen.
    """
    recipe, around = settled(options, config)

    # After the cheap checks: this loads torch.
    from layerbench.cli._progress import shown_in_lines
    from layerbench.cli.train import log_shown
    from layerbench.training.detection.run import run_detection

    with shown_in_lines(quiet) as progress, log_shown():
        done = run_detection(recipe, around, tuned=tune, tune_steps=tune_steps, progress=progress)
    _options.show("txt", done.record, view)
