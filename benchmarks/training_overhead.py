"""What timing forward and backward of every layer adds to a training step, and what adds up.

    python -m benchmarks.training_overhead

Untouched and instrumented steps in turn, as `layerbench train-profile` runs them; the ratio is the
median over rounds, with its 95 % interval. Run it on an idle machine.
"""

from __future__ import annotations

from typing import Annotated

import typer
from tabulate import tabulate

import layerbench
from layerbench import units

CASES = (
    ("resnet18", "8x3x64x64"),
    ("resnet50", "8x3x64x64"),
    ("mobilenet_v2", "8x3x64x64"),
    ("densenet121", "4x3x64x64"),
    ("timm:vit_tiny_patch16_224", "4x3x224x224"),
)


def main(
    rounds: Annotated[int, typer.Option(help="Of each model.")] = 100,
    threads: Annotated[int, typer.Option(help="Intra-op CPU threads.")] = 1,
) -> None:
    """Print a row for each model."""
    rows = []
    for model, shape in CASES:
        found = layerbench.profile_training(
            model, shape, device="cpu", threads=threads, iterations=rounds
        )
        rows.append(
            [
                f"{model} {shape}",
                units.seconds(found.step.median),
                f"{found.overhead:.4f}",
                f"{found.overhead_low:.4f} to {found.overhead_high:.4f}",
                f"{found.forward_sum_ratio:.6f}",
                f"{found.backward_sum_ratio:.6f}",
            ]
        )
    header = ["model", "step", "instrumented / untouched", "95 %", "forward sum", "backward sum"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    typer.run(main)
