"""The nodes of a cluster, and the devices that they have. Loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbench._version import __version__
from layerbench.cluster import probe
from layerbench.errors import UsageError, did_you_mean
from layerbench.records.card import plain_name
from layerbench.records.cluster_nodes import ClusterNode, ClusterNodes, NodeDevice

ALL = "all"
CPU = "cpu"
# Ray's own resources; all others are names that whoever started the node has given it.
RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")
RAYS_OWN_PREFIXES = ("node:", "accelerator_type:", "bundle_group_")
# An answer takes as long as loading torch, and waits for what is measured there.
ASKING_S = 330.0
SOON_S = 30.0


def alive(ray: Any) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401 - the module
    """Ray's own description of each node that is alive, by its id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


class Prober:
    """Asks nodes what they have, each once.

    Args:
        ray: connected.
    """

    def __init__(self, ray: Any) -> None:  # noqa: ANN401
        ray.cloudpickle.register_pickle_by_value(sys.modules[probe.__name__])
        self._ray = ray
        self._describe = ray.remote(num_cpus=0, max_retries=0)(probe.describe)

    def ask(self, id: str) -> Any:  # noqa: ANN401 - a reference
        """Begin to ask a node."""
        return self._describe.options(scheduling_strategy=on_node(id)).remote()

    def read(self, facts: Mapping[str, Any], answer: Any) -> ClusterNode | None:  # noqa: ANN401 - a reference
        """The node that a finished question was about; ``None`` if it has died meanwhile."""
        try:
            described = self._ray.get(answer, timeout=ASKING_S)
        except Exception as error:  # of many kinds
            if is_of_dead_node(error) or facts["NodeID"] not in alive(self._ray):
                return None
            described = {"problem": f"does not answer: {last_line(error)}"}
        return _node(facts, described)

    def ask_all(self, tell: Callable[[str], object]) -> list[ClusterNode]:
        """Every node that is alive, asked at the same time.

        Ray takes a while to notice a node's death: one that has died is left out.

        Args:
            tell: hears, in one line each, which are waited for.
        """
        nodes = alive(self._ray)
        answers = {id: self.ask(id) for id in nodes}
        asked = list(answers.values())
        _, late = self._ray.wait(asked, num_returns=len(asked), timeout=SOON_S)
        for id, answer in answers.items():
            if answer in late:
                host = f"{nodes[id]['NodeManagerHostname']} ({nodes[id]['NodeManagerAddress']})"
                tell(f"waiting: {host} has not yet said what it can measure on")
        described = (self.read(nodes[id], answer) for id, answer in answers.items())
        return [node for node in described if node is not None]


def on_node(id: str) -> Any:  # noqa: ANN401 - Ray's
    """The strategy that runs a task on one node and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=id, soft=False)


def is_of_dead_node(error: BaseException) -> bool:
    """Whether a task ended since its node has died, or had before it could begin."""
    from ray import exceptions

    names = ("NodeDiedError", "TaskUnschedulableError", "LocalRayletDiedError")
    kinds = tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))
    return isinstance(error, kinds)


def last_line(error: BaseException) -> str:
    """What an error says at its end, which is where Ray gives the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _node(facts: Mapping[str, Any], described: Mapping[str, Any]) -> ClusterNode:
    labels = tuple(
        sorted(
            name
            for name in facts["Resources"]
            if name not in RAYS_OWN and not name.startswith(RAYS_OWN_PREFIXES)
        )
    )
    node = ClusterNode(
        id=facts["NodeID"],
        address=facts["NodeManagerAddress"],
        host=facts["NodeManagerHostname"],
        labels=labels,
    )
    if "problem" in described:
        return node.model_copy(update={"problem": str(described["problem"])})
    packages = described["packages"]
    versions = {**{name: str(described[name]) for name in ("layerbench", "python")}, **packages}
    node = node.model_copy(update={"versions": versions})
    if versions["layerbench"] != __version__:
        # Its records may be of another form.
        problem = f"has layerbench {versions['layerbench']}: install {__version__}, as here"
        return node.model_copy(update={"problem": problem})
    devices = tuple(NodeDevice.model_validate(one) for one in described["devices"])
    return node.model_copy(update={"devices": devices})


def listed(
    ray: Any,  # noqa: ANN401 - the module
    address: str,
    tell: Callable[[str], object],
) -> ClusterNodes:
    """All nodes that are alive, asked at the same time.

    Args:
        ray: connected.
        address: of the cluster, as it was said.
        tell: hears which are waited for.
    """
    nodes = sorted(Prober(ray).ask_all(tell), key=lambda one: (one.host, one.address, one.id))
    return ClusterNodes(address=address, nodes=tuple(nodes))


@dataclass(frozen=True)
class Slot:
    """A device of a node, for one measurement at a time."""

    node: ClusterNode
    device: NodeDevice


@dataclass(frozen=True)
class Wanted:
    """Devices as a user asks for them.

    Attributes:
        names: ``all``, kinds (``cpu``, ``cuda``), GPUs (``a100``), names of devices as in the
            folders of reports, or labels of nodes.
    """

    names: tuple[str, ...] = (ALL,)

    def slots(self, node: ClusterNode) -> list[tuple[str, Slot]]:
        """The devices of a node that are asked for, each with the name that was said."""
        chosen: dict[str, tuple[str, Slot]] = {}
        for name in self.names:
            for device in _meant(name, node):
                chosen.setdefault(device.place, (name, Slot(node, device)))
        return list(chosen.values())

    def check(self, nodes: Sequence[ClusterNode]) -> None:
        """Look whether each name means something.

        Raises:
            UsageError: one does not; the message lists what there is.
        """
        usable = [node for node in nodes if not node.problem]
        if not usable:
            said = "; ".join(f"{node.title} {node.problem}" for node in nodes)
            raise UsageError(f"no node of the cluster can measure: {said or 'there is none'}")
        for name in self.names:
            if not any(_meant(name, node) for node in usable):
                there = _there(usable)
                close = did_you_mean(name, there)
                raise UsageError(
                    f"no node has a device {name!r}{f' ({close})' if close else ''}: there are "
                    f"{', '.join(there)}; `layerbench cluster` lists the nodes"
                )


def is_label(name: str, slot: Slot) -> bool:
    """Whether a device was asked for by a label of its node, and not by a name of its own."""
    plain = plain_name(name)
    return plain != ALL and plain not in map(plain_name, _names(slot.device))


def _meant(name: str, node: ClusterNode) -> tuple[NodeDevice, ...]:
    plain = plain_name(name)
    if plain == ALL:
        return node.usual_devices()
    labelled = any(plain_name(label.rpartition(":")[2]) == plain for label in node.labels)
    if labelled or plain in {plain_name(label) for label in node.labels}:
        return node.usual_devices()
    return tuple(one for one in node.devices if plain in map(plain_name, _names(one)))


def _names(device: NodeDevice) -> Iterable[str]:
    yield from (device.kind, device.name, device.slug)
    if device.card is not None:
        yield device.card


def _there(nodes: Sequence[ClusterNode]) -> list[str]:
    names: dict[str, None] = {}
    for node in nodes:
        for device in node.devices:
            names[CPU if device.kind == CPU else device.usual_name] = None
        names.update(dict.fromkeys(node.labels))
    return list(names)
