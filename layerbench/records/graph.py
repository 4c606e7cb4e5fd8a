"""What a module's children and functions hand to each other in one call of it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from layerbench.records.bounds import Count, Path, Shape
from layerbench.records.workload import Frozen

MOST_NODES = 5_000
"""Of one graph: more calls nobody looks at."""
MOST_EDGES = 200_000
"""Of all graphs of a record."""

NodeKind = Literal["input", "output", "module", "other module", "function", "held", "elsewhere"]


class GraphNode(NamedTuple):
    """One call, or where tensors come from and go to.

    Attributes:
        kind: ``module`` for a call of a module below this one, ``other module`` for one that it
            does not hold, ``function`` for a function that it calls itself, ``input`` and
            ``output`` for a tensor that it is given or returns, ``held`` for a parameter or a
            buffer, ``elsewhere`` for a tensor that came another way.
        name: of a module its path from here, or the whole one where this one does not hold it; of
            a function its name; of what is held its path as a module's; else empty.
    """

    kind: NodeKind
    name: Path = ""


class GraphEdge(NamedTuple):
    """A tensor that one node gave and another took.

    Attributes:
        source, target: numbers of the nodes.
        shape: of the tensor.
    """

    source: Count
    target: Count
    shape: Shape


class Graph(Frozen):
    """The tensors that went from call to call within the first call of a module.

    Attributes:
        paths: the modules that look like this inside.
        nodes: in order of execution; inputs come first, outputs last.
        edges: each from a node to a later one.
    """

    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    nodes: Annotated[tuple[GraphNode, ...], Field(max_length=MOST_NODES)]
    edges: Annotated[tuple[GraphEdge, ...], Field(max_length=MOST_EDGES)]

    @model_validator(mode="after")
    def _forward(self) -> Graph:
        """Refuse edges that lead nowhere or back, so that whoever draws it finds no circle."""
        for edge in self.edges:
            if not edge.source < edge.target < len(self.nodes):
                raise ValueError("an edge does not lead from a node to a later one")
        return self


def _once(graphs: tuple[Graph, ...] | None) -> tuple[Graph, ...] | None:
    if graphs is None:
        return None
    paths = [path for graph in graphs for path in graph.paths]
    if len(set(paths)) < len(paths):
        raise ValueError("a module has two graphs")
    if sum(len(graph.edges) for graph in graphs) > MOST_EDGES:
        raise ValueError(f"the graphs have more than {MOST_EDGES} edges together")
    return graphs


Graphs = Annotated[tuple[Graph, ...] | None, AfterValidator(_once)]
"""Of a model's modules; ``None`` where nobody looked."""
