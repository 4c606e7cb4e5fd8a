"""The rows that take the most, as bars with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerbench import units
from layerbench.errors import UsageError
from layerbench.plots import canvas
from layerbench.plots.canvas import Drawn
from layerbench.plots.quantities import Cell, Quantity, quantity
from layerbench.records.tree import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 20
WIDTH_INCHES = 11.0
BAR_INCHES = 0.25
# A picture of more would be higher than a picture can be.
MOST_BARS = 400
MARGIN_INCHES = 1.6
LONGEST_LABEL = 60
# To the right of the longest bar, for what stands at its end.
ROOM = 1.3
ROOM_FOR_HOST = 1.7
BAR_COLOUR = canvas.BLUE
FUNCTION_COLOUR = canvas.ORANGE


@canvas.styled
def bars(record: Drawn, metric: Metric | None = None, top: int = TOP) -> Figure:
    """Draw the rows with the most self time, the first on top, functions among them.

    A bar is a median with its 95 % interval where the record has one. What stands at its end is the
    bar's own length, and that length as a part of the whole: bars, figures and shares are in one
    order. Where bars are times of a device, the host's time for the same stands there, too, and
    whether the row is launch-bound.

    Args:
        record: with rows.
        metric: the length: self time (the usual one), inclusive time, own FLOPs, own parameters,
            bytes it allocated that are held at the peak.
        top: how many, `MOST_BARS` at most.

    Raises:
        UsageError: the record has no such metric.
    """
    shown = quantity(record, metric, "self")
    # The model's inclusive figure is the whole: beside it no bar would be visible.
    rows = [cell for cell in shown.cells if cell.own > 0 and (cell.path or metric != "time")]
    if not rows:
        raise UsageError(f"no row has {shown.own} to draw a bar of")
    most = sorted(rows, key=lambda cell: -cell.own)[: min(top, MOST_BARS)]
    figure, axes = canvas.blank(WIDTH_INCHES, MARGIN_INCHES + BAR_INCHES * len(most))
    for place, cell in enumerate(most):
        _bar(axes, place, cell, shown)
    axes.set_yticks(range(len(most)), [_label(cell) for cell in most], fontsize="small")
    axes.set_ylim(len(most) - 0.4, -0.6)
    longest = max(_end(cell) for cell in most) / shown.scale
    beside = any(cell.host is not None for cell in most)
    axes.set_xlim(0, longest * (ROOM_FOR_HOST if beside else ROOM))
    interval = " with its 95 % interval" if any(cell.high is not None for cell in most) else ""
    axes.set_xlabel("\n".join(t for t in (f"{shown.own}{interval}, {shown.unit}", shown.note) if t))
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.headline(axes, f"{len(most)} of {len(rows)} rows by {shown.own}", record)
    _legend(figure, most)
    return figure


def _bar(axes: Any, place: int, cell: Cell, shown: Quantity) -> None:  # noqa: ANN401
    axes.barh(
        place,
        cell.own / shown.scale,
        height=0.72,
        color=FUNCTION_COLOUR if cell.function else BAR_COLOUR,
        hatch="///" if cell.function else None,
        edgecolor="white",
    )
    if cell.low is not None and cell.high is not None:
        sides = [[(cell.own - cell.low) / shown.scale], [(cell.high - cell.own) / shown.scale]]
        axes.errorbar(cell.own / shown.scale, place, xerr=sides, color="black", capsize=2.5, lw=1)
    half = None if cell.high is None or cell.low is None else (cell.high - cell.low) / 2
    value = shown.text(cell.own)
    if shown.unit == "ms":  # all in the axis' unit, so that they can be compared at a glance
        value = units.seconds(cell.own, half, unit="ms")
    share = units.percent(cell.own / shown.whole if shown.whole else 0.0, digits=1)
    host = "" if cell.host is None else f"host {units.seconds(cell.host, unit='ms')}"
    bound = "launch-bound" if cell.waits else ""
    axes.annotate(
        ", ".join(filter(None, [value, share, host, bound])),
        (_end(cell) / shown.scale, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
    )


def _end(cell: Cell) -> float:
    return max(cell.own, cell.high or 0.0)


def _label(cell: Cell) -> str:
    if cell.function:
        return canvas.tail(cell.path, LONGEST_LABEL)
    name = cell.path or "(the model)"
    kind = canvas.shortened(cell.type, LONGEST_LABEL // 2)
    return f"{canvas.tail(name, LONGEST_LABEL - len(kind) - 1)} {kind}"


def _legend(figure: Figure, most: list[Cell]) -> None:
    if not any(cell.function for cell in most):
        return
    from matplotlib.patches import Patch

    kinds = [
        Patch(color=BAR_COLOUR, label="module"),
        Patch(
            facecolor=FUNCTION_COLOUR,
            edgecolor="white",
            hatch="///",
            label="function: a part of its module's time",
        ),
    ]
    figure.legend(handles=kinds, loc="outside lower center", ncols=2, fontsize="small")
