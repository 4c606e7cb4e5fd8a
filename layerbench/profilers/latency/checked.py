"""How well predicted times of a card have been checked."""

from __future__ import annotations

NOT_CHECKED = "not checked"


def checked(card_name: str) -> str:  # noqa: ARG001 - no card has been checked yet
    """How far predictions were from measured times, in words, for the column of a table.

    Args:
        card_name: of a known card; any other has not been checked.
    """
    return NOT_CHECKED
