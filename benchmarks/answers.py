"""Which layer is slowest, and why: what four tools print of one model.

Each runs in a process of its own, in the way its documentation shows first: MobileNet-V2, one image
of 224x224, one thread. Seconds are from the built model to the last line, without imports. Where
DeepSpeed is not installed, a line says so.

    python -m benchmarks.answers
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent

BEFORE = """
import contextlib, io, json, sys, time
import torch, torchvision
torch.set_num_threads(1)
model, x = torchvision.models.mobilenet_v2().eval(), torch.rand(1, 3, 224, 224)
printed = io.StringIO()
"""
AFTER = """
print(json.dumps({"seconds": time.perf_counter() - began, "text": printed.getvalue()}))
"""
TOOLS = {
    "layerbench": """
import layerbench
from layerbench import reporters
began = time.perf_counter()
with contextlib.redirect_stdout(printed):
    layerbench.profile(model, x, iterations=30).show()
""",
    "torchinfo": """
from torchinfo import summary
began = time.perf_counter()
with contextlib.redirect_stdout(printed):
    print(summary(model, input_data=x, verbose=0))
""",
    "torch.profiler": """
from torch.profiler import ProfilerActivity, profile
began = time.perf_counter()
with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as profiled:
    model(x)
with contextlib.redirect_stdout(printed):
    print(profiled.key_averages().table(sort_by="cpu_time_total", row_limit=10))
""",
    "DeepSpeed": """
from deepspeed.profiling.flops_profiler import get_model_profile
began = time.perf_counter()
with contextlib.redirect_stdout(printed):
    get_model_profile(model, (1, 3, 224, 224))
""",
}


def main(
    shown: Annotated[int, typer.Option(help="Lines of each that are printed.")] = 14,
    width: Annotated[int, typer.Option(help="Columns of them that are printed.")] = 110,
) -> None:
    """Print seconds and lines of each tool, and its first lines."""
    for tool, code in TOOLS.items():
        done = subprocess.run(
            [sys.executable, "-c", BEFORE + code + AFTER],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode:
            print(f"{tool}: did not run: {done.stderr.strip().splitlines()[-1]}\n")
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        lines = result["text"].rstrip("\n").split("\n")
        widest = max(map(len, lines))
        print(f"{tool}: {result['seconds']:.1f} s, {len(lines)} lines of up to {widest} columns")
        print("\n".join(line[:width] for line in lines[:shown]), end="\n\n")


if __name__ == "__main__":
    typer.run(main)
