"""How far `layerbench estimate detection` is from the epoch of `layerbench detect` that then runs.

    python -m benchmarks.detection_estimate
    python -m benchmarks.detection_estimate --how after

Faster R-CNN MobileNet 320 and SSDlite on a small set in the layout of Oxford-IIIT Pet, on the CPU:
an estimate and an epoch, several times over. ``in-turn``: both in one process, a step of the one
and a step of the other in turn, so that the machine's speed moves for both alike: this shows how
good the extrapolation is. ``after``: the epoch right after the estimate, with the seconds that the
command measures by itself. Run it on an idle machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tabulate import tabulate

from benchmarks.in_turn import HEADER, Trial, figures_of, in_turn, on_one_heap

if TYPE_CHECKING:
    from layerbench.records.detection_estimate import DetectorEstimate
    from layerbench.records.detection_run import DetectionRun

MODELS = ("fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large")
IMAGES = {MODELS[0]: 40, MODELS[1]: 120}
BATCH = 2
WARMUP = 2


class How(str, Enum):
    """What runs when."""

    in_turn = "in-turn"
    after = "after"


def main(
    repeats: Annotated[int, typer.Option(help="Of each detector.")] = 5,
    threads: Annotated[int, typer.Option(help="Intra-op CPU threads.")] = 1,
    how: Annotated[How, typer.Option(help="When the epoch runs.")] = How.in_turn,
    models: Annotated[str, typer.Option(help="With commas.")] = ",".join(MODELS),
) -> None:
    """Print each trial as soon as it is known, and then the table."""
    from tests.support.small_data import pets

    rows = []
    measure = _in_turn if how is How.in_turn else _one_after_the_other
    for model in models.split(","):
        found: list[Trial] = []
        with tempfile.TemporaryDirectory() as folder:
            pets(Path(folder), train=IMAGES[model], test=1)
            for number in range(repeats):
                found.append(measure(model, Path(folder), threads))
                print(
                    f"  {model} {number + 1}/{repeats} {time.strftime('%H:%M:%S')}: "
                    f"{found[-1].estimate:.2f} s [{found[-1].low:.2f}, {found[-1].high:.2f}] for "
                    f"{found[-1].measured:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
        rows.append([f"{model}, {IMAGES[model]} images", *figures_of(found)])
    print(tabulate(rows, HEADER, tablefmt="github"))


def _one_after_the_other(model: str, folder: Path, threads: int) -> Trial:
    estimate = _estimated(model, folder, threads)
    return _trial(estimate, _trained(model, folder, threads))


def _in_turn(model: str, folder: Path, threads: int) -> Trial:
    """Both in threads of their own, of which one runs at a time; waits for a turn are taken out."""
    case = (model, folder, threads)
    estimate, run, turns = in_turn(partial(_estimated, *case), partial(_trained, *case))
    trial = _trial(estimate, run)
    # What an estimate waits between its steps, it takes for the loop's own.
    steps = IMAGES[model] // BATCH
    waited = steps * turns.waited[0][0].seconds / (estimate.warmup + estimate.step.n)
    share = 1 - waited / trial.estimate
    return Trial(
        trial.estimate * share,
        trial.low * share,
        trial.high * share,
        trial.measured - sum(waits.seconds for waits in turns.waited[1]),
    )


def _estimated(model: str, folder: Path, threads: int, progress: Any = None) -> DetectorEstimate:
    from layerbench.detection import EstimateOptions, estimate_detectors

    # In turn, as many steps as the epoch has, so that both see the same minutes.
    extent: dict[str, Any] = {}
    if progress is not None:
        extent = {"steps": IMAGES[model] // BATCH - WARMUP, "seconds": 0.0}
    options = EstimateOptions(
        batch=BATCH,
        epochs=1,
        samples=None,
        data="pets",
        data_dir=folder,
        warmup=WARMUP,
        content=False,
        memory=False,
        **extent,
    )
    record = estimate_detectors([model], options, device="cpu", threads=threads, progress=progress)
    return record.rows[0]


def _trained(model: str, folder: Path, threads: int, progress: Any = None) -> DetectionRun:
    from layerbench.records.recipes import DetectionRecipe
    from layerbench.training.detection.config import RunOptions
    from layerbench.training.detection.run import run_detection

    with tempfile.TemporaryDirectory() as outputs:
        around = RunOptions(
            device="cpu", data_dir=folder, output_dir=Path(outputs), threads=threads
        )
        recipe = DetectionRecipe(model=model, batch=BATCH, profile_steps=0)
        return run_detection(recipe, around, progress=progress).record


def _trial(estimate: DetectorEstimate, run: DetectionRun) -> Trial:
    total = estimate.training
    return Trial(total.value, total.low, total.high, run.epochs[0].train_s)


if __name__ == "__main__":
    on_one_heap()
    typer.run(main)
