"""How far the kernels of compiled models add up, whose they are, and what it costs to time them.

    python -m benchmarks.compiled

A table with a row for each model, compiled on the CPU. The aims: kernels take 0.97 to 1.03 of the
compiled whole, 99 % of their time belongs to layers, and timing them costs at most 2 %. Forwards
without and with the clock read around kernels take turns; the cost is paired within a round.
"""

from __future__ import annotations

from typing import Annotated

import typer

import layerbench
from layerbench.profilers.compiled_sharing import BETWEEN
from layerbench.records.timing import Profile

MODELS = ("resnet18", "mobilenet_v2", "vit_b_16", "convnext_tiny", "swin_t")
HEADER = (
    "model          kernels  fused  kernels/whole  attributed   cost  95 % interval   compiled in"
)


def row(name: str, profile: Profile) -> str:
    """A model's line.

    The kernels' sum is what an instrumented forward takes less what lies between its kernels, by
    medians; over the untouched whole by the ratio that is paired within a round.

    Args:
        name: of the model.
        profile: of the compiled model, with its layers.
    """
    made, costs = profile.compilation, profile.reconciliation
    if made is None or costs is None:
        return f"{name:<13}  {profile.absent.get('layers', 'no layers')}"
    between = next(one.self_ for one in profile.layers if one.path == f"{BETWEEN}()")
    assert between is not None
    kernels = costs.overhead * (1 - between.median / profile.base.median)
    cost, low, high = (
        100 * (ratio - 1) for ratio in (costs.overhead, costs.overhead_low, costs.overhead_high)
    )
    return (
        f"{name:<13}  {made.kernels:>7}  {made.fused:>5}  {kernels:>13.3f}  "
        f"{made.attributed:>10.1%}  {cost:>4.1f} %  {low:>5.1f} to {high:>5.1f} %  "
        f"{made.seconds:>9.1f} s"
    )


def main(
    models: Annotated[
        list[str] | None, typer.Argument(help="The five models unless named.")
    ] = None,
    input: Annotated[str, typer.Option(help="Of each model.")] = "1x3x224x224",
    iterations: Annotated[int, typer.Option(help="Rounds of each model.")] = 30,
    warmup: Annotated[int, typer.Option(help="Rounds before them.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of each model.")] = 1,
) -> None:
    """Print the table."""
    print(HEADER)
    for name in models or MODELS:
        profile = layerbench.profile(
            name,
            input,
            compile=True,
            device="cpu",
            iterations=iterations,
            warmup=warmup,
            threads=threads,
            ceilings=False,
        )
        print(row(name, profile), flush=True)


if __name__ == "__main__":
    typer.run(main)
