"""The live bytes over a run: a step curve with its phases and its peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from layerbench import units
from layerbench.errors import UsageError
from layerbench.plots import canvas
from layerbench.plots.canvas import Ruler
from layerbench.records.memory import MemoryEstimate, MemoryReport, Phase, TimelinePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Recorded = MemoryReport | MemoryEstimate
Name = TypeVar("Name", bound=str)

SIZE_INCHES = (12.0, 5.0)
MEBIBYTE = 2**20
# Above the curve stand the phases' names and what is said of the peak.
HEADROOM = 1.28
LABEL_SIZE = 7.5
LONGEST_NAME = 60
# More modules along the axis could not be read.
MOST_MODULES = 70
PHASE_COLOURS: dict[Phase, str] = {
    "load": "#e8e8e8",
    "forward": "#eef4fb",
    "loss": "#f3e3ee",
    "backward": "#fdf1df",
    "recomputation": "#f6e3c3",
    "optimizer": "#e4f1e4",
}


@canvas.styled
def memory(record: Recorded) -> Figure:
    """Draw the most bytes alive in each stretch of the run, in order.

    Stretches are those in which one module was running; they are not to the scale of time.

    Raises:
        UsageError: the record has no timeline.
    """
    line = record.timeline
    if not line:
        raise UsageError(
            "the record has no timeline: take a memory record, as layerbench mem writes it"
        )
    figure, axes = canvas.blank(*SIZE_INCHES)
    most = [point.live_max / MEBIBYTE for point in line]
    axes.stairs(most, fill=True, color="#8fc1e3", label="the most alive in the stretch")
    axes.stairs(most, color=canvas.BLUE, linewidth=1.0)
    if isinstance(record, MemoryReport):
        axes.axhline(
            record.resident_bytes / MEBIBYTE,
            color="black",
            linestyle=":",
            label=f"there all the time: {units.mebibytes(record.resident_bytes)}",
        )
    axes.set_xlim(0, len(line))
    axes.set_ylim(0, max(most) * HEADROOM)
    axes.set_ylabel("alive, MiB")
    axes.set_xlabel("stretches in which one module runs, in order (not to the scale of time)")
    step = "a training step" if record.training else "a forward"
    canvas.headline(axes, f"Memory of {step}", record)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    groups = _modules(record)
    axes.set_xticks([(start + end) / 2 for start, end, _ in groups], ["M" * 12] * len(groups))
    axes.tick_params(axis="x", labelsize=LABEL_SIZE, rotation=90, length=2)
    ruler = Ruler(figure, axes)
    _name_modules(axes, groups, ruler, len(line))
    _phases(axes, line, ruler)
    _peak(axes, record, most)
    return figure


def _modules(record: Recorded) -> list[tuple[int, int, str]]:
    """Start, end and name of the running modules, at the finest readable depth."""
    stretches: list[tuple[int, int, str]] = []
    for depth in (1, 2, 3):
        names = [_above(record, point, depth) for point in record.timeline]
        finer = [run for run in _runs(names) if run[2]]
        if stretches and len(finer) > MOST_MODULES:
            break
        stretches = finer
    return stretches


def _above(record: Recorded, point: TimelinePoint, depth: int) -> str:
    path = "" if point.owner is None else record.rows[point.owner].path
    return ".".join(path.split(".")[:depth])


def _runs(names: Sequence[Name]) -> Iterator[tuple[int, int, Name]]:
    start = 0
    for name, group in groupby(names):
        end = start + sum(1 for _ in group)
        yield start, end, name
        start = end


def _name_modules(
    axes: Any,  # noqa: ANN401 - axes are not typed
    groups: Sequence[tuple[int, int, str]],
    ruler: Ruler,
    stretches: int,
) -> None:
    """Name as many as have room beside each other, the longest first."""
    per_stretch = ruler.width / stretches
    shown: list[tuple[float, str]] = []
    for start, end, name in sorted(groups, key=lambda group: group[0] - group[1]):
        middle = (start + end) / 2
        if all(abs(middle - other) * per_stretch > LABEL_SIZE * 1.25 for other, _ in shown):
            shown.append((middle, canvas.tail(name, 22)))
    axes.set_xticks([at for at, _ in shown], [name for _, name in shown])


def _phases(axes: Any, line: Sequence[TimelinePoint], ruler: Ruler) -> None:  # noqa: ANN401
    for start, end, phase in _runs([point.phase for point in line]):
        axes.axvspan(start, end, color=PHASE_COLOURS[phase], zorder=0)
        axes.axvline(start, color="#999999", linewidth=0.6, zorder=0.5)
        room = (end - start) * ruler.width / len(line)
        fits = ruler.text(phase, LABEL_SIZE) <= room
        # A name that is upright stands within the axes, also at their two ends.
        at_end = not fits and end == len(line)
        axes.annotate(
            phase,
            ((start + end) / 2 if fits else end if at_end else start, 0.985),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0 if fits else -2 if at_end else 2, 0),
            textcoords="offset points",
            rotation=0 if fits else 90,
            ha="center" if fits else "right" if at_end else "left",
            va="top",
            size=LABEL_SIZE,
            style="italic",
        ).set_in_layout(False)


def _peak(axes: Any, record: Recorded, most: Sequence[float]) -> None:  # noqa: ANN401
    at = max(range(len(most)), key=most.__getitem__)
    middle, height = at + 0.5, most[at]
    axes.plot(middle, height, "v", color=canvas.VERMILION, markersize=7, zorder=4)
    left = at < len(most) / 2
    axes.annotate(
        _peak_text(record),
        (middle, height),
        xytext=(8 if left else -8, 14),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        size=LABEL_SIZE + 0.5,
        arrowprops={
            "arrowstyle": "-",
            "linewidth": 0.6,
            "color": canvas.VERMILION,
            "relpos": (0 if left else 1, 0),
        },
        bbox={"facecolor": "white", "edgecolor": canvas.VERMILION, "linewidth": 0.5, "pad": 2.0},
    ).set_in_layout(False)


def _peak_text(record: Recorded) -> str:
    if isinstance(record, MemoryReport):
        peak = record.peak
        figure, owner, operator = units.mebibytes(peak.bytes), peak.owner, peak.operator
    else:
        bounds = record.peak_interval
        figure = (
            f"{units.mebibytes(record.peak_bytes)} "
            f"({units.mebibytes(bounds.low)} to {units.mebibytes(bounds.high)})"
        )
        owner, operator = record.peak_owner, record.peak_operator
    ran = "outside the model"
    if owner is not None:
        ran = f"in {canvas.tail(owner or 'the model itself', LONGEST_NAME)}"
    return f"peak: {figure} {ran}, {canvas.shortened(operator, LONGEST_NAME)}"
