"""How far `layerbench estimate training-time` is from the epoch that then runs.

    python -m benchmarks.training_estimate
    python -m benchmarks.training_estimate --how after
    python -m benchmarks.training_estimate --how apart

ResNet-18 and MobileNet-V2 on digits (resized to 32x32) and on synthetic 64x64 images, on the CPU:
an estimate and an epoch, validation included, several times over.

``in-turn``: both in one process, a step of the one and a step of the other in turn, as many as the
epoch has, so that the machine's speed moves for both alike: this shows how good the extrapolation
is. ``after``: the epoch
right after the estimate. ``apart``: each in a fresh process, as a user's would be. The last two
show what moments and processes of this machine differ by besides. Run it on an idle machine.
"""

from __future__ import annotations

import json
import subprocess
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
    from layerbench.records.training_estimate import TrainingEstimate
    from layerbench.records.training_run import TrainingRun

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet18", "mobilenet_v2")
DATA = {"digits": ("digits", 32), "synthetic 64x64": ("synthetic", 64)}
BATCH = 16
WARMUP = 5


class How(str, Enum):
    """What runs when."""

    in_turn = "in-turn"
    after = "after"
    apart = "apart"


def main(
    repeats: Annotated[int, typer.Option(help="Of each case.")] = 5,
    threads: Annotated[int, typer.Option(help="Intra-op CPU threads.")] = 1,
    how: Annotated[How, typer.Option(help="Estimate and epoch, in one process or two.")] = (
        How.in_turn
    ),
) -> None:
    """Print each trial as soon as it is known, and then the table."""
    rows = []
    trials: list[Trial] = []
    measure = {
        How.in_turn: _in_turn,
        How.after: _one_after_the_other,
        How.apart: _in_two_processes,
    }[how]
    for model in MODELS:
        for name, (data, size) in DATA.items():
            found = []
            for number in range(repeats):
                found.append(measure(model, data, size, threads))
                print(
                    f"  {model}, {name} {number + 1}/{repeats} {time.strftime('%H:%M:%S')}: "
                    f"{found[-1].estimate:.2f} s [{found[-1].low:.2f}, {found[-1].high:.2f}] for "
                    f"{found[-1].measured:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
            rows.append([f"{model}, {name}", *figures_of(found)])
            trials += found
    print(tabulate([*rows, ["all", *figures_of(trials)]], HEADER, tablefmt="github"))


# --- in one process ------------------------------------------------------------------------


def _one_after_the_other(model: str, data: str, size: int, threads: int) -> Trial:
    estimate = _estimated(model, data, size, threads)
    return _trial(estimate, _trained(model, data, size, threads))


def _in_turn(model: str, data: str, size: int, threads: int) -> Trial:
    """Both in threads of their own, of which one runs at a time; waits for a turn are taken out."""
    case = (model, data, size, threads)
    estimate, run, turns = in_turn(partial(_estimated, *case), partial(_trained, *case))
    # What an estimate waits between its steps, it takes for the loop's own.
    stepping, validating = turns.waited[0]
    waited = estimate.steps * stepping.seconds / (estimate.warmup + estimate.step.n)
    if estimate.val_steps:
        waited += estimate.val_steps * validating.seconds / validating.times
    trial = _trial(estimate, run)
    share = 1 - waited / trial.estimate
    return Trial(
        trial.estimate * share,
        trial.low * share,
        trial.high * share,
        trial.measured - sum(waits.seconds for waits in turns.waited[1]),
    )


def _estimated(
    model: str, data: str, size: int, threads: int, progress: Any = None
) -> TrainingEstimate:
    import layerbench

    # In turn, as many steps as the epoch has, so that both see the same seconds.
    extent: dict[str, Any] = {}
    if progress is not None:
        extent = {"steps": _steps(data, size) - WARMUP, "seconds": 0.0}
    return layerbench.estimate_training_time(
        model,
        epochs=1,
        data=data,
        size=(size, size),
        batch=BATCH,
        device="cpu",
        threads=threads,
        warmup=WARMUP,
        **extent,
        progress=progress,
    )


def _steps(data: str, size: int) -> int:
    """Of an epoch."""
    from layerbench import datasets

    asked = datasets.DatasetOptions(root=ROOT / "data", size=(size, size))
    return len(datasets.get(data).open(asked).train) // BATCH


def _trained(model: str, data: str, size: int, threads: int, progress: Any = None) -> TrainingRun:
    import layerbench

    with tempfile.TemporaryDirectory() as folder:
        return layerbench.train(
            model,
            pretrained=False,
            epochs=1,
            data=data,
            size=(size, size),
            batch=BATCH,
            device="cpu",
            threads=threads,
            points=False,
            output_dir=folder,
            progress=progress,
        ).record


def _trial(estimate: TrainingEstimate, run: TrainingRun) -> Trial:
    total, epoch = estimate.total, run.epochs[0]
    return Trial(total.value, total.low, total.high, epoch.train_s + epoch.validation_s)


# --- each in its own -----------------------------------------------------------------------


def _in_two_processes(model: str, data: str, size: int, threads: int) -> Trial:
    options = ("--model", model, "--data", data, "--size", str(size), "--batch_size", str(BATCH))
    options = (*options, "--threads", str(threads), "--epochs", "1")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run("-m", "layerbench", "estimate", "training-time", *options, "--out", folder)
        _run("train.py", *options, "--no-pretrained", "--no-points", "--output_dir", folder)
        estimate = _json(next(place.glob("*/training-time_*.json")))
        epoch = _json(next(place.glob("*/run.json")))["epochs"][0]
    total = estimate["total"]
    measured = epoch["train_s"] + epoch["validation_s"]
    return Trial(total["value"], total["low"], total["high"], measured)


def _run(*arguments: str) -> None:
    command = [sys.executable, *arguments, "--device", "cpu", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    on_one_heap()
    typer.run(main)
