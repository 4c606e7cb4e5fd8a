"""The tree of layers as nested boxes: the model on top, below each module its submodules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbench import units
from layerbench.plots import canvas
from layerbench.plots.canvas import POINTS_PER_INCH, Drawn, Ruler
from layerbench.plots.quantities import Cell, Quantity, quantity
from layerbench.records.tree import Metric, ancestors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the whole width: narrower boxes are lines that nobody tells apart.
LEAST_WIDTH = 0.003
WIDTH_INCHES = 12.0
# As high as ``downsample`` is long.
LEVEL_INCHES = 0.78
# A picture of more would be higher than a picture can be.
MOST_LEVELS = 60
MARGIN_INCHES = 1.7
LABEL_SIZE = 7.0
LINE_HEIGHT = 1.25
LONGEST_NAME = 60
# Between a label and its box, points.
PADDING = 3.0
SHARES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
COLOURS = "YlOrRd"
SMALL_COLOUR = "#c8c8c8"


@dataclass(frozen=True)
class Box:
    """A place in the picture.

    Attributes:
        left, width: parts of the whole width.
        level: 0 for the model.
        cell: its row; ``None`` for rows that are too narrow to draw.
        small: the number of those.
    """

    left: float
    width: float
    level: int
    cell: Cell | None
    small: int = 0


def boxes(cells: Sequence[Cell], depth: int | None = None) -> tuple[Box, ...]:
    """The place of each row: as wide as its part of the whole, children from the left in order.

    Children that add up to more than the box above, as shared parameters and separately timed
    functions may, are narrowed to fit. Those of a box that are narrower than `LEAST_WIDTH` stand
    together at its right end.

    Args:
        cells: in tree order, the model first.
        depth: the last level; ``None`` for all.
    """
    below = _children(cells)
    placed: list[Box] = []
    waiting = [Box(0.0, 1.0, 0, cells[0])] if cells and cells[0].total else []
    while waiting:
        box = waiting.pop()
        placed.append(box)
        if box.cell is None or (depth is not None and box.level >= depth):
            continue
        waiting.extend(reversed(list(_within(box, box.cell, below))))
    return tuple(placed)


def _children(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """By path, the cells of the rows next below that have a figure."""
    paths = {cell.path for cell in cells}
    below: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.path and cell.total > 0:
            # A module that is never called itself has no cell, and may hold others that have.
            above = next((path for path in ancestors(cell.path) if path in paths), "")
            below.setdefault(above, []).append(cell)
    return below


def _within(box: Box, cell: Cell, below: dict[str, list[Cell]]) -> Iterator[Box]:
    children = below.get(cell.path, [])
    whole = max(cell.total, sum(child.total for child in children))
    left, narrow, hidden = box.left, 0.0, 0
    for child in children:
        width = box.width * child.total / whole
        if width < LEAST_WIDTH:
            narrow += width
            hidden += _rows(child, below)
            continue
        yield Box(left, width, box.level + 1, child)
        left += width
    if hidden:
        yield Box(left, narrow, box.level + 1, None, hidden)


def _rows(cell: Cell, below: dict[str, list[Cell]]) -> int:
    """The row and those below it."""
    count, waiting = 0, [cell]
    while waiting:
        one = waiting.pop()
        count += 1
        waiting.extend(below.get(one.path, ()))
    return count


@canvas.styled
def icicle(record: Drawn, metric: Metric | None = None, depth: int | None = None) -> Figure:
    """Draw the tree of layers, each as wide as its part of the whole, and coloured by it.

    Args:
        record: with rows: a profile, training profile, structure, memory report or estimate.
        metric: what the width is: inclusive time (the usual one), self time summed over the tree
            (then the colour is each row's own share), FLOPs, parameters, memory at the peak.
        depth: levels below the model to draw; ``None`` for all, up to `MOST_LEVELS`.

    Raises:
        UsageError: the record has no such metric.
    """
    shown = quantity(record, metric, "time")
    deepest = MOST_LEVELS - 1 if depth is None else min(depth, MOST_LEVELS - 1)
    drawn = boxes(shown.cells, deepest)
    levels = 1 + max(box.level for box in drawn)
    figure, axes = canvas.blank(WIDTH_INCHES, MARGIN_INCHES + LEVEL_INCHES * levels)
    colour = colouring(figure, axes, shown)
    canvas.headline(axes, shown.total[:1].upper() + shown.total[1:], record)
    _axes(axes, levels, shown, drawn)
    ruler = Ruler(figure, axes)
    for box in drawn:
        _draw(axes, box, shown, colour, ruler)
    return figure


def _axes(axes: Any, levels: int, shown: Quantity, drawn: Sequence[Box]) -> None:  # noqa: ANN401
    axes.set_xlim(0, 1)
    axes.set_ylim(levels, 0)
    axes.set_yticks([level + 0.5 for level in range(levels)], [str(n) for n in range(levels)])
    axes.set_ylabel("depth")
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([n / 10 for n in range(11)], [units.percent(n / 10) for n in range(11)])
    remarks = ["below each box its parts", "white: its own"]
    if any(box.cell is None for box in drawn):
        remarks.append("grey: small ones together")
    if any(box.cell is not None and box.cell.function for box in drawn):
        remarks.append("hatched: functions")
    whole = f"100 % = {shown.text(shown.cells[0].total)}"
    axes.set_xlabel("\n".join(t for t in ("; ".join([whole, *remarks]), shown.note) if t))
    axes.spines[["top", "right", "left"]].set_visible(False)


def colouring(figure: Figure, axes: Any, shown: Quantity) -> Any:  # noqa: ANN401 - a mappable
    """The scale of the parts of the whole, drawn beside the axes; it makes a colour of a part."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    colour = ScalarMappable(LogNorm(SHARES[0], SHARES[-1], clip=True), COLOURS)
    bar = figure.colorbar(colour, ax=axes, pad=0.01, aspect=12, fraction=0.03)
    bar.set_ticks(list(SHARES), labels=[units.percent(s, 0 if s >= 0.01 else 1) for s in SHARES])
    bar.minorticks_off()
    what = "own share" if shown.by_own else "share"
    bar.set_label(f"{what} of the whole (log.)", fontsize="small")
    return colour


def _draw(axes: Any, box: Box, shown: Quantity, colour: Any, ruler: Ruler) -> None:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    fill, hatch, ink = SMALL_COLOUR, None, "black"
    if box.cell is not None:
        fill = colour.to_rgba(_shade(box.cell, shown))
        ink = "white" if dark(fill) else "black"
        hatch = "///" if box.cell.function else None
    axes.add_patch(
        Rectangle(
            (box.left, box.level),
            box.width,
            1,
            facecolor=fill,
            edgecolor="white" if hatch is None else "#777777",
            linewidth=0.6,
            hatch=hatch,
        )
    )
    label, turned = _fitting(list(_labels(box, shown)), box.width * ruler.width, ruler)
    if label:
        text = axes.text(
            box.left + box.width / 2,
            box.level + 0.5,
            label,
            size=LABEL_SIZE,
            ha="center",
            va="center",
            color=ink,
            rotation=90 if turned else 0,
            clip_on=True,
        )
        text.set_in_layout(False)
        if hatch is not None:
            text.set_bbox({"facecolor": fill, "edgecolor": "none", "pad": 0.6})


def _shade(cell: Cell, shown: Quantity) -> float:
    return cell.share if shown.by_own else cell.total / shown.cells[0].total


def dark(rgba: Sequence[float]) -> bool:
    """Whether white stands out better than black: by WCAG 2's contrast of linear luminances."""
    red, green, blue = (part**2.2 for part in rgba[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return bool((luminance + 0.05) ** 2 < 0.05 * 1.05)


def _labels(box: Box, shown: Quantity) -> Iterator[str]:
    """What to write into a box, the fullest first."""
    if box.cell is None:
        yield f"{box.small} small"
        yield str(box.small)
        return
    cell = box.cell
    name = canvas.plain(cell.path.rpartition(".")[2])
    kind = "" if cell.function else canvas.plain(cell.type)
    part = units.percent(_shade(cell, shown), digits=1)
    long = " ".join(word for word in (name, kind) if word)
    value = shown.text(cell.own if shown.by_own else cell.total)
    yield f"{long}\n{value}, {part}"
    yield f"{long}\n{part}"
    yield f"{canvas.shortened(name or kind, LONGEST_NAME)}\n{part}"
    yield name or kind


def _fitting(labels: Sequence[str], width: float, ruler: Ruler) -> tuple[str, bool]:
    """The fullest label that fits into a box so wide, and whether it must be turned upright.

    None, where not even the shortest one fits: a cut name says less than none.
    """
    for label in labels:
        if ruler.text(label, LABEL_SIZE) + PADDING <= width:
            return label, False
    height = LEVEL_INCHES * POINTS_PER_INCH - PADDING
    if width >= LABEL_SIZE * LINE_HEIGHT and ruler.text(labels[-1], LABEL_SIZE) <= height:
        return labels[-1], True
    return "", False
