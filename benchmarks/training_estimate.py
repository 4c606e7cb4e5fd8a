"""How far `layerbench estimate training-time` is from the epoch that then runs.

    python -m benchmarks.training_estimate
    python -m benchmarks.training_estimate --how after
    python -m benchmarks.training_estimate --how apart

ResNet-18 and MobileNet-V2 on digits (resized to 32x32) and on synthetic 64x64 images, on the CPU:
an estimate and an epoch, validation included, several times over.

``in-turn``: both in one process, ten steps of the one and ten of the other in turn, so that the
machine's speed moves for both alike: this shows how good the extrapolation is. ``after``: the epoch
right after the estimate. ``apart``: each in a fresh process, as a user's would be. The last two
show what moments and processes of this machine differ by besides. Run it on an idle machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tabulate import tabulate

if TYPE_CHECKING:
    from layerbench.records import TrainingForecast, TrainingRun

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet18", "mobilenet_v2")
DATA = {"digits": ("digits", 32), "synthetic 64x64": ("synthetic", 64)}
BATCH = 16
# In turn: about as much of its own as an epoch takes, so that both see the same minutes.
SECONDS = 25.0


class How(str, Enum):
    """What runs when."""

    in_turn = "in-turn"
    after = "after"
    apart = "apart"


@dataclass(frozen=True)
class Trial:
    """One estimate and the epoch that followed, seconds."""

    estimate: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.estimate / self.measured - 1

    @property
    def held(self) -> bool:
        """Whether the measured epoch lies in the interval."""
        return self.low <= self.measured <= self.high


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
            rows.append([f"{model}, {name}", *_figures(found)])
            trials += found
    header = ["case", "epoch, s", "errors", "median |error|", "interval holds", "its width"]
    print(tabulate([*rows, ["all", *_figures(trials)]], header, tablefmt="github"))


# --- in one process ------------------------------------------------------------------------


def _one_after_the_other(model: str, data: str, size: int, threads: int) -> Trial:
    estimate = _estimated(model, data, size, threads)
    return _trial(estimate, _trained(model, data, size, threads))


def _in_turn(model: str, data: str, size: int, threads: int) -> Trial:
    """Both in threads of their own, of which one runs at a time; waits for a turn are taken out."""
    turns = _Turns()
    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = (
            pool.submit(turns.taken, side, work, model, data, size, threads)
            for side, work in enumerate((_estimated, _trained))
        )
        estimate, run = (job.result() for job in tuple(jobs))
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


@dataclass
class _Waits:
    """How often, and how long, a side waited for its turn."""

    times: int = 0
    seconds: float = 0.0


class _Turns:
    """Lets two threads run in turn: each gives way when it reports progress.

    Attributes:
        waited: for each side, its waits while it stepped and while it validated.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._ended = [False, False]
        self.waited = [(_Waits(), _Waits()) for _ in self._ended]

    def taken(self, side: int, work: Callable[..., Any], *given: object) -> Any:
        """Do a side's work."""
        try:
            self._wait(side)
            return work(*given, progress=_Giving(self, side))
        finally:
            with self._changed:
                self._ended[side] = True
                self._running = 1 - side
                self._changed.notify_all()

    def give(self, side: int, doing: str) -> None:
        """Let the other side run, and wait until it gives back."""
        begins = time.perf_counter()
        with self._changed:
            self._running = 1 - side
            self._changed.notify_all()
        self._wait(side)
        waits = self.waited[side][doing == "validation"]
        waits.times += 1
        waits.seconds += time.perf_counter() - begins

    def _wait(self, side: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running == side or self._ended[1 - side])


@dataclass(frozen=True)
class _Giving:
    """Progress of one side."""

    turns: _Turns
    side: int

    def step(self, phase: str, _done: int, _total: int, /) -> None:
        """Give way after it."""
        self.turns.give(self.side, phase)


def _estimated(
    model: str, data: str, size: int, threads: int, progress: Any = None
) -> TrainingForecast:
    import layerbench

    return layerbench.estimate_training_time(
        model,
        epochs=1,
        data=data,
        size=(size, size),
        batch=BATCH,
        device="cpu",
        threads=threads,
        **({"seconds": SECONDS} if progress else {}),
        progress=progress,
    )


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


def _trial(estimate: TrainingForecast, run: TrainingRun) -> Trial:
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


def _figures(trials: list[Trial]) -> list[str]:
    errors = [trial.error for trial in trials]
    widths = [(trial.high - trial.low) / trial.estimate for trial in trials]
    return [
        f"{statistics.median(trial.measured for trial in trials):.1f}",
        f"{min(errors):+.1%} to {max(errors):+.1%}",
        f"{statistics.median(map(abs, errors)):.1%}",
        f"{sum(trial.held for trial in trials)} of {len(trials)}",
        f"{statistics.median(widths):.0%}",
    ]


if __name__ == "__main__":
    typer.run(main)
