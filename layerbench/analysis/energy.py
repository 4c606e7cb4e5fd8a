"""What each layer has of a forward's energy, and how far that is known. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from layerbench.records.energy import Energy
from layerbench.records.timing import LayerRow, Profile


@dataclass(frozen=True)
class LayerEnergy:
    """The energy of what a layer does itself, in joules of one forward.

    No counter tells layers apart. ``joules`` is the share of the time times the whole's energy, as
    if all layers drew the same power.

    Attributes:
        row: of the layer.
        share: of the time.
        joules: that share of the energy.
        low, high: what energy is conserved within. A layer draws at least the idle power, and so do
            all others: it has no less than the idle power for its time, and no more than the whole
            less the idle power for the rest of the time. Nor does it draw more than the limit.
    """

    row: LayerRow
    share: float
    joules: float
    low: float
    high: float


def by_layer(record: Profile) -> list[LayerEnergy]:
    """Of each module that was timed, in the order of the rows; empty without energy."""
    energy, base = record.energy, record.base.mean
    if energy is None or base <= 0:
        return []
    found = []
    for row in record.layers:
        if row.kind != "module" or row.self_ is None:
            continue
        share = row.self_.mean / base
        low, high = bounds(energy, share)
        found.append(LayerEnergy(row, share, share * energy.forward_j, low, high))
    return found


def bounds(energy: Energy, share: float) -> tuple[float, float]:
    """Between what joules the energy of a part lies, by its share of the time: `LayerEnergy`."""
    time_s = share * energy.forward_s
    most = energy.high_j - energy.idle_w * (energy.forward_s - time_s)
    if energy.limit_w is not None:
        most = min(most, energy.limit_w * time_s)
    low = min(energy.idle_w * time_s, share * energy.low_j)
    return low, max(most, share * energy.high_j)


def energy_together(processes: Sequence[Energy | None]) -> Energy | None:
    """The energy over several processes: means; the interval reaches over all of theirs.

    Args:
        processes: of each; none where one of them has none, or has read other counters.
    """
    there = [energy for energy in processes if energy is not None]
    first = there[0] if there else None
    if first is None or len(there) < len(processes):
        return None
    if any(energy.parts_j.keys() != first.parts_j.keys() for energy in there):
        return None

    def mean(name: str) -> float:
        return fsum(getattr(energy, name) for energy in there) / len(there)

    parts = {name: fsum(e.parts_j[name] for e in there) / len(there) for name in first.parts_j}
    return first.model_copy(
        update={
            **{name: mean(name) for name in ("forward_j", "power_w", "forward_s", "idle_w")},
            "low_j": min(energy.low_j for energy in there),
            "high_j": max(energy.high_j for energy in there),
            "parts_j": parts,
            "windows": sum(energy.windows for energy in there),
            "forwards": sum(energy.forwards for energy in there),
            "window_s": min(energy.window_s for energy in there),
            "step_s": max(energy.step_s for energy in there),
        }
    )
