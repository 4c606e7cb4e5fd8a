"""``layerbench estimate gpus``: which GPU to take for a work, and what it costs there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._generated import fields
from layerbench.errors import UsageError
from layerbench.records.bounds import Positive
from layerbench.records.memory import Optimizer
from layerbench.records.options import PLACE, WHAT_RUNS, option, spelling
from layerbench.records.view import View
from layerbench.records.workload import StepOptions

NAME = "estimate gpus"

WORK = "What is to be done"
BATCH = option(
    "Number of images in a forward or micro-batch.",
    default_text="the input's, else the largest that fits each card, in eights",
)


def command(
    *,
    what: Annotated[
        _options.WorkloadOptions,
        fields(omit=("mode", "compile", "cuda_graph", "weights"), instead={"batch": BATCH}),
    ],
    train: Annotated[
        bool,
        option("A training (forward, backward, optimizer) instead of inference.", panel=WHAT_RUNS),
    ] = False,
    optimizer: Annotated[
        Optimizer | None,
        option(
            "sgd, momentum, adam, adamw, rmsprop or adagrad; needs --train.",
            panel=WHAT_RUNS,
            default_text="sgd with --train",
        ),
    ] = None,
    step: Annotated[StepOptions, fields()],
    ddp: _options.Ddp = False,
    samples: Annotated[
        Positive | None,
        option("Number of images of an epoch: the table has the time of all.", panel=WORK),
    ] = None,
    epochs: Annotated[Positive, option("Number of epochs.", panel=WORK)] = 1,
    price: Annotated[
        list[str] | None,
        option(
            "Prices of an hour, in any currency, such as t4=0.35,a100=1.8: the table has the cost.",
            panel=WORK,
            metavar="PRICES",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        option(
            "Cards, with commas: names of `layerbench devices`, or files that describe one.",
            panel=PLACE,
            metavar="CARDS",
            default_text="all that are known",
        ),
    ] = None,
    spare_memory: Annotated[
        float | None,
        option(
            "Part of each card's memory that is left to others, such as 5%.",
            panel=PLACE,
            metavar="PERCENT",
            default_text="nothing",
        ),
    ] = None,
    out: Annotated[Path | None, _options.out("DIR/<model>_<input>_cards.* and a plot")] = None,
    formats: _options.Formats = None,
    view: Annotated[View, _options.on_first_screen("cards")],
    quiet: _options.Quiet = False,
) -> None:
    """Say of every known GPU whether the work fits, how fast it is there, and what it costs.

    Without --batch each card has the largest batch that fits, in eights. The cheapest card comes
    first where there are prices, else the fastest.
    """
    names = _options.checked_formats(formats, out)
    if not train:
        for name in sorted(step.model_fields_set):
            raise UsageError(f"{spelling(StepOptions, name)} belongs to a training: add --train")
        if optimizer is not None:
            raise UsageError("--optimizer belongs to a training: add --train")
        if ddp:
            raise UsageError("--ddp belongs to a training: add --train")
    prices = _prices(price or [])
    if samples is None:
        for name, said in (("--price", prices), ("--epochs", epochs != 1)):
            if said:
                raise UsageError(f"{name} needs --samples: how many images an epoch has")

    # After the cheap checks: this loads torch.
    from layerbench.api.devices import estimate_devices
    from layerbench.cli._progress import shown

    with shown(what.model, quiet) as progress:
        record = estimate_devices(
            what.model,
            what.input,
            devices=device,
            batch=what.batch,
            training=train,
            optimizer=optimizer,
            samples=samples,
            epochs=epochs,
            prices=prices,
            spare_memory=spare_memory or 0.0,
            precision=what.precision,
            dtype=what.dtype,
            channels_last=what.channels_last,
            seed=what.seed,
            checkpoint=what.checkpoint,
            inputs=what.inputs,
            **dict(step),
            ddp=ddp,
            progress=progress,
        )
    _options.deliver(record, names, out, view)
    if out is not None and any(row.images_per_s for row in record.rows):
        from layerbench import plots
        from layerbench.store import paths, writing

        picture = paths.place(record, out).with_suffix(".png")
        writing.write_bytes(picture, plots.of_cards(record))
        typer.echo(str(picture))


def _prices(texts: list[str]) -> dict[str, float]:
    """Prices by the names that are said, each once."""
    pairs = [_price(text) for text in texts]
    for name, number in Counter(name for name, _ in pairs).items():
        if number > 1:
            raise UsageError(f"--price has {number} prices for {name}")
    return dict(pairs)


def _price(text: str) -> tuple[str, float]:
    """``t4=0.35`` as a name and a number."""
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise UsageError(f"--price takes prices such as t4=0.35,a100=1.8, got {text!r}") from None
