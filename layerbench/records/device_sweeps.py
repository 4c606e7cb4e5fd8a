"""One sweep on several kinds of devices, side by side."""

from __future__ import annotations

from typing import Literal

from layerbench.records.bounds import Name, Positive, Text
from layerbench.records.kinds import Record
from layerbench.records.sweep import Sweep
from layerbench.records.workload import Frozen


class MissingPoint(Frozen):
    """A point that was not measured on a device.

    Attributes:
        model: as it was asked for.
        size: height and width, as asked for; empty for the model's own.
        batch: images a forward.
        why: one sentence.
    """

    model: Name
    size: Text
    batch: Positive
    why: Text


class DeviceColumn(Frozen):
    """The points of the devices of one name whose software agrees.

    Attributes:
        name: of the devices, with the version of PyTorch where another column has the same name.
        torch: that version.
        nodes: that measured; several may be of one machine.
        sweep: ``None`` where nothing was measured.
        missing: points without a figure, besides those after the end of a climb.
    """

    name: Name
    torch: Text
    nodes: tuple[Text, ...]
    sweep: Sweep | None
    missing: tuple[MissingPoint, ...] = ()


class DeviceSweeps(Record):
    """A sweep over models, sizes and batches on every device of a cluster.

    Attributes:
        columns: in the order in which the devices were seen.
    """

    record: Literal["device sweeps"] = "device sweeps"
    columns: tuple[DeviceColumn, ...]
