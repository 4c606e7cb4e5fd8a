"""What all pictures of a record have in common: style, title, measuring text, the bytes."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from layerbench.analysis import disturbance
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Workload
from layerbench.text import ending

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = Profile | Structure | MemoryReport | MemoryEstimate | TrainingProfile

ENDINGS = ("png", "svg")
DOTS_PER_INCH = 110
POINTS_PER_INCH = 72
# A viewer of an SVG without matplotlib's font shows another, which may be wider.
SLACK = 1.12
LONGEST_TITLE = 95
# The colours of M. Okabe and K. Ito, "Color Universal Design", 2008: told apart by readers with
# any of the usual kinds of colour blindness. The yellow one is left out: it is faint on white.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
VERMILION, SKY, BLACK = "#d55e00", "#56b4e9", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK)
# What is written at an axis of at most so many powers of ten, and else the powers alone.
STEPS = {1.0: (1, 1.5, 2, 3, 4, 5, 6, 8), 2.5: (1, 2, 5)}
UNSHOWN = "\N{REPLACEMENT CHARACTER}"

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def styled(draw: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Let a function draw in `style`."""

    @wraps(draw)
    def in_style(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        with style():
            return draw(*args, **kwargs)

    return in_style


@contextmanager
def style() -> Iterator[None]:
    """Settings for drawing and for saving: the same bytes twice, and text that stays text.

    A name out of a record is anybody's text: between two dollars it must not become a formula.
    """
    import matplotlib
    from cycler import cycler

    settings: Any = {
        "axes.prop_cycle": cycler(color=PALETTE),
        "svg.fonttype": "none",
        "svg.hashsalt": "layerbench",
        "text.parse_math": False,
        "font.size": 9,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A name may hold letters that the font has not; a box stands for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def blank(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes."""
    # Not pyplot, which keeps every figure and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


@styled
def encoded(figure: Figure, ending: str) -> bytes:
    """The picture's bytes; those of equal records are equal.

    Args:
        figure: from one of the functions of this package.
        ending: one of `ENDINGS`.
    """
    # Laid out once, at the figure's own resolution: which format comes first changes nothing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # Without version and date, which would make equal pictures differ.
    without = {"png": {"Software": None}, "svg": {"Creator": None, "Date": None}}[ending]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, metadata=without)
    return buffer.getvalue()


def plain(text: str) -> str:
    """The text without characters that no picture can show, and that XML forbids."""
    return "".join(letter if letter.isprintable() else UNSHOWN for letter in text)


def shortened(text: str, most: int) -> str:
    """The text with at most so many characters: both ends stay."""
    text = plain(text)
    if len(text) <= most:
        return text
    end = most // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def tail(path: str, most: int) -> str:
    """The path with at most so many characters: its end distinguishes layers."""
    return ending(plain(path), most)


def shade(colour: str, part: float) -> tuple[float, float, float]:
    """The colour mixed with white.

    Args:
        colour: of `PALETTE`.
        part: of the colour: 1 leaves it as it is.
    """
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - part * (1 - value) for value in to_rgb(colour))
    return red, green, blue


def log_ticks(axis: Any) -> None:  # noqa: ANN401 - axes are not typed
    """Write plain numbers at a logarithmic axis: ``0.2 1 10`` instead of powers.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``, its limits set or its data drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    steps = next((steps for most, steps in STEPS.items() if decades <= most), (1,))
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axis.set_minor_formatter(NullFormatter())


def plain_number(value: float) -> str:
    """A figure of an axis without a power: ``0.2``, ``10``, ``20,000``."""
    return f"{value:,.9f}".rstrip("0").rstrip(".")


def headline(axes: Any, what: str, record: Drawn) -> None:  # noqa: ANN401 - axes are not typed
    """Write the title: what is shown, of which model and input, and on which device."""
    first = f"{what}: {shortened(work(record.workload), LONGEST_TITLE - len(what))}"
    axes.set_title(f"{first}\n{shortened(where(record), LONGEST_TITLE)}", fontsize="medium")
    doubt = doubtful(record)
    if doubt:
        axes.figure.suptitle(doubt, fontsize="medium", color=VERMILION)


def doubtful(record: Drawn) -> str:
    """What makes the times of this record mean nothing; empty where they do."""
    if not isinstance(record, Profile | TrainingProfile):
        return ""
    return disturbance.too_busy(record).partition(". ")[0]


def work(workload: Workload) -> str:
    """Model, input and every choice that is not the usual one."""
    shape = "x".join(map(str, workload.shape))
    size = shape if workload.input == shape else f"{workload.input} ({shape})"
    parts = [workload.model, size]
    if workload.arithmetic != "float32":
        parts.append(workload.arithmetic)
    if workload.memory_format != "contiguous":
        parts.append(workload.memory_format.replace("_", " "))
    if workload.mode != "eval":
        parts.append("train mode")
    return ", ".join(parts)


def where(record: Drawn) -> str:
    """The device and its threads; for predictions and structures a phrase in their place."""
    if isinstance(record, Structure):
        return "the same on every machine"
    if isinstance(record, MemoryEstimate):
        return f"predicted for {record.on}"
    device, threads = record.environment.device, record.environment.machine.threads
    if device.kind != "cpu" or threads is None:
        return device.name
    return f"{device.name}, {threads} thread{'' if threads == 1 else 's'}"


class Ruler:
    """Measures text and axes in points, once the figure is laid out.

    Args:
        figure: complete, except for artists outside the layout.
        axes: of it.
    """

    def __init__(self, figure: Figure, axes: Any) -> None:  # noqa: ANN401 - axes are not typed
        figure.draw_without_rendering()
        self._renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        self._scale = POINTS_PER_INCH / figure.dpi
        box = axes.get_window_extent()
        self.width, self.height = box.width * self._scale, box.height * self._scale
        self._widths: dict[tuple[str, float], float] = {}

    def text(self, text: str, size: float) -> float:
        """The largest possible width of the longest line, in points."""
        return max(self._line(line, size) for line in text.split("\n")) * SLACK

    def _line(self, line: str, size: float) -> float:
        key = (line, size)
        if key not in self._widths:
            from matplotlib.font_manager import FontProperties

            width, _, _ = self._renderer.get_text_width_height_descent(
                line, FontProperties(size=size), False
            )
            self._widths[key] = width * self._scale
        return self._widths[key]
