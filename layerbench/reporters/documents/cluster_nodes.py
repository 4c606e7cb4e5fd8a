"""The document of a cluster's nodes."""

from __future__ import annotations

from collections import Counter

from layerbench.records.cluster_nodes import ClusterNode, ClusterNodes
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared

# Versions that decide which figures stand in one column, and which nodes can measure.
VERSIONS = ("layerbench", "torch", "python")


def document(record: ClusterNodes, view: View = USUAL) -> layout.Document:  # noqa: ARG001 - all fit
    """What the nodes have, and which of them agree."""
    idle = [f"{one.title} {one.problem}" for one in _idle(record)]
    return layout.Document(
        title="Nodes of the cluster",
        head=[*shared.cautions(cautions(record)), layout.Text(_answer(record))],
        sections=[
            _nodes(record),
            layout.listed("Cannot measure", idle),
            layout.listed("What does not agree", _disagreements(record)),
        ],
    )


def cautions(record: ClusterNodes) -> list[str]:
    """What keeps nodes from being measured on, or apart."""
    idle = _idle(record)
    of_all = formatting.plural(len(record.nodes), "node")
    why = [f"{len(idle)} of {of_all} cannot measure: {one.host} {one.problem}" for one in idle]
    return [*why, *_disagreements(record)]


def rows(record: ClusterNodes) -> cells.Rows:
    """A row a node."""
    made: list[cells.Cells] = [
        {
            **cells.fields(node, "host", "address", "id", "problem"),
            "devices": " ".join(one.place for one in node.devices),
            "device_names": " ".join(one.usual_name for one in node.devices),
            "names": " ".join(node.labels),
            **{name: node.versions.get(name) for name in VERSIONS},
        }
        for node in record.nodes
    ]
    return {}, made


def _idle(record: ClusterNodes) -> list[ClusterNode]:
    return [node for node in record.nodes if node.problem]


def _answer(record: ClusterNodes) -> str:
    """``4 nodes: intel-xeon-2c on 2, a100 on 2``."""
    devices = Counter(
        name
        for node in record.nodes
        for name in dict.fromkeys(one.usual_name for one in node.usual_devices())
    )
    listed = ", ".join(f"{name} on {count}" for name, count in devices.most_common())
    return f"{formatting.plural(len(record.nodes), 'node')}: {listed or 'nothing to measure on'}"


def _disagreements(record: ClusterNodes) -> list[str]:
    """Versions that are not the same on all nodes that measure, and what that means."""
    ready = [node for node in record.nodes if not node.problem]
    lines = []
    for name in ("torch", "python"):
        versions = sorted({node.versions.get(name, "") for node in ready})
        if len(versions) > 1:
            what = "a column of its own for each" if name == "torch" else "said, and not kept apart"
            lines.append(f"{name} {', '.join(versions)}: {what}")
    return lines


def _nodes(record: ClusterNodes) -> layout.Section:
    rows = [
        {
            "host": node.host,
            "address": node.address,
            "node": node.id[:8],
            "devices": ", ".join(_device(node, one.place, one.usual_name) for one in node.devices)
            or "-",
            "names": ", ".join(node.labels) or "-",
            **{name: node.versions.get(name, "-") for name in VERSIONS},
            "": "no" if node.problem else "ready",
        }
        for node in record.nodes
    ]
    return layout.table("", rows, "lllllllll")


def _device(node: ClusterNode, place: str, name: str) -> str:
    return f"{place} {name}" if len(node.devices) > 1 else name
