"""Options of a classifier's training besides its recipe, and options of an estimate.

Loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from layerbench.records.bounds import Amount, Count, Positive
from layerbench.records.options import MEASURING, OUTCOME, WHAT_RUNS, option
from layerbench.records.recipes import MachineOptions, Workers
from layerbench.records.workload import Frozen

# Images of a step, where nothing else is said.
BATCH = 128


class RunOptions(MachineOptions):
    """Where a run happens, and what changes no weight.

    Attributes:
        resume: go on with the last run of the same model and phase, or with the run in a folder.
    """

    workers: Workers = 0
    output_dir: Annotated[
        Path,
        option(
            "The run gets a folder of its own in DIR, named after model, phase and time.",
            "--output_dir",
            panel=OUTCOME,
            metavar="DIR",
        ),
    ] = Path("outputs")
    resume: bool | Path = False
    checkpoint_minutes: Annotated[
        Amount,
        option(
            "Minutes between checkpoints within an epoch; 0 writes one after every step.",
            "--checkpoint_minutes",
            panel=OUTCOME,
        ),
    ] = 10.0
    points: Annotated[
        bool,
        option(
            "In the end, measure the trained model's latency and memory by batch size.",
            "--points/--no-points",
            panel=OUTCOME,
        ),
    ] = True
    time_all_reduce: Annotated[
        bool,
        option(
            "With several processes, time how long gradients travel between them.",
            "--time_all_reduce",
            panel=OUTCOME,
        ),
    ] = False


class EstimateOptions(Frozen):
    """How much would be trained, and how much of it is measured.

    A machine's speed moves within seconds: fewer say less.
    """

    samples: Annotated[
        Positive | None,
        option(
            "Number of images that an epoch trains on.",
            panel=WHAT_RUNS,
            default_text="as many as the data set has; 1024 without one",
        ),
    ] = None
    val_samples: Annotated[
        Count | None,
        option(
            "Number of images validated after each epoch.",
            "--val-samples",
            panel=WHAT_RUNS,
            default_text="as many as the data set has; none with --samples, or without a data set",
        ),
    ] = None
    warmup: Annotated[Count, option("Number of steps that do not count.", panel=MEASURING)] = 5
    steps: Annotated[int, option("Number of steps measured, at least.", panel=MEASURING, ge=2)] = 40
    seconds: Annotated[Amount, option("Seconds measured, at least.", panel=MEASURING)] = 20.0
