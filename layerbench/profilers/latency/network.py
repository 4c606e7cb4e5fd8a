"""The fitted network: how far each operator stays from the shortest times of its card."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerbench.profilers.latency.features import Features, Floats

WEIGHTS = "weights.npz"
WEIGHTS_ANY_CARD = "weights_any_card.npz"
"""Beside this file: for cards that a fit has seen, and for others. ``python -m
benchmarks.latency_fit`` makes both."""

POWER = 4
"""Of the sum of the times of arithmetic and of memory: the longer one counts, and at equal ones
the other adds something."""

MOST_COMPUTE, LEAST_COMPUTE = 1.3, 0.01
MOST_MEMORY, LEAST_MEMORY = 1.5, 0.02
"""Between these lie efficiencies. Above one: cards clock higher than their data sheets state, and
tensors are found in the cache."""

SHORTEST_LOG_MS, LONGEST_LOG_MS = -9.0, -3.0
"""What a kernel takes besides, as the logarithm of milliseconds."""

MEMBERS, WIDTH, CARD_WIDTH = 2, 48, 3
"""Networks that are averaged, units of a layer, and numbers that stand for a card."""


class DeviceTimes(NamedTuple):
    """Of each row of a table, seconds on the device.

    Attributes:
        seconds: of the kernels of one operator.
        by_compute: whether its arithmetic takes longer than its memory.
    """

    seconds: Floats
    by_compute: NDArray[np.bool_]


class Network(NamedTuple):
    """An ensemble of networks with two hidden layers.

    Attributes:
        cards: names that a fit has seen.
        card: float32, ``(members, cards + 1, CARD_WIDTH)``; the first stands for any other card.
        card_in, first, first_bias, second, second_bias, last, last_bias: weights, members first.
        launch_s: that the hosts of V100 and T4 take for an operator in eager mode, one number.
    """

    cards: NDArray[np.str_]
    card: NDArray[np.float32]
    card_in: NDArray[np.float32]
    first: NDArray[np.float32]
    first_bias: NDArray[np.float32]
    second: NDArray[np.float32]
    second_bias: NDArray[np.float32]
    last: NDArray[np.float32]
    last_bias: NDArray[np.float32]
    launch_s: NDArray[np.float64]

    @classmethod
    def of_bytes(cls, content: bytes) -> Network:
        """From what `to_bytes` gave."""
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return cls(*(arrays[name] for name in cls._fields))

    def to_bytes(self) -> bytes:
        """As a file of arrays, without pickles."""
        stream = BytesIO()
        np.savez_compressed(stream, **self._asdict())
        return stream.getvalue()

    def place_of(self, card: str) -> int:
        """Which row of ``card`` is a card's."""
        return 1 + int(np.argmax(self.cards == card)) if card in self.cards else 0

    def device_times(self, features: Features, card: str) -> DeviceTimes:
        """What the kernels take.

        Args:
            features: of each operator.
            card: its name.
        """
        place, times, by_compute = self.place_of(card), [], []
        for member in range(len(self.card)):
            known = self.card[member, place] @ self.card_in[member].T
            hidden = _silu(features.inputs @ self.first[member].T + self.first_bias[member] + known)
            hidden = _silu(hidden @ self.second[member].T + self.second_bias[member])
            out = (hidden @ self.last[member].T + self.last_bias[member]).astype(np.float64)
            compute = features.compute_s / (_sigmoid(out[:, 0]) * MOST_COMPUTE + LEAST_COMPUTE)
            memory = features.memory_s / (_sigmoid(out[:, 1]) * MOST_MEMORY + LEAST_MEMORY)
            besides = np.exp(np.clip(out[:, 2], SHORTEST_LOG_MS, LONGEST_LOG_MS)) / 1e3
            times.append((compute**POWER + memory**POWER) ** (1 / POWER) + besides)
            by_compute.append(compute - memory)
        return DeviceTimes(np.mean(times, axis=0), np.mean(by_compute, axis=0) > 0)


def fitted_for(card: str) -> Network:
    """The network that answers for a card."""
    return fitted() if card in fitted().cards else _read(WEIGHTS_ANY_CARD)


def fitted() -> Network:
    """The network that has seen cards, and answers for these."""
    return _read(WEIGHTS)


@cache
def _read(name: str) -> Network:
    return Network.of_bytes((files(__package__) / name).read_bytes())


def _sigmoid(values: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-values))
    return result


def _silu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = values / (1 + np.exp(-values))
    return result
