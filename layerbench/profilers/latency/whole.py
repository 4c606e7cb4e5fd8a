"""A whole from its operators: the device works, and the host launches, one beside the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerbench.profilers.latency.features import Floats
from layerbench.records.card import Card

LAUNCH_S = 43e-6
"""Seconds that PyTorch's host takes for an operator in eager mode.

``python -m benchmarks.latency_fit`` prints what fits the published times at batch 1 best,
of the hosts of V100 and T4.
"""

LATER_LAUNCH_S = 20e-6
"""The same on hosts of later cards: assumed, as nothing was published of them at batch 1."""

LATER = (8, 0)
"""Compute capability from which on a card counts as later."""

OVERLAP = 8
"""The host is far ahead of the device, or the device waits for the host: the longer one counts,
and where both take as long, some of the other."""


def launch_of(card: Card) -> float:
    """Seconds that the host of a card takes for an operator."""
    return LATER_LAUNCH_S if card.version >= LATER else LAUNCH_S


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
