"""Fit the model of times on cards anew, and measure how wrong it is.

    python -m benchmarks.latency_fit [--no-errors]

Writes the weights and the errors that the package comes with, from the published times and the
traces of benchmarks/data alone. The same data give the same weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

import layerbench.profilers.latency
from benchmarks.latency_fit.held_out import predictions
from benchmarks.latency_fit.published import published
from benchmarks.latency_fit.questions import answers, by_card
from benchmarks.latency_fit.tables import print_tables
from benchmarks.latency_fit.traces import Traces
from benchmarks.latency_fit.training import dataset_of, fit
from layerbench.profilers.latency.checked import ERRORS
from layerbench.profilers.latency.network import WEIGHTS, WEIGHTS_ANY_CARD

PACKAGE = Path(next(iter(layerbench.profilers.latency.__path__)))


def main(
    errors: Annotated[bool, typer.Option(help="Fit also with parts held out.")] = True,
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows.")] = None,
) -> None:
    """Write weights.npz, and errors.json beside it."""
    torch.set_num_threads(1)
    data = dataset_of(published(), Traces())
    everything = data.indices([True] * len(data.rows))
    for file, any_card in ((WEIGHTS, False), (WEIGHTS_ANY_CARD, True)):
        fitted = fit(data, everything, any_card=any_card, epochs=epochs)
        (PACKAGE / file).write_bytes(fitted.network().to_bytes())
        launches = ", ".join(f"{name} {us:.0f}" for name, us in fitted.launch_us.items())
        print(f"{file}: {len(data.rows)} times; us of a launch: {launches}", flush=True)
    if errors:
        held_out = predictions(epochs=epochs, said=lambda text: print(text, flush=True))
        content = {
            "families": sorted({row.family for row in data.rows if row.source == "timm"}),
            "trained_on": sorted(
                {row.card for row in data.rows if row.source == "timm" and row.mode == "train"}
            ),
            "cards": by_card(held_out),
            "questions": answers(held_out),
        }
        (PACKAGE / ERRORS).write_text(json.dumps(content, indent=1) + "\n")
        print_tables(held_out)


if __name__ == "__main__":
    typer.run(main)
