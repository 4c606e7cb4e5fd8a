"""How long ``timer.py --help`` takes, beside Python itself: ``python -m benchmarks.startup``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

TIMER = Path(__file__).resolve().parent.parent / "timer.py"


def main(repeats: Annotated[int, typer.Option(help="Starts of each kind.")] = 20) -> None:
    """Print the medians and the largest of interleaved starts."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "python timer.py --help": [str(TIMER), "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-2, repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        print(f"{name}: median {statistics.median(taken):.3f} s, largest {max(taken):.3f} s")


if __name__ == "__main__":
    typer.run(main)
