"""Predicted times of models on cards beside published ones that the fit had not seen.

    python -m benchmarks.latency_prediction

Fits the model of times anew with a family, a card or some models held out, predicts what was held
out, and says how far off that was. The published times, with their sources, and the traces of the
models stand in benchmarks/data. Takes some ten minutes on two cores.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from benchmarks.latency_fit.held_out import predictions
from benchmarks.latency_fit.tables import print_tables


def main(
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows.")] = None,
    worst: Annotated[int, typer.Option(help="Rows of the table of the worst.")] = 20,
    fits: Annotated[bool, typer.Option(help="Fit anew; else only what predictions take.")] = True,
) -> None:
    """Print how far off predictions of what was held out are, the worst, and what they take."""
    if fits:
        print_tables(predictions(epochs=epochs, said=lambda _: None), worst)
        print()
    for text in _speeds():
        print(text)


def _speeds() -> list[str]:
    """What a prediction takes, in a process that has made one."""
    import layerbench
    from layerbench.environment import cards

    def one(model: str) -> object:
        return layerbench.estimate_latency(model, "8x3x224x224", device="a100", precision="amp")

    def all_cards(model: str) -> object:
        return layerbench.estimate_devices(model, precision="amp")

    def all_cards_trained(model: str) -> object:
        return layerbench.estimate_devices(model, training=True, precision="amp")

    one("resnet18")  # what importing takes is no prediction's time
    count, texts = len(cards.known()), []
    for what, ask in (
        ("The time on one card", one),
        (f"Time and largest batch on {count} cards", all_cards),
        (f"The same of a training step on {count} cards", all_cards_trained),
    ):
        took = []
        for model in ("resnet50", "swin_b", "efficientnet_v2_m"):
            began = time.perf_counter()
            ask(model)
            took.append(f"{model} {time.perf_counter() - began:.1f} s")
        texts.append(f"{what}: {', '.join(took)}")
    return texts


if __name__ == "__main__":
    typer.run(main)
