"""Pictures of trainings and sweeps: colours, figures of the axes, the place of the legend."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from layerbench import plots
from layerbench.plots import canvas, training
from layerbench.records.sweep import SweepPoint
from tests.support import sample_detection
from tests.support.sample_runs import run, sweep


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are made."""
    made: list[Figure] = []
    blank = canvas.blank

    def kept(*size: float) -> tuple[Figure, Any]:
        figure, axes = blank(*size)
        made.append(figure)
        return figure, axes

    monkeypatch.setattr(canvas, "blank", kept)
    return made


def points() -> tuple[SweepPoint, ...]:
    """Two models, each with two sizes and batches."""
    one = sweep().points[0]
    made = product(("resnet18", "path/" * 20 + "file.py:make"), (64, 128), (1, 2))
    return tuple(
        one.model_copy(update={"model": model, "size": (size, size), "batch": batch})
        for model, size, batch in made
    )


@pytest.mark.parametrize("draw", [plots.latency_against_batch, plots.memory_against_batch])
def test_a_model_has_one_colour_and_its_sizes_are_shades_of_it(drawn, draw) -> None:
    draw(points(), "AMD EPYC")
    looks = training._looks([(point.model, point.size) for point in points()])
    small, large, *others = looks.values()
    assert large["color"] == pytest.approx(to_rgb(canvas.PALETTE[0]))
    assert others[1]["color"] == pytest.approx(to_rgb(canvas.PALETTE[1]))
    # The same hue, mixed with white.
    parts = [(1 - a) / (1 - b) for a, b in zip(small["color"], large["color"], strict=True)]
    assert parts == pytest.approx([training.PALEST] * 3)
    assert small["marker"] == others[0]["marker"] != large["marker"]
    lines = [line for line in drawn[0].axes[0].get_lines() if line.get_marker() in ("o", "s")]
    assert [line.get_color() for line in lines] == [look["color"] for look in looks.values()]


PICTURES = {
    "loss": lambda: plots.loss(run()),
    "accuracy": lambda: plots.accuracy(run()),
    "latency": lambda: plots.latency_against_batch(points(), "AMD EPYC"),
    "memory": lambda: plots.memory_against_batch(points(), "AMD EPYC " * 20),
    "flops": lambda: plots.accuracy_against_flops(sweep().runs, "Finished trainings"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_legends_hide_nothing_labels_are_whole_and_figures_plain(drawn, name) -> None:
    PICTURES[name]()
    (figure,) = drawn
    (axes,) = figure.axes
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    page = figure.bbox.padded(0.5)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title, *legend.get_texts()):
        extent = text.get_window_extent()
        assert page.contains(extent.x0, extent.y0), text
        assert page.contains(extent.x1, extent.y1), text
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    assert not [tick for tick in ticks if "^" in tick.get_text()]


def test_plain_numbers() -> None:
    figures = (0.001, 0.2, 1.5, 10, 20_000)
    assert [canvas.plain_number(value) for value in figures] == [
        *("0.001", "0.2", "1.5", "10", "20,000"),
    ]


def test_no_figure_of_an_axis_is_beyond_what_can_be(drawn) -> None:
    runs = [one.model_copy(update={"accuracy": 0.997}) for one in sweep().runs]
    training.accuracy_against_flops(runs, "Finished trainings")
    training.utilization(sample_detection.run())
    for figure in drawn:
        axes = figure.axes[0]
        assert max(axes.get_yticks()) <= 100
        assert axes.get_ylim()[1] > 100
