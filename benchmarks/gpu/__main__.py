"""One step in this process: ``python -m benchmarks.gpu STEP --out DIR``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

STEPS = (
    *("events", "rounds", "ramp", "processes", "prediction", "limit"),
    *("sweep", "loop", "reports", "memory", "graphs"),
)


def main(
    step: Annotated[str, typer.Argument(help=f"{', '.join(STEPS)}; or summary, of all that ran.")],
    out: Annotated[Path, typer.Option(help="Folder of results.")],
    device: Annotated[str, typer.Option(help="Device to run on.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="A tiny model, a few repeats.")] = False,
) -> None:
    """Run one step, or sum up what the steps have left."""
    if step == "summary":
        from benchmarks.gpu.summary import summarize

        print(summarize(out))
        return
    if step not in STEPS:
        raise typer.BadParameter(f"no step {step!r}: one of {', '.join(STEPS)}, summary")
    # After the cheap checks: these load torch.
    from benchmarks.gpu import simulator
    from benchmarks.gpu.step import Settings, run_step

    simulator.prepare(device, quick)
    out.mkdir(parents=True, exist_ok=True)
    run = importlib.import_module(f"benchmarks.gpu.{step}").run
    run_step(step, run, Settings(device, out, quick))
    print((out / f"{step}.txt").read_text(), end="")


if __name__ == "__main__":
    typer.run(main)
