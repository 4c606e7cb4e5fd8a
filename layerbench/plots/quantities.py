"""The figures of a record to draw: for every row its own figure, and one with all rows below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import TypeVar

from layerbench import units
from layerbench.analysis.launching import (
    Launching,
    StepLaunching,
    Timed,
    is_launch_bound,
    waiting_part,
)
from layerbench.errors import UsageError
from layerbench.plots.canvas import Drawn
from layerbench.records.memory import MemoryEstimate, MemoryReport, MemoryRow
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.tree import Metric, with_ancestors

Row = TypeVar("Row", StructureRow, MemoryRow)

MAKERS: dict[Metric, str] = {
    "time": "a profile of layers, as layerbench timer writes it to layers/",
    "self": "a profile of layers, as layerbench timer writes it to layers/",
    "flops": "a structure, as layerbench mem --struct writes it",
    "parameters": "a structure, as layerbench mem --struct writes it",
    "memory": "a memory record, as layerbench mem writes it",
}


@dataclass(frozen=True)
class Cell:
    """One row; figures in the unit of its `Quantity`.

    Attributes:
        path, type: of the row.
        total: with all below it: the width in an icicle.
        own: of the row itself: the length of a bar.
        share: ``own`` as a part of the whole, as reports state it.
        low, high: the 95 % interval of ``own``; ``None`` where there is none.
        function: whether it is a function, and so a part of its module's own figure.
        host: what the host takes to launch ``own``, where that is a time of a device.
        waits: whether it is launch-bound: the device is done long before the host has launched it.
    """

    path: str
    type: str
    total: float
    own: float
    share: float
    low: float | None = None
    high: float | None = None
    function: bool = False
    host: float | None = None
    waits: bool = False


@dataclass(frozen=True)
class Quantity:
    """A metric of a record.

    Attributes:
        total, own: names of `Cell.total` and `Cell.own`.
        text: a figure with its unit.
        unit: of an axis; ``scale``: its size.
        cells: in tree order, the model first; rows that did not run are not among them.
        whole: what a cell's ``own`` is a part of: the model's figure of the same kind.
        note: what the whole leaves out, or whether launching bounds it; or nothing.
        by_own: whether an icicle is coloured by `Cell.share`, else by the share of ``total``.
    """

    total: str
    own: str
    text: Callable[[float], str]
    unit: str
    scale: float
    cells: tuple[Cell, ...]
    whole: float
    note: str = ""
    by_own: bool = False


def quantity(record: Drawn, metric: Metric | None, usual: Metric | None = None) -> Quantity:
    """A record's figures by one of its metrics.

    Args:
        record: with rows of layers.
        metric: ``None`` for the usual one, where the record has it, else for its first of which
            there is any.
        usual: of the picture.

    Raises:
        UsageError: the record does not have it, or none of its layers has any; the message names a
            record that does.
    """
    found = quantity_or_none(record, metric, usual)
    if found.cells and found.cells[0].total > 0:
        return found
    wanted = _having(record, usual) if metric is None else (metric,)
    if isinstance(record, Structure):
        raise UsageError(f"no layer has any {' or '.join(wanted)}: there is nothing to draw")
    raise UsageError(f"the record has no {wanted[0]} of layers: take {MAKERS[wanted[0]]}")


def quantity_or_none(record: Drawn, metric: Metric | None, usual: Metric | None = None) -> Quantity:
    """The same for a picture that is drawn without figures, too: it may have no cells.

    Raises:
        UsageError: the record does not have this metric.
    """
    having, figures_of = _FIGURES[type(record)]
    if metric is not None and metric not in having:
        raise UsageError(
            f"a {record.record} record has {' and '.join(having)}, not {metric}: take "
            f"{MAKERS[metric]}"
        )
    wanted = _having(record, usual) if metric is None else (metric,)
    each = [figures_of(record, one) for one in wanted]
    return next((one for one in each if one.cells and one.cells[0].total > 0), each[0])


def _having(record: Drawn, usual: Metric | None) -> tuple[Metric, ...]:
    """What a record can be drawn by, the usual one of the picture first."""
    having = _FIGURES[type(record)][0]
    return tuple(sorted(having, key=lambda metric: metric != usual))


def _of_profile(record: Profile, metric: Metric) -> Quantity:
    inclusive = metric == "time"
    own = {row.path: row.self_.mean for row in record.layers if row.kind == "module" and row.self_}
    sums = with_ancestors(own)
    cells = []
    whole: float | None = None
    median = 0.0
    launching = Launching.of(record)
    for row in record.layers:
        shown = row.inclusive if inclusive else row.self_
        if shown is None or row.inclusive is None:
            continue
        if whole is None:
            whole, median = row.inclusive.mean, row.inclusive.median
        function = row.kind == "function"
        host = row.host_inclusive if inclusive else row.host_self
        waits = launching.bounds(row) if inclusive else launching.bounds_own(row)
        cells.append(
            Cell(
                path=row.path,
                type=row.type,
                total=shown.mean if inclusive or function else sums[row.path],
                own=shown.median,
                share=shown.mean / whole if whole else 0.0,
                low=shown.ci_low,
                high=shown.ci_high,
                function=function,
                host=host.median if host and record.device_rounds else None,
                waits=waits,
            )
        )
    return _times(cells, median, "time", inclusive, _waits(record))


def _waits(record: Timed) -> str:
    """Whether launching bounds the whole; nothing where nobody knows."""
    part = waiting_part(record)
    if part is None:
        return ""
    what = "forward" if isinstance(record, Profile) else "step"
    bound = ": launch-bound" if is_launch_bound(record) else ""
    return f"the device waits {units.percent(part)} of the untouched {what} for the host{bound}"


def _times(cells: list[Cell], whole: float, what: str, inclusive: bool, note: str) -> Quantity:
    kind = "inclusive" if inclusive else "self"
    return Quantity(
        total=f"mean inclusive {what}" if inclusive else f"mean self {what}, summed",
        own=f"median {kind} {what}",
        text=units.seconds,
        unit="ms",
        scale=1e-3,
        cells=tuple(cells),
        whole=whole,
        note=note,
        by_own=not inclusive,
    )


def _of_training(record: TrainingProfile, metric: Metric) -> Quantity:
    inclusive = metric == "time"
    totals: dict[str, float] = {}
    owns: dict[str, float] = {}
    for row in record.rows:
        # A row without a backward put nothing into the graph.
        both, own = row.times, row.own_times
        if any(both) and any(own):
            totals[row.path] = sum(time.mean for time in both if time)
            owns[row.path] = sum(time.mean for time in own if time)
    sums = totals if inclusive else with_ancestors(owns)
    whole = totals.get("", 0.0)
    cells = []
    launching = StepLaunching.of(record)
    for row in record.rows:
        if row.path in totals:
            shown = (totals if inclusive else owns)[row.path]
            host = row.host_times if inclusive else row.own_host_times
            waits = launching.bounds(row) if inclusive else launching.bounds_own(row)
            cells.append(
                Cell(
                    path=row.path,
                    type=row.type,
                    total=sums[row.path],
                    own=shown,
                    share=shown / (whole or 1),
                    host=fsum(time.mean for time in host if time) if any(host) else None,
                    waits=waits,
                )
            )
    times = _times(cells, whole, "time of forward and backward", inclusive, _waits(record))
    kind = "inclusive" if inclusive else "self"
    return replace(times, own=f"mean {kind} time of forward and backward")


def _of_structure(record: Structure, metric: Metric) -> Quantity:
    if metric == "flops":
        cells = _cells(record.rows, record.flops, lambda r: r.flops, lambda r: r.self_flops)
        return Quantity(
            "FLOPs", "own FLOPs", _flops, "GFLOPs", 1e9, cells, record.flops, _uncounted(record)
        )
    cells = _cells(
        record.rows, record.parameters, lambda r: r.parameters, lambda r: r.own_parameters
    )
    whole = record.parameters
    return Quantity("parameters", "own parameters", _count, "million parameters", 1e6, cells, whole)


def _cells(
    rows: Sequence[Row],
    whole: float | None,
    total: Callable[[Row], float | None],
    own: Callable[[Row], float | None],
) -> tuple[Cell, ...]:
    """The rows that have a total, with their own figure and its part of the whole."""
    return tuple(
        Cell(row.path, row.type, figure, own(row) or 0, (own(row) or 0) / (whole or 1))
        for row in rows
        if (figure := total(row))
    )


def _uncounted(record: Structure) -> str:
    if not record.uncounted:
        return ""
    return f"without {', '.join(operator.name for operator in record.uncounted)}: no formula"


def _of_memory(record: MemoryReport | MemoryEstimate, _: Metric) -> Quantity:
    own = {row.path: row.self_at_peak for row in record.rows if row.self_at_peak is not None}
    sums = with_ancestors(own)
    peak = record.peak.bytes if isinstance(record, MemoryReport) else record.peak_bytes
    cells = _cells(record.rows, peak, lambda r: sums.get(r.path), lambda r: own.get(r.path))
    layers = sums.get("", 0)
    note = (
        f"layers hold {units.mebibytes(layers)} of the {units.mebibytes(peak)} at the peak; "
        "parameters, buffers, inputs and the like hold the rest"
    )
    return Quantity(
        total="bytes held at the peak",
        own="own bytes held at the peak",
        text=units.bytes_,
        unit="MiB",
        scale=2.0**20,
        cells=cells,
        whole=peak,
        note=note,
    )


def _flops(value: float) -> str:
    return units.flops(round(value))


def _count(value: float) -> str:
    return units.count(round(value), short=True)


# The metrics of each kind of record, and what makes them.
_FIGURES: dict[type[Drawn], tuple[tuple[Metric, ...], Callable[..., Quantity]]] = {
    Profile: (("time", "self"), _of_profile),
    TrainingProfile: (("time", "self"), _of_training),
    Structure: (("flops", "parameters"), _of_structure),
    MemoryReport: (("memory",), _of_memory),
    MemoryEstimate: (("memory",), _of_memory),
}
