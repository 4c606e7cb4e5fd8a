"""A picture of several cards side by side, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerbench import units
from layerbench.plots import canvas
from layerbench.records.card_estimates import CardEstimate, CardEstimates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, BAR, MARGIN = 6.4, 0.28, 1.2
HOUR = 3600.0


@canvas.styled
def of_cards(record: CardEstimates) -> bytes:
    """Time against cost where there are prices, else the throughput of each card.

    Lines are the 90 % intervals of the predictions.
    """
    priced = [row for row in record.rows if row.cost is not None and row.total_s is not None]
    timed = [row for row in record.rows if row.images_per_s]
    figure, axes = canvas.blank(WIDTH, 4.0 if priced else MARGIN + BAR * max(len(timed), 1))
    if priced:
        _against_cost(axes, priced)
    else:
        _throughput(axes, timed)
    step = "training" if record.optimizer else "inference"
    title = f"{record.workload.model}, {record.workload.arithmetic}, {step}: predicted"
    axes.set_title(canvas.shortened(title, canvas.LONGEST_TITLE), fontsize="medium")
    axes.grid(visible=True, alpha=0.3)
    buffer = io.BytesIO()
    # Without the version, which would make equal pictures differ.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _throughput(axes: Axes, rows: Sequence[CardEstimate]) -> None:
    shown = sorted(rows, key=lambda row: row.images_per_s or 0.0)
    rates = [row.images_per_s or 0.0 for row in shown]
    ends = [_ends(row) for row in shown]
    below = [rate - low for rate, (low, _) in zip(rates, ends, strict=True)]
    above = [high - rate for rate, (_, high) in zip(rates, ends, strict=True)]
    names = [f"{canvas.shortened(row.card.name, 24)}, {row.batch}" for row in shown]
    axes.barh(names, rates, xerr=[below, above], color=canvas.BLUE, ecolor=canvas.BLACK)
    axes.set_xlabel("images a second, predicted")
    axes.set_ylabel("card, batch")


def _ends(row: CardEstimate) -> tuple[float, float]:
    """Images a second at the ends of the interval."""
    rate = row.images_per_s or 0.0
    if row.interval is None or row.seconds is None or not row.interval.low:
        return rate, rate
    images = rate * row.seconds
    return images / row.interval.high, images / row.interval.low


def _against_cost(axes: Axes, rows: Sequence[CardEstimate]) -> None:
    for row in rows:
        assert row.cost is not None
        assert row.total_s is not None
        assert row.total_interval is not None
        between = row.total_interval
        hours = row.total_s / HOUR
        # Of one card the cost is known as well as the time, so that both are off together.
        ends = [time / HOUR for time in (between.low, between.high)]
        costs = [row.cost * time / row.total_s for time in (between.low, between.high)]
        axes.plot(ends, costs, color=canvas.BLUE, alpha=0.5)
        axes.plot(hours, row.cost, "o", color=canvas.BLUE)
        name = canvas.shortened(row.card.name, 24)
        axes.annotate(name, (hours, row.cost), textcoords="offset points", xytext=(7, -12))
    axes.set_xscale("log")
    canvas.log_ticks(axes.xaxis)
    axes.set_xlabel(f"hours for all images, predicted ({units.count(len(rows))} cards)")
    axes.set_ylabel("cost, in the currency of the prices")
    axes.margins(x=0.12, y=0.12)
    axes.set_ylim(bottom=0)
