"""What the page draws of each module's inside: calls, and the tensors between them."""

from __future__ import annotations

from layerbench.analysis.graphs import folds
from layerbench.records.bundle import Bundle
from layerbench.records.graph import Graph
from layerbench.reporters import formatting
from layerbench.reporters.html.schema import PageGraph


def graphs(bundle: Bundle) -> tuple[PageGraph, ...] | None:
    """The graphs of a bundle's structure; ``None`` where it has none."""
    if bundle.structure is None or bundle.structure.graphs is None:
        return None
    types = {row.path: row.type for row in bundle.structure.rows}
    return tuple(_graph(graph, types) for graph in bundle.structure.graphs)


def _graph(graph: Graph, types: dict[str, str]) -> PageGraph:
    return PageGraph(
        paths=graph.paths,
        kinds=tuple(node.kind for node in graph.nodes),
        names=tuple(node.name for node in graph.nodes),
        edges=tuple(
            (edge.source, edge.target, formatting.shapes((edge.shape,))) for edge in graph.edges
        ),
        folds=folds(graph, types),
    )
