"""One module as a data-flow graph: its calls from top to bottom, and the tensors between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from layerbench import units
from layerbench.analysis.graphs import Fold, Joined, folds, joined, row_of
from layerbench.errors import UsageError
from layerbench.plots import canvas
from layerbench.plots.canvas import POINTS_PER_INCH, Drawn, Ruler
from layerbench.plots.icicle import colouring, dark
from layerbench.plots.layered import Layout, Point, layout
from layerbench.plots.quantities import Cell, Quantity, quantity_or_none
from layerbench.records.bounds import Shape
from layerbench.records.graph import Graph, GraphNode
from layerbench.records.structure import Structure
from layerbench.records.tree import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more edges their shapes would lie over each other.
MOST_LABELS = 120
LEAST_WIDTH_INCHES = 7.5
MARGIN_INCHES = 1.4
# For the scale of the colours.
BESIDE_INCHES = 1.6
SIZE, SMALL = 7.5, 6.0
HIGH = 26.0
PADDING = 14.0
LONGEST = 44
EDGE = "#5b6470"
WITHOUT = "#e3e5e9"
NAMED = 3
ALONG = (0.7, 0.3)
"""Parts of a straight edge at which its shape may stand, too."""
WORDS = {"input": "input", "output": "output", "elsewhere": "from elsewhere"}


@dataclass(frozen=True)
class Box:
    """What is drawn as one.

    Attributes:
        name, type: what stands in it.
        kind: of the node, or ``fold``.
        cells: the figures of the rows in it, each row once.
    """

    name: str
    type: str
    kind: str
    cells: tuple[Cell, ...]


@canvas.styled
def graph(
    structure: Structure,
    module: str = "",
    record: Drawn | None = None,
    metric: Metric | None = None,
) -> Figure:
    """Draw what a module's children and functions hand to each other.

    Args:
        structure: with graphs.
        module: path of the module; empty for the model itself.
        record: whose figures colour the nodes; ``None`` for the structure's.
        metric: inclusive time is the usual one, where the record has it. Where no layer has any,
            the nodes have no colours.

    Raises:
        UsageError: there is no such graph, or the record has no such metric.
    """
    found = _found(structure, module)
    coloured = structure if record is None else record
    shown = quantity_or_none(coloured, metric, "time")
    boxes, place = _boxes(structure, module, found, shown)
    edges = joined(found, place)
    labels = [_label(edge.shapes) for edge in edges] if len(edges) <= MOST_LABELS else []
    ruler = Ruler(*canvas.blank(1, 1))
    sizes = [(_wide(box, shown, ruler), HIGH) for box in boxes]
    laid = layout(
        sizes,
        [(edge.source, edge.target) for edge in edges],
        [ruler.text(label, SMALL) for label in labels] or [0.0] * len(edges),
    )
    figure, axes = canvas.blank(
        max(LEAST_WIDTH_INCHES, laid.width / POINTS_PER_INCH + BESIDE_INCHES),
        laid.height / POINTS_PER_INCH + MARGIN_INCHES,
    )
    colour = colouring(figure, axes, shown) if shown.cells else None
    name = canvas.tail(module, LONGEST) or structure.model_type
    canvas.headline(axes, f"Data flow of {name}", coloured)
    _scale(figure, axes, laid)
    for way in laid.ways:
        _edge(axes, way)
    for label, at in _placed(labels, edges, laid, ruler):
        _shape(axes, label, at)
    for box, at, size in zip(boxes, laid.nodes, sizes, strict=True):
        _node(axes, box, at, size, shown, colour)
    return figure


def _found(structure: Structure, module: str) -> Graph:
    if not structure.graphs and len(structure.rows) == 1:
        raise UsageError(f"{structure.model_type} has no layers in it, between which tensors go")
    if not structure.graphs:
        raise UsageError(
            "the record does not say which layer takes which tensor: make it anew, by layerbench "
            "mem --struct or layerbench profile"
        )
    graphs = {path: graph for graph in structure.graphs for path in graph.paths}
    if module not in graphs:
        known = [path for path in graphs if path][:NAMED]
        such = f", such as {', '.join(known)}" if known else ""
        raise UsageError(
            f"the record has no graph of {module or 'the model'}: name a module that ran and holds "
            f"others{such}"
        )
    return graphs[module]


def _boxes(
    structure: Structure, module: str, found: Graph, shown: Quantity
) -> tuple[list[Box], list[int]]:
    """What is drawn, and the number of what each node is drawn in."""
    types = {row.path: row.type for row in structure.rows}
    cells = {cell.path: cell for cell in shown.cells}
    outermost: list[Fold] = []
    for fold in folds(found, types):
        if not outermost or fold.start >= outermost[-1].end:
            outermost.append(fold)
    starts = {fold.start: fold for fold in outermost}
    boxes, place = [], []
    at = 0
    while at < len(found.nodes):
        fold = starts.get(at, Fold(at, at + 1, ""))
        rows = dict.fromkeys(row_of(module, node) for node in found.nodes[fold.start : fold.end])
        held = tuple(cells[row] for row in rows if row in cells)
        boxes.append(_box(found, fold, module, types, held))
        place += [len(boxes) - 1] * (fold.end - fold.start)
        at = fold.end
    return boxes, place


def _box(
    found: Graph, fold: Fold, module: str, types: dict[str, str], cells: tuple[Cell, ...]
) -> Box:
    count = fold.end - fold.start
    if count > 1:
        first, last = (_word(found.nodes[at]) for at in (fold.start, fold.end - 1))
        return Box(f"{fold.type or 'calls'} ×{count}", f"{first} to {last}", "fold", cells)
    node = found.nodes[fold.start]
    if node.kind in WORDS:
        alike = [at for at, other in enumerate(found.nodes) if other.kind == node.kind]
        number = f" {alike.index(fold.start) + 1}" if len(alike) > 1 else ""
        return Box(_word(node) + number, "", node.kind, cells)
    if node.kind == "held":
        return Box(node.name, "parameter or buffer", node.kind, cells)
    if node.kind == "function":
        return Box(_word(node), "", node.kind, cells)
    return Box(node.name, types.get(row_of(module, node) or "", ""), node.kind, cells)


def _word(node: GraphNode) -> str:
    name = WORDS.get(node.kind, node.name)
    return f"{name}()" if node.kind == "function" else name


def _label(shapes: Sequence[Shape]) -> str:
    more = f" +{len(shapes) - 1}" if len(shapes) > 1 else ""
    return units.shape(shapes[0]) + more


def _placed(
    labels: Sequence[str], edges: Sequence[Joined], laid: Layout, ruler: Ruler
) -> Iterator[tuple[str, Point]]:
    """Shapes and where they stand, none over another one.

    Of the same tensor to several nodes close by, one says it. Of different ones some stand further
    up or down their edges.
    """
    taken: list[tuple[float, float, float, int, str]] = []
    for label, edge, way, middle in zip(labels, edges, laid.ways, laid.middles, strict=False):
        if middle is None:
            continue
        half = ruler.text(label, SMALL) / 2

        def over(at: Point, half: float = half) -> list[tuple[int, str]]:
            return [
                (source, text)
                for x, y, wide, source, text in taken
                if abs(x - at[0]) < half + wide and abs(y - at[1]) < SMALL + 1
            ]

        if (edge.source, label) in over(middle):
            continue
        # Edges past other nodes have room for theirs; the others are straight.
        (x, y), (to_x, to_y) = way[0], way[-1]
        there = [(x + (to_x - x) * part, y + (to_y - y) * part) for part in ALONG]
        free = [at for at in (middle, *(there if len(way) == 2 else [])) if not over(at)]
        at = free[0] if free else middle
        taken.append((*at, half, edge.source, label))
        yield label, at


def _lines(box: Box, shown: Quantity) -> list[str]:
    figure = shown.text(_sum(box)) if box.cells else ""
    under = ", ".join(word for word in (canvas.plain(box.type), figure) if word)
    return [canvas.tail(box.name, LONGEST), *([under] if under else [])]


def _sum(box: Box) -> float:
    return sum(cell.total for cell in box.cells)


def _wide(box: Box, shown: Quantity, ruler: Ruler) -> float:
    lines = _lines(box, shown)
    widths = [ruler.text(text, size) for text, size in zip(lines, (SIZE, SMALL), strict=False)]
    return max(*widths, 30.0) + PADDING


def _scale(figure: Figure, axes: Any, laid: Layout) -> None:  # noqa: ANN401 - axes are not typed
    """A point of the layout is a point of the picture."""
    axes.set_axis_off()
    ruler = Ruler(figure, axes)
    scale = max(1.0, laid.width / ruler.width, laid.height / ruler.height)
    width, height = ruler.width * scale, ruler.height * scale
    axes.set_xlim((laid.width - width) / 2, (laid.width + width) / 2)
    axes.set_ylim((laid.height + height) / 2, (laid.height - height) / 2)


def _edge(axes: Any, way: Sequence[Point]) -> None:  # noqa: ANN401 - axes are not typed
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points, codes = [way[0]], [Path.MOVETO]
    for point, following in pairwise(way[1:]):
        # Corners are rounded: each point bends the line between the middles of its neighbours.
        middle = ((point[0] + following[0]) / 2, (point[1] + following[1]) / 2)
        points += [point, middle]
        codes += [Path.CURVE3, Path.CURVE3]
    points.append(way[-1])
    codes.append(Path.LINETO)
    axes.add_patch(
        FancyArrowPatch(
            path=Path(points, codes),
            arrowstyle="-|>",
            mutation_scale=6,
            linewidth=0.8,
            color=EDGE,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _shape(axes: Any, label: str, at: Point) -> None:  # noqa: ANN401 - axes are not typed
    text = axes.text(*at, label, size=SMALL, ha="center", va="center", color=EDGE)
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
    text.set_in_layout(False)


def _node(
    axes: Any,  # noqa: ANN401 - axes are not typed
    box: Box,
    at: Point,
    size: Point,
    shown: Quantity,
    colour: Any,  # noqa: ANN401 - a mappable; None where no layer has a figure
) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill: Any = WITHOUT
    if box.cells and _sum(box) > 0:
        fill = colour.to_rgba(_part(box, shown))
    ink = "white" if fill != WITHOUT and dark(fill) else "black"
    square = box.kind in ("module", "other module", "fold")
    (x, y), (width, height) = at, size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={3 if square else height / 2}",
            facecolor=fill,
            edgecolor=EDGE,
            linestyle="--" if box.kind in ("held", "elsewhere") else "-",
            linewidth=1.6 if box.kind == "fold" else 0.7,
            mutation_aspect=1,
        )
    )
    lines = _lines(box, shown)
    for number, (line, letters) in enumerate(zip(lines, (SIZE, SMALL), strict=False)):
        down = 0.0 if len(lines) == 1 else (-5.0, 5.5)[number]
        text = axes.text(x, y + down, line, size=letters, ha="center", va="center", color=ink)
        text.set_in_layout(False)


def _part(box: Box, shown: Quantity) -> float:
    if shown.by_own:
        return sum(cell.share for cell in box.cells)
    return _sum(box) / shown.cells[0].total
