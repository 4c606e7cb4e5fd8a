"""Nodes, columns and records of a cluster, without one."""

from __future__ import annotations

import functools
import itertools

import layerbench
from layerbench.cluster.columns import Column
from layerbench.cluster.nodes import Slot
from layerbench.cluster.order import Outcome
from layerbench.cluster.scheduling import Ended, Task
from layerbench.records.cluster_nodes import ClusterNode, NodeDevice
from layerbench.records.sweep import Sweep, SweepEnd, SweepPoint
from layerbench.reporters import json
from tests.support.every_kind import RECORDS

CPU = NodeDevice(place="cpu", kind="cpu", name="AMD EPYC", slug="amd-epyc-2c")
A100 = NodeDevice(
    place="cuda:0", kind="cuda", name="NVIDIA A100-SXM4-40GB", slug="a100-sxm4-40gb", card="a100"
)
LARGE_A100 = A100.model_copy(update={"name": "NVIDIA A100-SXM4-80GB", "slug": "a100-sxm4-80gb"})
_ids = itertools.count(1)


def node(
    *devices: NodeDevice, labels: tuple[str, ...] = (), torch: str = "2.14.1", id: str = ""
) -> ClusterNode:
    """A node with a CPU, or with these devices."""
    return ClusterNode(
        id=id or f"{next(_ids):04}",
        address="10.0.0.1",
        host="a",
        labels=labels,
        devices=devices or (CPU,),
        versions={"layerbench": layerbench.__version__, "torch": torch},
    )


def slot(device: NodeDevice = CPU, *, labels: tuple[str, ...] = (), torch: str = "2.14.1") -> Slot:
    """A device of a node of its own."""
    return Slot(node(device, labels=labels, torch=torch), device)


def column(name: str = "cpu", slug: str = "amd-epyc-2c", torch: str = "2.14.1") -> Column:
    """One without devices."""
    return Column(name, slug, torch)


@functools.cache
def _stored() -> Sweep:
    record = RECORDS["sweep"]()
    assert isinstance(record, Sweep)
    return record


def sweep(model: str, batch: int, image_s: float = 0.01) -> Sweep:
    """The record of one point."""
    point = _stored().points[0]
    scale = image_s * batch / point.latency.median
    times = {name: value * scale for name, value in point.latency if isinstance(value, float)}
    latency = point.latency.model_copy(update=times)
    update = {"model": model, "batch": batch, "latency": latency}
    return _sweep(points=(point.model_copy(update=update),), ends=())


def full(model: str, batch: int) -> Sweep:
    """The record of a batch that does not fit."""
    end = SweepEnd(model=model, size=(32, 32), batch=batch, fits=False, why="it needs 9 GiB")
    return _sweep(points=(), ends=(end,))


def _sweep(points: tuple[SweepPoint, ...], ends: tuple[SweepEnd, ...]) -> Sweep:
    return _stored().model_copy(update={"points": points, "ends": ends})


def ended(task: Task, record: Sweep, on: ClusterNode | None = None) -> Ended:
    """A task that gave a record."""
    return Ended(task, Outcome(0, json.render(record)), node=on or node())


def failed(task: Task, status: int, complaint: str = "") -> Ended:
    """A task whose process ended with another status."""
    return Ended(task, Outcome(status, "", complaint), node=node())
