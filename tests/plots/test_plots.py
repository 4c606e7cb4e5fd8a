"""Pictures of records: what stands in them, from records made by hand."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from layerbench import plots
from layerbench.plots import canvas, quantities
from layerbench.plots.icicle import boxes as boxes_of
from layerbench.plots.quantities import Cell
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.store import reading
from tests.support.paths import ROOT
from tests.support.pictures import estimate, report, roofed, texts, written_in
from tests.support.sample_profiles import layered, on_gpu, summary
from tests.support.sample_structures import graphed, structure

NASTY = ("$x^2$", "<b>&amp;", "tab\tand\x00nul", "层")


def trained() -> TrainingProfile:
    def row(path: str, type: str, forward: float, backward: float | None, own: float) -> object:
        return {
            "path": path,
            "type": type,
            "depth": path.count(".") + 1 if path else 0,
            "calls": 1,
            "forward": summary(forward),
            "forward_self": summary(own),
            "backward": None if backward is None else summary(backward),
            "backward_self": None if backward is None else summary(own),
        }

    return TrainingProfile.model_validate(
        {
            "workload": layered().workload,
            "plan": layered().plan,
            "environment": layered().environment,
            "optimizer": "sgd",
            "model_type": "TinyNet",
            "parameters": 1,
            "step": summary(20),
            "phases": (),
            "rows": [
                row("", "TinyNet", 4, 6, 1),
                row("a", "Conv2d", 3, 5, 4),
                row("frozen", "ReLU", 0.5, None, 0.5),
            ],
            "instrumented_s": 0.02,
            **dict.fromkeys(("overhead", "overhead_low", "overhead_high"), 1.0),
            "outside_s": 0.0,
            **dict.fromkeys(("forward_sum_ratio", "backward_sum_ratio"), 1.0),
        }
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "icicle": lambda: plots.icicle(layered()),
    "icicle of self": lambda: plots.icicle(layered(), "self"),
    "icicle of flops": lambda: plots.icicle(structure()),
    "icicle of parameters": lambda: plots.icicle(structure(), "parameters"),
    "icicle of memory": lambda: plots.icicle(report()),
    "icicle of an estimate": lambda: plots.icicle(estimate()),
    "icicle of a training": lambda: plots.icicle(trained()),
    "bars": lambda: plots.bars(layered()),
    "bars of flops": lambda: plots.bars(structure()),
    "bars of memory": lambda: plots.bars(report()),
    "bars of a training": lambda: plots.bars(trained(), "self"),
    "roofline": lambda: plots.roofline(roofed(), structure()),
    "roofline without ceilings": lambda: plots.roofline(layered(), structure()),
    "memory": lambda: plots.memory(report()),
    "graph": lambda: plots.graph(graphed(), "features.2", layered()),
    "graph of flops": lambda: plots.graph(graphed()),
    "memory of an estimate": lambda: plots.memory(estimate()),
}


@cache
def pictured(name: str, ending: str) -> bytes:
    return plots.encoded(FIGURES[name](), ending)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_pictures_are_png_and_svg_and_the_same_twice(name: str) -> None:
    png, svg = (pictured(name, ending) for ending in plots.ENDINGS)
    assert png == plots.encoded(FIGURES[name](), "png")
    assert svg == plots.encoded(FIGURES[name](), "svg")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert min(Image.open(io.BytesIO(png)).size) > 200
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    # Neither when nor by which version: equal records have equal pictures.
    assert not re.search(rb"<dc:date>|\d{4}-\d\d-\d\dT|Matplotlib v", svg)


@pytest.mark.parametrize("name", FIGURES)
def test_a_title_says_model_input_and_where(name: str) -> None:
    written = " ".join(written_in(pictured(name, "svg")))
    assert "tiny, 2x3x32x32" in written
    places = {"estimate": "predicted for cuda", "flops": "the same on every", "parameters": "the s"}
    wanted = next((text for word, text in places.items() if word in name), "AMD EPYC, 1 thread")
    assert wanted in written


def test_a_named_input_stands_with_its_shape() -> None:
    workload = layered().workload.model_copy(
        update={"input": "pascal", "dtype": "float16", "mode": "train"}
    )
    assert canvas.work(workload) == "tiny, pascal (2x3x32x32), float16, train mode"
    assert canvas.where(on_gpu()) == "NVIDIA H100"


# --- names are anybody's text ---------------------------------------------------------------


def renamed(record: Profile, name: str) -> Profile:
    rows = tuple(
        row.model_copy(update={"path": name, "type": name}) if row.path == "classifier" else row
        for row in record.layers
    )
    workload = record.workload.model_copy(update={"model": name})
    return record.model_copy(update={"layers": rows, "workload": workload})


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_they_are(name: str) -> None:
    record = renamed(roofed(), name)
    rows = tuple(
        row.model_copy(update={"path": name, "type": name}) if row.path == "classifier" else row
        for row in structure().rows
    )
    dissected = structure(rows=rows, workload=record.workload)
    shown = canvas.plain(name)
    for figure in (
        plots.icicle(record),
        plots.bars(record),
        plots.roofline(record, dissected),
    ):
        written = texts(figure)
        assert any(shown in text for text in written), written
        assert plots.encoded(figure, "png").startswith(b"\x89PNG")
    made = report()
    peak = made.peak.model_copy(update={"owner": name, "operator": name})
    assert any(
        f"in {shown}, {shown}" in text
        for text in texts(plots.memory(made.model_copy(update={"peak": peak})))
    )


def test_plain_and_shortened_names() -> None:
    assert canvas.plain("a\nb\x00") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert canvas.shortened("abcdefghij", 10) == "abcdefghij"
    assert canvas.shortened("abcdefghij", 7) == "abc…hij"
    assert canvas.tail("features.2.conv.0", 8) == "….conv.0"
    assert len(canvas.tail("x" * 99, 30)) == 30


def test_a_long_model_name_leaves_the_title_readable() -> None:
    workload = layered().workload.model_copy(update={"model": "path/" * 60 + "file.py:make"})
    written = texts(plots.icicle(layered().model_copy(update={"workload": workload})))
    title = next(text for text in written if "Mean inclusive time" in text)
    assert "…" in title
    assert max(map(len, title.split("\n"))) < 110


# --- icicle ---------------------------------------------------------------------------------


def cell(path: str, total: float) -> Cell:
    return Cell(path, "T", total, total, 0.0)


def test_boxes_are_as_wide_as_their_part() -> None:
    cells = [cell("", 10), cell("a", 6), cell("a.x", 3), cell("b", 2), cell("b.y", 2)]
    found = {box.cell.path: box for box in boxes_of(cells) if box.cell}
    assert {path: (box.left, box.width, box.level) for path, box in found.items()} == {
        "": (0, 1, 0),
        "a": (0, 0.6, 1),
        "a.x": (0, 0.3, 2),
        "b": (0.6, 0.2, 1),
        "b.y": (0.6, 0.2, 2),
    }
    assert {box.level for box in boxes_of(cells, depth=1)} == {0, 1}


def test_children_that_take_more_than_their_module_are_narrowed() -> None:
    boxes = boxes_of([cell("", 10), cell("a", 15), cell("b", 5)])
    assert [(box.left, box.width) for box in boxes[1:]] == [(0, 0.75), (0.75, 0.25)]


def test_small_ones_stand_together_and_are_counted() -> None:
    tiny = [cell(f"t{number}", 1) for number in range(5)]
    below = [cell("t0.a", 0.5), cell("t0.b", 0.5)]
    cells = [cell("", 1000), *tiny[:2], *below, cell("big", 900), *tiny[2:], cell("none", 0)]
    *_, big, rest = boxes_of(cells)
    assert big.cell is not None
    assert (big.cell.path, big.left, big.width) == ("big", 0, 0.9)
    assert rest.cell is None
    assert rest.small == 7
    assert rest.left == 0.9
    assert rest.width == pytest.approx(0.005)


def test_a_row_below_one_that_never_ran_hangs_on_the_next_above() -> None:
    boxes = boxes_of([cell("", 4), cell("hidden.inner", 4)])
    assert [(box.level, box.width) for box in boxes] == [(0, 1), (1, 1)]


def drawn_boxes(figure: Figure) -> list[Rectangle]:
    return [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]


def test_an_icicle_has_a_box_for_each_row_a_colour_bar_and_labels() -> None:
    figure = plots.icicle(layered())
    axes, bar = figure.axes
    drawn = drawn_boxes(figure)
    ran = [row for row in layered().layers if row.inclusive]
    assert len(drawn) == len(ran)
    assert drawn[0].get_width() == 1
    widths = sorted(round(box.get_width(), 4) for box in drawn)
    assert widths == sorted(round(row.inclusive.mean / 10e-3, 4) for row in ran)
    assert sum(box.get_hatch() is not None for box in drawn) == 2  # the functions
    assert "share of the whole" in bar.get_ylabel()
    assert "100 % = 10.00 ms" in axes.get_xlabel()
    assert "hatched: functions" in axes.get_xlabel()
    written = [text.get_text() for text in axes.texts]
    assert "TinyNet\n10.00 ms, 100.0 %" in written
    assert "conv Conv2d\n3.900 ms, 39.0 %" in written
    assert all(text.get_parse_math() is False for text in axes.texts)


def test_depth_ends_an_icicle() -> None:
    assert len(drawn_boxes(plots.icicle(layered(), depth=1))) == 4


def test_by_self_time_the_tree_adds_up_and_the_colour_is_ones_own() -> None:
    shown = quantities.quantity(layered(), "self")
    by_path = {one.path: one for one in shown.cells}
    assert by_path["features.2"].total == pytest.approx(0.09e-3 + 3.9e-3)
    assert by_path[""].total == pytest.approx(10e-3)
    assert by_path["features.2"].share == pytest.approx(0.009)
    assert shown.by_own
    assert "own share" in plots.icicle(layered(), "self").axes[1].get_ylabel()


def test_memory_is_what_is_held_at_the_peak() -> None:
    shown = quantities.quantity(report(), None)
    assert [(one.path, one.total) for one in shown.cells] == [
        ("", 4 * 2**20),
        ("features", 4 * 2**20),
        ("features.0", 3 * 2**20),
        ("features.1", 2**20),
    ]
    assert "layers hold 4.00 MiB of the 6.00 MiB at the peak" in shown.note


def test_a_training_step_is_forward_and_backward() -> None:
    cells = {one.path: one for one in quantities.quantity(trained(), "time").cells}
    assert cells["a"].total == pytest.approx(8e-3)
    assert cells["a"].share == pytest.approx(0.8)
    assert cells["frozen"].total == pytest.approx(0.5e-3)
    assert cells["a"].high is None


# --- bars -----------------------------------------------------------------------------------


def test_bars_are_the_largest_self_times_with_their_intervals() -> None:
    figure = plots.bars(layered(), top=4)
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "features.2.conv Conv2d",
        "features.1.conv Conv2d",
        "features.0 Conv2d",
        "(the model) TinyNet",
    ]
    medians = sorted((row.self_.median for row in layered().layers if row.self_), reverse=True)
    lengths = [bar.get_width() for bar in drawn_boxes(figure)]
    assert lengths == pytest.approx([median * 1e3 for median in medians[:4]])
    ends = [text.get_text() for text in axes.texts]
    assert ends[0] == "3.896 ms, 39.0 %"
    assert all(" ms, " in end for end in ends)
    longest = next(row for row in layered().layers if row.path == "features.2.conv").self_
    segments = axes.collections[0].get_segments()
    assert list(segments[0][:, 0]) == pytest.approx([longest.ci_low * 1e3, longest.ci_high * 1e3])


def test_functions_are_among_the_bars_and_told_apart() -> None:
    figure = plots.bars(layered())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"mean()", "features.1.add()"} <= set(labels)
    assert "function: a part of its module's time" in texts(figure)
    assert len(labels) == 10  # the row that did not run has no time


def test_bars_of_inclusive_time_leave_the_whole_out() -> None:
    labels = plots.bars(layered(), "time", top=2).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [
        "features Sequential",
        "features.2 InvertedResidual",
    ]


# --- committed records ----------------------------------------------------------------------


def labels_of(figure: Figure) -> list[object]:
    """Bounding boxes of the labels in the axes, in pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()]


def overlapping(boxes: list[object]) -> int:
    # Half a pixel of touching is no collision.
    shrunk = [box.padded(-0.5) for box in boxes]
    return sum(
        one.overlaps(other) for index, one in enumerate(shrunk) for other in shrunk[index + 1 :]
    )


def committed(place: str) -> Profile | Structure | MemoryReport:
    record = reading.read(next(ROOT.glob(place)))
    assert isinstance(record, Profile | Structure | MemoryReport)
    return record


@pytest.mark.parametrize(
    "place",
    [
        "stats/*/layers/mobilenet_v2_cityscapes.json",
        "model_structures/resnet101_pascal.json",
        "memory_reports/resnet50_cityscapes.json",
    ],
)
def test_labels_do_not_collide(place: str) -> None:
    record = committed(place)
    icicle = plots.icicle(record)
    assert overlapping(labels_of(icicle)) == 0
    # A name that does not fit is left out, not cut.
    assert not [text.get_text() for text in icicle.axes[0].texts if "…" in text.get_text()]
    assert overlapping(labels_of(plots.bars(record))) == 0
    if isinstance(record, MemoryReport):
        assert overlapping(labels_of(plots.memory(record))) == 0


def test_names_in_a_roofline_do_not_collide() -> None:
    profile = committed("stats/*/layers/mobilenet_v2_cityscapes.json")
    dissected = committed("model_structures/mobilenet_v2_cityscapes.json")
    assert isinstance(profile, Profile)
    assert isinstance(dissected, Structure)
    figure = plots.roofline(profile, dissected, top=25)
    # An annotation's extent takes in its line; the text alone is asked for.
    figure.draw_without_rendering()
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]
    assert len(boxes) > 10
    assert overlapping(boxes) == 0
