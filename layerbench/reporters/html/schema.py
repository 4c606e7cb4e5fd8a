"""The page's data, column by column: plain values in SI units, which it only shows.

Rows are numbered in tree order, parents before children and children in order of execution; each
column has a value for each row.
"""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from layerbench.records.bounds import is_none

Unit = Literal["seconds", "bytes", "flops", "count", "joules"]
Interval = tuple[float, float]
Number = int | float
Stats = tuple[Number | None, Number, Number, Number]


class Part(BaseModel):
    """Base of all parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rows(Part):
    """The columns of each row that do not depend on a measurement.

    Attributes:
        path, type, kind, depth, calls, note: as in `layerbench.records.timing.LayerRow`;
            ``kind`` is also ``range`` for one of the user's own, and ``missing`` for a row that
            only the baseline of a comparison has.
        block: indices of the rows in the block view.
        inputs, outputs: shapes as text.
        kernel, groups: by row, of a convolution or a pooling.
        bound: by row, what a layer on an accelerator meets first: launching, memory, arithmetic.
    """

    path: tuple[str, ...]
    type: tuple[str, ...]
    kind: tuple[Literal["module", "function", "range", "missing"], ...]
    depth: tuple[int, ...]
    calls: tuple[int, ...]
    block: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    note: dict[int, str]
    kernel: dict[int, str] = {}
    groups: dict[int, int] = {}
    bound: dict[int, str] = Field(default={}, exclude_if=operator.not_)


class Metric(Part):
    """One figure of each row.

    Attributes:
        key, label: a short name, and what a reader calls it.
        unit: of the values.
        how: where the figures come from.
        values: of each row with what is below it; ``None`` where there is none.
        own: without what is below it; ``None`` where that has no meaning.
        area: of each row, what no row below it accounts for: never negative, and over all rows the
            whole. Empty for what does not add up.
        between, own_between: what ``values`` and ``own`` lie between, where that is known.
    """

    key: str
    label: str
    unit: Unit
    how: str
    values: tuple[Number | None, ...]
    own: tuple[Number | None, ...] = ()
    area: tuple[Number, ...] = ()
    between: tuple[Interval | None, ...] = Field(default=(), exclude_if=operator.not_)
    own_between: tuple[Interval | None, ...] = Field(default=(), exclude_if=operator.not_)


class Spread(Part):
    """The distributions behind a metric of times.

    Attributes:
        key: the metric's, or ``own`` and it for the self times, where these are others: what holds
            nothing has only the former.
        label: what it is the time of.
        rows: the row's number and then `layerbench.records.timing.Summary`'s fields in the order of
            ``fields``.
        verdict: by row, where it is not ``stable``; ``missed``: the criteria it missed.
    """

    key: str
    label: str
    fields: tuple[str, ...]
    rows: tuple[tuple[Number, ...], ...]
    verdict: dict[int, str]
    missed: dict[int, tuple[str, ...]]


class Fold(Part):
    """Siblings of one type that follow each other.

    Attributes:
        parent: the row above.
        members: their numbers.
        type: that they share.
        stats: for each metric, and for ``own`` and each that has self figures, the total (``None``
            where it does not add up), least, median and most of those that have a value.
        verdicts: how many of them a comparison calls what.
    """

    parent: int
    members: tuple[int, ...]
    type: str
    stats: dict[str, Stats]
    verdicts: dict[str, int] = {}


class Changed(Part):
    """Two measurements, row by row; ``None`` where a row was not timed on both sides.

    Attributes:
        baseline, contender: what the sides are called.
        threshold: changes up to this are the same.
        before, ratio, low, high: of each row; ``after`` is the contender's.
        verdict: SLOWER, FASTER, SAME, UNCLEAR, ``added``, ``missing`` or empty.
        notes: by row, such as another number of calls.
        differences: of workload, plan and environment, as what, before, after.
    """

    baseline: str
    contender: str
    threshold: float
    before: tuple[float | None, ...]
    after: tuple[float | None, ...]
    ratio: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    verdict: tuple[str, ...]
    notes: dict[int, str]
    differences: tuple[tuple[str, str, str], ...]


class Timeline(Part):
    """Memory as a run goes on, in stretches in which one module was running.

    Attributes:
        how: measured or predicted.
        owner: the row that ran, ``None`` outside the model.
        phase: by stretch.
        most, end: bytes alive at most, and at its end.
        changes: by stretch, pairs of a row (-1: outside the model) and by how many bytes what it
            allocated has grown or shrunk; added up to a stretch they are what is alive at its end.
        peak: in words.
    """

    how: str
    owner: tuple[int | None, ...]
    phase: tuple[str, ...]
    most: tuple[int, ...]
    end: tuple[int, ...]
    changes: tuple[tuple[tuple[int, int], ...], ...] = ()
    peak: str


class RooflinePoint(Part):
    """One layer: FLOPs a byte, FLOPs a second, and how far from the roof it is."""

    row: int
    intensity: float
    rate: float
    share: float | None
    bound: str | None


class Roofline(Part):
    """How fast layers compute, against how much they compute for each byte.

    Attributes:
        flops_per_s, bytes_per_s: the ceilings, ``None`` without any.
        how: where ceilings and points come from.
    """

    flops_per_s: float | None
    bytes_per_s: float | None
    how: str
    points: tuple[RooflinePoint, ...]


class Kernels(Part):
    """What an accelerator ran, the longest first.

    Attributes:
        names: of all kernels; ``labels``: the same, short.
        entries: each a row's number; a name's; the operator that launched it, empty where there was
            none, of a training step behind the phase; calls in one forward or step; median seconds
            of all of them; the share of the time in which the device worked.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    entries: tuple[tuple[int, int, str, int, float, float], ...]


class PageGraph(Part):
    """What modules' children and functions hand to each other.

    Attributes:
        paths: of the modules that look like this inside.
        kinds, names: of the nodes, as in `layerbench.records.graph.GraphNode`.
        edges: each two nodes' numbers, and the tensor's shape as text.
        folds: of a graph too large to draw, nodes that are drawn as one, as the first, the one
            behind the last, and the type that they share; each before those within it.
    """

    paths: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]
    folds: tuple[tuple[int, int, str], ...] = ()


class PageData(Part):
    """All that a page shows of a record, or of several of the same work.

    Attributes:
        title, subtitle: what ran.
        head: the first screen of a profile, as markup; empty without one.
        facts: of the whole model, as label and text.
        source: where the figures come from, as label and text.
        notes: what the reader should know; ``warnings``: what makes the figures less believable.
        rows, metrics, spreads, folds: row by row.
        graphs: of the modules with something in them; ``None`` where nobody looked.
    """

    form: Literal[1] = 1
    title: str
    subtitle: str
    head: str = ""
    facts: tuple[tuple[str, str], ...]
    source: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: Rows
    metrics: tuple[Metric, ...]
    spreads: tuple[Spread, ...] = ()
    folds: tuple[Fold, ...] = ()
    changed: Changed | None = None
    timeline: Timeline | None = None
    roofline: Roofline | None = None
    kernels: Kernels | None = Field(default=None, exclude_if=is_none)
    graphs: tuple[PageGraph, ...] | None = Field(default=None, exclude_if=is_none)
