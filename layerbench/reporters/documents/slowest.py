"""The first screen of a profile: what weakens it, its answer, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from layerbench import units
from layerbench.analysis import disturbance
from layerbench.analysis.hotspots import Hotspot, by_block, hotspots
from layerbench.analysis.launching import is_launch_bound, waiting_part
from layerbench.analysis.portions import by_type, most
from layerbench.records.timing import WEAKENING, Profile
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import (
    compilation,
    cuda_graph,
    device,
    energy,
    isolation,
    kernels,
    layout,
    screens,
    shared,
)
from layerbench.reporters.documents.advice import advice


def first_screen(record: Profile, view: View) -> list[layout.Part]:
    """What stands below the title."""
    spots = hotspots(record)
    return [*opening(record, view), table(record, spots, view), sums(record, spots, view)]


def opening(record: Profile, view: View) -> list[layout.Part]:
    """What weakens the figures, the answer, and what ran."""
    return [
        *shared.void(disturbance.too_busy(record)),
        *(layout.Text(warning, strong=True) for warning in formatting.partial(record)),
        *shared.cautions(list(_cautions(record))),
        layout.Text(_answer(record), wrapped=False),
        layout.Text(device.needs(record)),
        layout.Text(energy.headline(record), wrapped=record.energy is None),
        layout.Text(isolation.headline(record)),
        layout.Text(compilation.answer(record)),
        layout.Text(cuda_graph.answer(record)),
        layout.Text(_what_ran(record, view.width)),
    ]


def sums(record: Profile, spots: Sequence[Hotspot], view: View) -> layout.Fields:
    """Where the time goes in sum, what bounds it, and what to try first."""
    return layout.Fields(
        [
            ("By type", screens.sums(by_type(spots), view.width)),
            ("By block", screens.sums(by_block(record), view.width)),
            ("Bound by", _bounds(spots)),
            ("Advice", advice(record, spots)),
        ]
    )


def cautions(record: Profile) -> list[str]:
    """What voids or weakens the figures, the gravest first."""
    void = [disturbance.too_busy(record), *formatting.partial(record), *_cautions(record)]
    return [text for text in void if text]


def _answer(record: Profile) -> str:
    return shared.answer(record.whole, "a forward", f"{formatting.fps(record)} FPS")


def _cautions(record: Profile) -> Iterator[str]:
    """What weakens the figures, each in a line."""
    environment = record.environment
    yield from (note for note in WEAKENING if note in record.notes)
    yield from shared.few_or_spread(record.whole)
    yield from compilation.cautions(record)
    # Else it is part of the answer, and no time holds any of it.
    if waiting_part(record) is None and is_launch_bound(record):
        yield "launch-bound: the host takes as long to launch the work as the device to do it"
    said = {disturbance.too_busy(record), *formatting.partial(record)}
    yield from (warning for warning in environment.warnings if warning not in said)


def _what_ran(record: Profile, width: int) -> str:
    """What was measured where, in one line; what the title says, too, where there is room."""
    workload = record.workload
    parts = [
        f"{record.model_type}, {units.count(record.parameters, short=True)} parameters",
        units.shape(workload.shape),
        *dict.fromkeys([workload.mode, workload.arithmetic, *formatting.variant(workload)]),
        formatting.place(record),
        formatting.plural(record.whole.n, "iteration"),
    ]
    line = ", ".join(parts)
    return line if len(line) <= width else ", ".join(parts[1:])


# --- the table -----------------------------------------------------------------------------


def table(record: Profile, spots: Sequence[Hotspot], view: View) -> layout.Section:
    """The layers; the kernels, where somebody asked for them and there are any."""
    return kernels.longest(record, view) if kernels.chosen(record, view) else slowest(spots, view)


def slowest(every: Sequence[Hotspot], view: View) -> layout.Section:
    """The slowest layers, or those that have most of what they are sorted by."""
    spots = most(every, view.top, view.sort, view.type)
    if not spots:
        return screens.none_shown(view.type, (spot.row.type for spot in every))
    return layout.Section(_title(view, spots), [table_of([layer_cells(spot) for spot in spots])])


def table_of(rows: Sequence[Mapping[str, str]]) -> layout.Table:
    """A table of layers for the first screen, with these cells."""
    on_device = any(_DEVICE in row for row in rows)
    return screens.table_of(rows, _ALIGN, _OMITTED_ON_DEVICE if on_device else _OMITTED_FIRST)


# More than this of the arithmetic roof shows that it was measured on a busy machine.
_ABOVE = 1.1
_DEVICE = "device ms"
_TIMES = {"ms": ".", _DEVICE: ".", "host ms": "."}
_ALIGN = {"path": "c", "type": "l", "input→output": "l", "bound by": "l", **_TIMES}
_OMITTED_FIRST = ("bound by", "FLOPs", "reached", "roof", "input→output")
# There it is the first question whether the device or the host decides.
_OMITTED_ON_DEVICE = ("FLOPs", "reached", "roof", "input→output", "±")


def _title(view: View, spots: Sequence[Hotspot]) -> str:
    """What is sorted how, beginning with the first layer, as its path may be cut in the table."""
    what = {
        "self": "Slowest",
        "time": "Slowest with all that is in it",
        "flops": "Most FLOPs",
        "params": "Most parameters",
        "memory": "Most bytes moved",
    }[view.sort]
    first = spots[0]
    bound = f"bound by {first.bound}" if first.bound else ""
    whole = "the device's time" if first.on_device else "the time"
    share = f"{units.percent(first.share, digits=1)} of {whole}"
    return screens.first_named(what, first.row.path, first.row.type, share, bound)


def layer_cells(spot: Hotspot) -> dict[str, str]:
    """A row of the table."""
    row, time = spot.row, spot.time
    return {
        "path": row.path or screens.MODEL,
        "type": type_of(row.kind, row.type),
        "input→output": screens.shapes(row.input_shapes, row.output_shapes),
        _DEVICE if spot.on_device else "ms": own_ms(spot),
        "±": formatting.relative_half_width(time) if time else "-",
        "share": units.percent(spot.share, digits=1),
        **(_on_device(spot) if spot.on_device else {}),
        "FLOPs": formatting.dash(spot.flops, partial(units.count, short=True)),
        "reached": _rate(spot),
        "roof": "-" if spot.of_roof is None else units.percent(spot.of_roof),
        "bound by": spot.bound or "-",
    }


def _on_device(spot: Hotspot) -> dict[str, str]:
    return {
        "host ms": formatting.ms(spot.host, "median"),
        "kernels": formatting.dash(spot.kernels, units.count),
    }


def _rate(spot: Hotspot) -> str:
    """Of what bounds it; with two digits, as its time has no more."""
    if spot.bound is None or spot.rate is None:
        return "-"
    written = units.flop_rate if spot.bound == "compute" else units.byte_rate
    return written(spot.rate, digits=2)


def type_of(kind: str, type: str) -> str:
    """The type of a module; a function's name stands in its path."""
    return "function" if kind == "function" else type


def own_ms(spot: Hotspot) -> str:
    """The median of what a layer takes itself; the mean where there is no more."""
    time = formatting.ms(spot.time, "median") if spot.time else units.milliseconds(spot.value)
    return compilation.mark(spot.row.self_shared) + time


def _bounds(spots: Sequence[Hotspot]) -> str:
    """Which roof is over how much of the time."""
    shares: dict[str, float] = {}
    for spot in spots:
        if not spot.share:  # on an accelerator a container has no time of its own, and no bound
            continue
        bound = spot.bound or "not known"
        shares[bound] = shares.get(bound, 0.0) + spot.share
    if set(shares) <= {"not known"}:
        return ""
    largest = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    said = ", ".join(f"{name} {units.percent(share)}" for name, share in largest)
    most = max((spot.of_roof or 0 for spot in spots if spot.bound == "compute"), default=0)
    if most <= _ABOVE:
        return said
    # What stays in a cache passes the memory's roof; the other one nothing passes.
    return f"{said}; the roof is too low, a layer reaches {units.percent(most)} of it"
