"""Whether a device's name means a card or one of PyTorch's devices. Loads torch."""

from __future__ import annotations

import torch

from layerbench.environment import cards
from layerbench.environment.cards import CardChoice
from layerbench.records.card import Card


def meant(device: CardChoice | None) -> Card | None:
    """The card that a device's name means; ``None`` for what PyTorch calls a device, as ``cuda``.

    Raises:
        UsageError: it is neither.
    """
    if not (device is None or isinstance(device, str)):
        return cards.get(device)
    name = (device or "cpu").strip()
    if name.lower().endswith(cards.SUFFIX) or cards.find(name) is not None:
        return cards.get(name)
    return None if name.lower() == "auto" or _is_pytorchs(name.lower()) else cards.get(name)


def _is_pytorchs(name: str) -> bool:
    # Other packages' devices have names, too.
    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True
