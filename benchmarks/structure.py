"""The structure dump against torchinfo's own run on the CPU: time, and memory.

Each run is a process of its own, in alternating order. Time is from the model's name to the
table, without the imports; memory is the process's peak (ru_maxrss) beyond what the imports took.
Both print all depths, with input and output size, parameters and multiply-adds.

    python -m benchmarks.structure
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent

BEFORE = """
import json, resource, sys, time
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model, input, shape = sys.argv[1], sys.argv[2], tuple(json.loads(sys.argv[3]))
"""
OURS = """
import layerbench
from layerbench import reporters
import layerbench.zoo._meta, torch.utils.flop_counter, torchvision
held, start = peak(), time.perf_counter()
table = reporters.render("txt", layerbench.structure(model, input))
"""
TORCHINFO = """
import torch, torchvision
from torchinfo import summary
held, start = peak(), time.perf_counter()
columns = ("input_size", "output_size", "num_params", "mult_adds")
built = torchvision.models.get_model(model, weights=None)
table = str(summary(built, shape, depth=100, col_names=columns, verbose=0, device="cpu"))
"""
AFTER = """
taken = time.perf_counter() - start
print(json.dumps({"seconds": taken, "bytes": peak() - held, "lines": table.count("\\n")}))
"""


def main(
    repeats: Annotated[int, typer.Option(help="Processes of each kind.")] = 5,
    time_model: Annotated[str, typer.Option(help="Model whose time is compared.")] = "resnet101",
    time_input: Annotated[str, typer.Option(help="Its input.")] = "cityscapes",
    memory_model: Annotated[
        str, typer.Option(help="Model whose memory is compared.")
    ] = "regnet_y_128gf",
    memory_input: Annotated[str, typer.Option(help="Its input.")] = "imagenet",
) -> None:
    """Print medians and ratios, paired by repeat."""
    from layerbench.zoo import resolve

    for model, input, what in (
        (time_model, time_input, "seconds"),
        (memory_model, memory_input, "bytes"),
    ):
        shape = resolve(model, input).shape
        pairs = [
            tuple(_run(code, model, input, shape) for code in (OURS, TORCHINFO))
            for _ in range(repeats)
        ]
        _print(f"{model} on {input}", what, pairs)


def _run(code: str, model: str, input: str, shape: tuple[int, ...]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + code + AFTER, model, input, json.dumps(shape)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _print(title: str, what: str, pairs: list[tuple[dict[str, float], ...]]) -> None:
    scale, unit = (1.0, "s") if what == "seconds" else (2.0**20, "MiB")
    ours, theirs = ([pair[side][what] / scale for pair in pairs] for side in (0, 1))
    ratio = statistics.median(b / max(a, 1e-9) for a, b in zip(ours, theirs, strict=True))
    print(f"{title}, {len(pairs)} pairs of processes: {what}")
    print(f"  layerbench {statistics.median(ours):.3f} {unit}")
    print(f"  torchinfo on the CPU {statistics.median(theirs):.3f} {unit}")
    print(f"  ratio {ratio:.1f}")


if __name__ == "__main__":
    typer.run(main)
