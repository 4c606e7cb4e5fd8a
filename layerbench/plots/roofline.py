"""The roofline: for each layer the FLOPs a second it reaches over its FLOPs a byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from layerbench import units
from layerbench.analysis.roofline import Point, points, ridge, roof
from layerbench.errors import UsageError
from layerbench.plots import canvas
from layerbench.plots.canvas import Ruler
from layerbench.records.contention import SOME
from layerbench.records.structure import Structure
from layerbench.records.timing import Ceilings, Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 8
SIZE_INCHES = (10.0, 7.0)
LABEL_SIZE = 7.5
ROOM = 2.5
LONGEST_NAME = 30
# Of the marker, square points: what even a layer of no time has, and the one that takes it all.
LEAST_AREA, MOST_AREA = 22.0, 900.0
# Told apart by shape, and by colour too.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
OTHER = "other types"
AREAS = "area: the layer's part of the time of all layers shown"
REACHED = "after a name: its share of the roof above it"
NO_CEILINGS = "This record has no ceilings: measure with layerbench timer --ceilings"
BUSY = "The ceilings were measured on a machine that did other work{waits}: they may lie too low"
GIGA = 1e9


@canvas.styled
def roofline(profile: Profile, structure: Structure | None = None, top: int = NAMED) -> Figure:
    """Draw each layer under the device's ceilings, if the profile has them.

    Args:
        profile: with layers.
        structure: of the same work; ``None`` takes the FLOPs that the profile has.
        top: how many layers to name, those that take the most time.

    Raises:
        ComparisonError: the two are of different work.
        UsageError: no layer has both FLOPs and a time, or FLOPs are in neither.
    """
    layers = sorted(points(profile, structure), key=lambda point: -point.time_s)
    if not layers:
        raise UsageError(
            "no layer has both FLOPs and a time: take the record of all layers, which layerbench "
            "timer writes to layers/"
        )
    figure, axes = canvas.blank(*SIZE_INCHES)
    _scales(axes, layers, profile.ceilings)
    handles = [*_scatter(axes, layers), *_roofs(axes, profile.ceilings)]
    canvas.headline(axes, "Roofline", profile)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        title="\n".join(_remarks(profile)),
        title_fontsize="small",
    )
    if profile.ceilings is None:
        axes.text(
            0.5, 0.985, NO_CEILINGS, transform=axes.transAxes, ha="center", va="top", style="italic"
        )
    _names(figure, axes, layers, top, profile.ceilings)
    return figure


def _remarks(profile: Profile) -> Iterator[str]:
    """What a reader should know of the picture."""
    yield AREAS if profile.ceilings is None else f"{AREAS}; {REACHED}"
    seen = profile.ceilings.conditions if profile.ceilings else None
    if seen and seen.warning:
        yield f"While the ceilings were measured: {seen.warning}"
    environment = profile.environment
    # An accelerator's ceilings are on its own clock, which the host's waits do not reach.
    waits = environment.machine.waits if environment.device.kind == "cpu" else None
    if profile.ceilings is not None and waits is not None and waits.rounds > SOME:
        share = units.percent(waits.rounds)
        yield BUSY.format(waits=f" (threads waited for a core in {share} of the rounds)")


def _scales(axes: Any, layers: Sequence[Point], ceilings: Ceilings | None) -> None:  # noqa: ANN401
    across = [point.intensity for point in layers]
    upward = [point.rate / GIGA for point in layers]
    if ceilings is not None:
        across.append(ridge(ceilings))
        upward.append(ceilings.flops_per_s / GIGA)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*_around(across))
    axes.set_ylim(*_around(upward))
    canvas.log_ticks(axes.xaxis)
    canvas.log_ticks(axes.yaxis)
    axes.set_xlabel("FLOPs a byte, of the bytes that must be moved at least")
    axes.set_ylabel("GFLOP/s reached by the median self time")
    axes.grid(visible=True, which="major", alpha=0.3)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the most, with room on both sides."""
    return min(values) / ROOM, max(values) * ROOM


def _scatter(axes: Any, layers: Sequence[Point]) -> Iterator[Any]:  # noqa: ANN401
    """Draw the points and return their entries in the legend."""
    from matplotlib.lines import Line2D

    whole = sum(point.time_s for point in layers)
    looks = _looks(layers)
    for kind, (marker, colour) in looks.items():
        named = [
            point for point in layers if (point.type if point.type in looks else OTHER) == kind
        ]
        axes.scatter(
            [point.intensity for point in named],
            [point.rate / GIGA for point in named],
            s=[LEAST_AREA + (MOST_AREA - LEAST_AREA) * p.time_s / whole for p in named],
            marker=marker,
            facecolor=colour,
            edgecolor="black",
            linewidth=0.6,
            alpha=0.65,
            zorder=3,
        )
        share = sum(point.time_s for point in named) / whole
        label = f"{canvas.shortened(kind, LONGEST_NAME)}: {units.percent(share, digits=1)}"
        yield Line2D(
            [], [], linestyle="", marker=marker, color=colour, markeredgecolor="black", label=label
        )


def _looks(layers: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """A marker and a colour for each type. The types with the least time share the last ones."""
    times: dict[str, float] = {}
    for point in layers:
        times[point.type] = times.get(point.type, 0.0) + point.time_s
    types = sorted(times, key=lambda kind: -times[kind])
    if len(types) > len(MARKERS):
        types = [*types[: len(MARKERS) - 1], OTHER]
    return dict(zip(types, zip(MARKERS, canvas.PALETTE, strict=True), strict=False))


def _roofs(axes: Any, ceilings: Ceilings | None) -> Iterator[Any]:  # noqa: ANN401
    if ceilings is None:
        return
    left, right = axes.get_xlim()
    bend = min(max(ridge(ceilings), left), right)
    yield from axes.plot(
        [left, bend],
        [roof(ceilings, left) / GIGA, roof(ceilings, bend) / GIGA],
        color="black",
        linestyle="--",
        label=f"memory: {units.byte_rate(ceilings.bytes_per_s)}",
    )
    yield from axes.plot(
        [bend, right],
        [roof(ceilings, bend) / GIGA, roof(ceilings, right) / GIGA],
        color="black",
        label=f"arithmetic: {units.flop_rate(ceilings.flops_per_s)} in {ceilings.dtype}",
    )


# --- names that do not cover each other -----------------------------------------------------

# Where a name may stand, from its point, in points: near first, to the right first.
_DISTANCES = (10, 18, 28, 40, 54, 70, 90, 115, 145, 180)
_DIRECTIONS = (
    *((1, 0.4), (1, -0.4), (-1, 0.4), (-1, -0.4), (0.8, 1), (0.8, -1), (-0.8, 1), (-0.8, -1)),
    *((0.1, 1), (0.1, -1)),
)
_Rectangle = tuple[float, float, float, float]
_Spot = tuple[float, float]


def _names(
    figure: Figure,
    axes: Any,  # noqa: ANN401 - axes are not typed
    layers: Sequence[Point],
    top: int,
    ceilings: Ceilings | None,
) -> None:
    """Name the first points where there is room: no name covers a point, a line or a name."""
    ruler = Ruler(figure, axes)
    spots = [_spot(axes, ruler, point.intensity, point.rate / GIGA) for point in layers]
    marks = [*(_around_spot(spot) for spot in spots), *_along_roofs(axes, ruler, ceilings)]
    names: list[_Rectangle] = []
    for point, spot in list(zip(layers, spots, strict=True))[:top]:
        text = canvas.tail(point.path or point.type, LONGEST_NAME)
        if point.share_of_roof is not None:
            text += f", {units.percent(point.share_of_roof)}"
        size = (ruler.text(text, LABEL_SIZE), LABEL_SIZE * 1.4)
        for place in _places(spot, size, ruler):
            leader = _leader(spot, place)
            if not _meet([place], [*marks, *names]) and not _meet(leader, names):
                break
        else:  # no name is better than an unreadable one
            continue
        names.append(place)
        marks += leader
        _write(axes, point, text, (place[0] - spot[0], (place[1] + place[3]) / 2 - spot[1]))


def _write(axes: Any, point: Point, text: str, offset: _Spot) -> None:  # noqa: ANN401
    note = axes.annotate(
        text,
        (point.intensity, point.rate / GIGA),
        xytext=offset,
        textcoords="offset points",
        fontsize=LABEL_SIZE,
        va="center",
        zorder=5,
        arrowprops={
            "arrowstyle": "-",
            "linewidth": 0.5,
            "color": "#555555",
            "relpos": (0 if offset[0] > 0 else 1, 0.5),
        },
    )
    note.set_in_layout(False)


def _spot(axes: Any, ruler: Ruler, x: float, y: float) -> _Spot:  # noqa: ANN401
    """The place of a value, in points from the lower left corner of the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across = math.log(x / left) / math.log(right / left)
    upward = math.log(y / low) / math.log(high / low)
    return across * ruler.width, upward * ruler.height


def _around_spot(spot: _Spot, half: float = 3.5) -> _Rectangle:
    x, y = spot
    return (x - half, y - half, x + half, y + half)


def _along_roofs(axes: Any, ruler: Ruler, ceilings: Ceilings | None) -> Iterator[_Rectangle]:  # noqa: ANN401
    """Small squares along the lines."""
    if ceilings is None:
        return
    left, right = axes.get_xlim()
    for step in range(121):
        at = left * (right / left) ** (step / 120)
        yield _around_spot(_spot(axes, ruler, at, roof(ceilings, at) / GIGA))


def _leader(spot: _Spot, place: _Rectangle) -> list[_Rectangle]:
    """Small squares along the line from a point to its name, but for its two ends."""
    left, low, right, high = place
    end = (left if left > spot[0] else right, (low + high) / 2)
    steps = [step / 16 for step in range(2, 15)]
    return [
        _around_spot((spot[0] + (end[0] - spot[0]) * s, spot[1] + (end[1] - spot[1]) * s), 0.5)
        for s in steps
    ]


def _places(spot: _Spot, size: tuple[float, float], ruler: Ruler) -> Iterator[_Rectangle]:
    """Rectangles within the axes for a text of this size."""
    width, height = size
    for distance in _DISTANCES:
        for across, upward in _DIRECTIONS:
            left = spot[0] + across * distance - (0 if across > 0 else width)
            low = spot[1] + upward * distance - height / 2
            inside = left > 2 and low > 2 and left + width < ruler.width - 2
            if inside and low + height < ruler.height - 2:
                yield (left, low, left + width, low + height)


def _meet(ones: Sequence[_Rectangle], others: Sequence[_Rectangle]) -> bool:
    """Whether a rectangle of the first overlaps one of the second."""
    return any(
        one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
        for one in ones
        for other in others
    )
