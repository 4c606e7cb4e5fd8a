"""The cards that predictions can be made for."""

from __future__ import annotations

from layerbench._version import __version__
from layerbench.environment import cards
from layerbench.profilers.latency.checked import checked
from layerbench.records.cards import Cards, CheckedCard


def devices(name: str | None = None) -> Cards:
    """The GPUs that predictions can be made for without them, and how well these were checked.

    Args:
        name: of one of them, however it is spelled, or a file that describes one; ``None`` for all.

    Returns:
        the record: a row for each card, in SI units.

    Raises:
        UsageError: no such card; says what to do.
    """
    wanted = cards.known() if name is None else (cards.get(name),)
    rows = tuple(CheckedCard(card=card, checked=checked(card.name)) for card in wanted)
    return Cards(layerbench=__version__, rows=rows)
