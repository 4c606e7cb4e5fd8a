"""The nodes of a cluster: what they can measure on, and with which software."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import Name, Text
from layerbench.records.kinds import Record
from layerbench.records.workload import Frozen


class NodeDevice(Frozen):
    """A device of a node.

    Attributes:
        place: as PyTorch calls it there: ``cpu``, ``cuda:1``.
        kind: ``cpu``, ``cuda``, ``xpu``, ``mps``.
        name, slug: as in records.
        card: its name among the GPUs that predictions are made for.
    """

    place: Name
    kind: Name
    name: Name
    slug: Name
    card: Name | None = None

    @property
    def usual_name(self) -> str:
        """As tables call it."""
        return self.card or self.slug


class ClusterNode(Frozen):
    """One node that is alive.

    Attributes:
        id: the cluster's own.
        address, host: of the machine; several nodes may be of one.
        labels: names that it was given as resources.
        devices: none where it has a problem.
        versions: of layerbench, Python and packages.
        problem: why nothing can be measured on it, as the rest of a sentence; empty where it can.
    """

    id: Name
    address: Text
    host: Text
    labels: tuple[Name, ...] = ()
    devices: tuple[NodeDevice, ...] = ()
    versions: dict[Name, Text] = Field(default_factory=dict)
    problem: Text = ""

    @property
    def torch(self) -> str:
        """Its version of PyTorch."""
        return self.versions.get("torch", "")

    @property
    def title(self) -> str:
        """For people: several nodes may be of one machine."""
        return f"{self.host} ({self.address}, {self.id[:8]})"

    def usual_devices(self) -> tuple[NodeDevice, ...]:
        """Its accelerators; its CPU where it has none."""
        accelerators = tuple(one for one in self.devices if one.kind != "cpu")
        return accelerators or self.devices


class ClusterNodes(Record):
    """All nodes of a cluster that are alive.

    Attributes:
        address: of the cluster, as it was said.
    """

    record: Literal["cluster nodes"] = "cluster nodes"
    address: Text
    nodes: tuple[ClusterNode, ...]
