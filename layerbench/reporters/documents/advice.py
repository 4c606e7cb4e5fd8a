"""One sentence of advice, where the figures of a profile carry it."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from layerbench import units
from layerbench.analysis import disturbance
from layerbench.analysis.hotspots import Hotspot
from layerbench.analysis.launching import is_launch_bound
from layerbench.analysis.portions import by_type
from layerbench.records.timing import Profile

# Less than this share of the time is not worth a change.
_WORTH = 0.2
# Layers that reach less than this of the arithmetic roof leave room.
_FAR_BELOW = 0.3
# Time between the layers from where on calls, and not layers, are what to save.
_MOSTLY_CALLS = 0.3
_NAMED = 2


def advice(record: Profile, spots: Sequence[Hotspot]) -> str:
    """What to try first; empty where the figures point at nothing, or mean nothing.

    Args:
        record: a profile.
        spots: its hotspots.
    """
    if not record.layers or disturbance.is_void(record) or _is_lowered(record):
        return ""  # what is advised of a model in Python has been done, or would undo it
    # A host that waits launches late: what launching costs is then no property of the model.
    launches = "" if disturbance.too_busy(record) else _of_launches(record, spots)
    return launches or _of_memory(record, spots) or _of_compute(record, spots)


def _is_lowered(record: Profile) -> bool:
    return record.compilation is not None or record.cuda_graph is not None


def _of_launches(record: Profile, spots: Sequence[Hotspot]) -> str:
    between = fsum(spot.share for spot in spots if spot.between)
    if is_launch_bound(record):
        why = "The device waits for the host to launch its work"
    elif between >= _MOSTLY_CALLS and record.device_rounds is None:
        why = f"{units.percent(between)} of the time lies between the layers"
    else:
        return ""
    ways = "a larger batch or torch.compile makes"
    if record.environment.device.kind == "cuda":
        ways = "a larger batch, torch.compile or CUDA graphs make"
    return f"{why}: {ways} fewer calls for as much work."


def _of_memory(record: Profile, spots: Sequence[Hotspot]) -> str:
    """Layers without arithmetic that counts: what moves through memory, and can be fused."""
    moving = [spot for spot in spots if spot.bound == "memory" and not spot.flops]
    share = fsum(spot.share for spot in moving)
    if share < _WORTH:
        return ""
    mine = {spot.row.type for spot in moving}
    named = [group.name for group in by_type(spots) if group.name in mine][:_NAMED]
    ways = ["torch.compile, which fuses them"]
    if record.workload.memory_format != "channels_last" and len(record.workload.shape) == 4:
        ways.insert(0, "--channels-last")
    return (
        f"Layers that only move data ({', '.join(named)}) take {units.percent(share)}: try "
        f"{' or '.join(ways)}."
    )


def _of_compute(record: Profile, spots: Sequence[Hotspot]) -> str:
    slow = [spot for spot in spots if spot.flops and (spot.of_roof or 1) < _FAR_BELOW]
    share = fsum(spot.share for spot in slow)
    if share < _WORTH or record.workload.memory_format == "channels_last":
        return ""
    if len(record.workload.shape) != 4:
        return ""
    return (
        f"Layers that reach less than {units.percent(_FAR_BELOW)} of what the device can do take "
        f"{units.percent(share)}: try --channels-last."
    )
