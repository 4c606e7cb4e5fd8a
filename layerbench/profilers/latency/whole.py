"""A whole from its operators: the device works, and the host launches, one beside the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerbench.environment.cards import sheet_of
from layerbench.profilers.latency.features import Floats
from layerbench.profilers.latency.network import fitted_for
from layerbench.records.card import Card

LATER_LAUNCH_S = 20e-6
"""Seconds that PyTorch's host takes for an operator in eager mode, beside a card later than those
that were published of at batch 1: assumed."""

LATER = (8, 0)
"""Compute capability from which on a card counts as later."""

OVERLAP = 8
"""The host is far ahead of the device, or the device waits for the host: the longer one counts,
and where both take as long, some of the other."""


def launch_of(card: Card) -> float:
    """Seconds that the host of a card takes for an operator."""
    if card.version >= LATER:
        return LATER_LAUNCH_S
    return float(fitted_for(sheet_of(card)).launch_s)


def whole_of(device_s: float, operators: int, launch_s: float) -> float:
    """Seconds of a whole.

    Args:
        device_s: what all kernels take.
        operators: that the host launches.
        launch_s: what it takes for each.
    """
    longest = max(device_s, operators * launch_s)
    if longest <= 0:
        return 0.0
    parts = (device_s / longest) ** OVERLAP + (operators * launch_s / longest) ** OVERLAP
    return float(longest * parts ** (1 / OVERLAP))


def waits_of(device_s: Floats, launched: NDArray[np.bool_], launch_s: float) -> Floats:
    """Seconds that the device waits for the host, of each operator.

    What the whole takes beyond the kernels is shared among those that are shorter than a launch.

    Args:
        device_s: of each operator's kernels.
        launched: whether the host launches it by itself.
        launch_s: what it takes for each.
    """
    device = float(device_s.sum())
    waiting = whole_of(device, int(launched.sum()), launch_s) - device
    short = np.where(launched, np.maximum(launch_s - device_s, 0), 0.0)
    total = float(short.sum())
    result: Floats = short * (waiting / total) if total > 0 else short
    return result
