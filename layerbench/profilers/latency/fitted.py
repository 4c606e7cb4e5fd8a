"""A time for each operator on a card: the fitted network's, and what the device waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from layerbench.environment.cards import sheet_of
from layerbench.profilers.latency.features import Floats, features_of
from layerbench.profilers.latency.network import DeviceTimes, fitted_for
from layerbench.profilers.latency.operators import Operator
from layerbench.profilers.latency.table import row_of
from layerbench.profilers.latency.whole import launch_of, waits_of
from layerbench.records.card import Card
from layerbench.records.latency_estimate import Limit
from layerbench.records.workload import Workload


class OperatorTime(NamedTuple):
    """Of one operator.

    Attributes:
        seconds: of its kernels, and what the device waits for its launch.
        limit: what most of them are bound by.
        waiting_s: the part of ``seconds`` in which the device waits.
    """

    seconds: float
    limit: Limit
    waiting_s: float = 0.0


def times(operators: Sequence[Operator], card: Card, workload: Workload) -> list[OperatorTime]:
    """A time for each operator.

    Args:
        operators: of a trace that is right for the workload's batch.
        card: where they would run.
        workload: with the batch, the precision and the memory format.
    """
    if not operators:
        return []
    device = _device_times(operators, card, workload)
    launched = np.array([operator.kind != "optimizer" for operator in operators])
    waits = waits_of(device.seconds, launched, launch_of(card))
    return [
        OperatorTime(float(seconds + wait), _limit(seconds, wait, by_compute), float(wait))
        for seconds, wait, by_compute in zip(device.seconds, waits, device.by_compute, strict=True)
    ]


def _device_times(operators: Sequence[Operator], card: Card, workload: Workload) -> DeviceTimes:
    """Equal operators are looked at once."""
    places: dict[tuple[int, ...], int] = {}
    at = np.array([places.setdefault(row_of(operator), len(places)) for operator in operators])
    features = features_of(
        np.array(list(places), dtype=np.int64),
        workload.batch,
        card,
        precision=workload.precision,
        channels_last=workload.memory_format == "channels_last",
    )
    name = sheet_of(card)
    device = fitted_for(name).device_times(features, name)
    return DeviceTimes(device.seconds[at], device.by_compute[at])


def _limit(seconds: Floats, wait: Floats, by_compute: np.bool_) -> Limit:
    if wait > seconds:
        return "launch"
    return "compute" if by_compute else "memory"
