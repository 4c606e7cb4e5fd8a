"""Peak memory of a process that profiles, against one that only runs the model as often.

Each run is a process of its own, in alternating order; its peak is the kernel's (ru_maxrss).

    python -m benchmarks.memory
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent

BARE = """
import sys, torch
from layerbench import zoo
model, input, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
built = zoo.build(zoo.resolve(model, input))
built.module.eval()
with torch.inference_mode():
    for _ in range(iterations):
        built.module(*built.args, **built.kwargs)
"""

PROFILE = """
import sys, layerbench
model, input, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3])
layerbench.profile(model, input, device="cpu", threads=1, warmup=0, iterations=iterations // 2)
"""

PRINT_PEAK = """
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main(
    model: Annotated[str, typer.Option(help="Model spec.")] = "mobilenet_v2",
    input: Annotated[str, typer.Option(help="Input.")] = "1x3x224x224",
    iterations: Annotated[int, typer.Option(help="Forwards in each process.")] = 600,
    repeats: Annotated[int, typer.Option(help="Processes of each kind.")] = 5,
) -> None:
    """Print both peaks in MiB and their ratio, paired by repeat."""
    pairs = []
    for _ in range(repeats):
        bare, profiled = (_peak(code, model, input, iterations) for code in (BARE, PROFILE))
        pairs.append((bare, profiled))
    bare_mib, profile_mib = (statistics.median(side) / 2**20 for side in zip(*pairs, strict=True))
    ratio = statistics.median(profiled / bare for bare, profiled in pairs)
    print(f"{model} {input}, {iterations} forwards a process, {repeats} pairs of processes")
    print(f"peak of the bare run {bare_mib:.1f} MiB, of the profile {profile_mib:.1f} MiB")
    print(f"ratio {ratio:.4f}")


def _peak(code: str, model: str, input: str, iterations: int) -> int:
    """Peak resident bytes of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code + PRINT_PEAK, model, input, str(iterations)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
