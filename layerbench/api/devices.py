"""The cards that predictions can be made for, and the same work on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbench._version import __version__
from layerbench.environment import cards
from layerbench.environment.cards import CardChoice
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.errors import UsageError, at_least, did_you_mean, is_number
from layerbench.profilers.latency.checked import checked
from layerbench.records.card import Card, plain_name
from layerbench.records.cards import Cards, CheckedCard

if TYPE_CHECKING:
    import torch
    from torch import nn

    from layerbench.profilers.progress import Progress
    from layerbench.records.card_estimates import CardEstimates
    from layerbench.records.memory import Optimizer
    from layerbench.records.workload import DType, Precision

MOST_PRICE = 1e12
"""Of an hour, in any currency: what is more is a mistake."""


def devices(name: CardChoice | None = None) -> Cards:
    """The GPUs that predictions can be made for without them, and how well these were checked.

    Args:
        name: of one of them, however it is spelled, or the path of a file that describes one;
            ``None`` for all.

    Returns:
        the record: a row for each card, in SI units.

    Raises:
        UsageError: no such card; says what to do.
    """
    wanted = cards.known() if name is None else (cards.get(name),)
    rows = tuple(CheckedCard(card=card, checked=checked(cards.sheet_of(card))) for card in wanted)
    return Cards(layerbench=__version__, rows=rows)


@one_at_a_time
def estimate_devices(
    model: str | nn.Module,
    input: str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    *,
    devices: CardChoice | Sequence[CardChoice] | None = None,
    batch: int | None = None,
    training: bool = False,
    optimizer: Optimizer | None = None,
    samples: int | None = None,
    epochs: int = 1,
    prices: Mapping[str, float] | None = None,
    spare_memory: float = 0.0,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    inputs: str | Path | None = None,
    checkpoint_activations: Sequence[str] | None = None,
    gradient_accumulation: int = 1,
    ddp: bool = False,
    progress: Progress | bool | None = None,
) -> CardEstimates:
    """Which GPU to take: whether the work fits each, how fast it is there, and what it costs.

    Args:
        model, input, precision, dtype, channels_last, seed, checkpoint, inputs: as in `profile`.
        devices: names of cards, paths of files that describe some, or `layerbench.Card` objects;
            ``None`` for all that are known.
        batch: images of a forward or micro-batch; ``None`` for the largest that fits each card, in
            eights.
        training: training steps instead of forwards.
        optimizer: of the training; ``sgd`` if none is named.
        samples: images that are gone through ``epochs`` times: the record has the time of all.
        prices: of an hour, by the name of the card, in any currency: the record has the cost.
        spare_memory: part of each card's memory that others have.
        checkpoint_activations, gradient_accumulation: of the training step; as in
            `profile_training`.
        ddp: one process of a training with DistributedDataParallel: its memory counts,
            and exchanging gradients takes no time here.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each card.

    Returns:
        the record: a row for each card, the cheapest first where there are prices, else the
        fastest.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    wanted = cards.known() if devices is None else cards.each_once(devices)
    by_name = _prices({} if prices is None else prices, wanted)
    at_least("epochs", epochs, 1)
    if samples is not None:
        at_least("samples", samples, 1)
    elif by_name or epochs != 1:
        what = "prices need" if by_name else "epochs need"
        raise UsageError(f"{what} samples: how many images an epoch has")
    if not at_least("spare_memory", spare_memory, 0.0) < 1:
        raise UsageError(f"spare_memory is a part of a card's memory, got {spare_memory:g}")

    from layerbench.api.bars import heard  # these load torch
    from layerbench.api.inputs import optimizer_of, step_of, what_runs
    from layerbench.profilers.card_estimates import Job, estimate_cards
    from layerbench.units import by_x
    from layerbench.zoo.inputs import OWN

    chosen = optimizer_of(training, optimizer)
    workload, subject = what_runs(
        model,
        input,
        batch=batch,
        precision=precision,
        dtype=dtype,
        channels_last=channels_last,
        mode="train" if training else "eval",
        seed=seed,
        checkpoint=checkpoint,
        inputs=inputs,
        step=step_of(training, checkpoint_activations, gradient_accumulation),
        ddp=ddp,
    )
    alone = isinstance(input, str) and input.strip().lower() == by_x(workload.shape[1:])
    with_batch = workload.input == by_x(workload.shape) and not alone
    own = subject is not None or workload.input == OWN or workload.inputs is not None
    if batch is not None or with_batch or own:
        batch = workload.batch
    job = Job(samples, epochs, by_name, batch, spare_memory)
    with heard(progress) as listener:
        return estimate_cards(
            workload, wanted, job, optimizer=chosen, subject=subject, progress=listener
        )


def _prices(prices: Mapping[str, float], wanted: Sequence[Card]) -> dict[str, float]:
    """Prices by the names that the cards have here.

    Raises:
        UsageError: no such card is looked at, or no such price.
    """
    if not isinstance(prices, Mapping):
        raise UsageError(f"prices are given by the names of cards: {{'t4': 0.35}}, not {prices!r}")
    found: dict[str, float] = {}
    for name, price in prices.items():
        if not isinstance(name, str):
            raise UsageError(f"a price is of a card's name, not of {name!r}")
        card = next((one for one in wanted if one.is_named(name)), None)
        if card is None:
            known = [one.name for one in wanted]
            close = did_you_mean(plain_name(name), known)
            raise UsageError(
                f"there is a price for {name}, which is not among the devices"
                f"{f' ({close})' if close else ''}: {', '.join(known)}"
            )
        if card.name in found:
            raise UsageError(f"there are two prices for {card.name}")
        if not is_number(price):
            raise UsageError(f"the price of {name} must be a number, got {price!r}")
        if not 0 <= price <= MOST_PRICE:
            raise UsageError(
                f"the price of {name} is {price:g}: an hour costs nothing or more, and at most "
                f"{MOST_PRICE:g}"
            )
        found[card.name] = price
    return found
