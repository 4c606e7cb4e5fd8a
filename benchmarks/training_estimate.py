"""How far `layerbench estimate training-time` is from the epoch that then runs.

    python -m benchmarks.training_estimate
    python -m benchmarks.training_estimate --apart

ResNet-18 and MobileNet-V2 on digits (resized to 32x32) and on synthetic 64x64 images, on the CPU:
an estimate, and right after it an epoch, validation included, several times over. Both run in one
process, which shows how good the extrapolation is; with ``--apart`` each in a fresh process, as a
user's would, which shows what processes and moments of this machine differ by besides. Run it on an
idle machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet18", "mobilenet_v2")
DATA = {"digits": ("digits", 32), "synthetic 64x64": ("synthetic", 64)}
BATCH = 16


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
    apart: Annotated[bool, typer.Option("--apart", help="Each in a fresh process.")] = False,
) -> None:
    """Print each trial as soon as it is known, and then the table."""
    rows = []
    trials: list[Trial] = []
    measure = _in_two_processes if apart else _in_this_process
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


def _in_this_process(model: str, data: str, size: int, threads: int) -> Trial:
    import layerbench

    common = {"data": data, "size": (size, size), "batch": BATCH, "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        estimate = layerbench.estimate_training_time(model, epochs=1, threads=threads, **common)
        trained = layerbench.train(
            model,
            pretrained=False,
            epochs=1,
            threads=threads,
            points=False,
            output_dir=folder,
            **common,
        )
    epoch = trained.record.epochs[0]
    total = estimate.total
    return Trial(total.value, total.low, total.high, epoch.train_s + epoch.validation_s)


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
