"""GPUs that predictions can be made for, and how well these have been checked."""

from __future__ import annotations

from typing import Literal

from layerbench.records.bounds import Name, Text
from layerbench.records.card import Card
from layerbench.records.kinds import Record
from layerbench.records.workload import Frozen


class CheckedCard(Frozen):
    """A card.

    Attributes:
        card: its figures.
        checked: how far predicted times were from measured ones of this card, in words.
    """

    card: Card
    checked: Text


class Cards(Record):
    """Cards in the order of the table that they are from.

    Attributes:
        layerbench: the version whose predictions were checked.
    """

    record: Literal["cards"] = "cards"
    layerbench: Name
    rows: tuple[CheckedCard, ...]
    notes: tuple[Text, ...] = ()
