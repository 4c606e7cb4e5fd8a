"""The first screen of a profile: what weakens it, its answer, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from layerbench import units
from layerbench.analysis.hotspots import Hotspot, by_block, hotspots, top_of, types_of
from layerbench.records.timing import Profile
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, screens, shared
from layerbench.reporters.documents.advice import advice

FEW_ROUNDS = 30
"""With fewer samples an interval rests on little."""


def first_screen(record: Profile, view: View) -> list[layout.Part]:
    """What stands below the title."""
    spots = hotspots(record)
    return [
        *shared.void(record.environment.machine.too_busy),
        *(layout.Text(warning, strong=True) for warning in formatting.partial(record)),
        *shared.cautions(list(_cautions(record))),
        layout.Text(_answer(record), wrapped=False),
        layout.Text(_what_ran(record, view.width)),
        _table(spots, view),
        layout.Fields(
            [
                ("By type", screens.sums(types_of(spots), view.width)),
                ("By block", screens.sums(by_block(record), view.width)),
                ("Bound by", _bounds(spots)),
                ("Advice", advice(record, spots)),
            ]
        ),
    ]


def _answer(record: Profile) -> str:
    whole = record.whole
    median = f"{formatting.time(whole, 'median')} {formatting.interval(whole)}"
    return (
        f"{median} a forward (median, 95 % interval), {formatting.fps(record)} FPS: {whole.verdict}"
    )


def _cautions(record: Profile) -> Iterator[str]:
    """What weakens the figures, each in a line."""
    whole, environment = record.whole, record.environment
    if whole.missed:
        yield f"{whole.verdict}: {'; '.join(whole.missed)}"
    if whole.n < FEW_ROUNDS:
        yield f"few rounds: {formatting.plural(whole.n, 'sample')}"
    if formatting.is_launch_bound(record):
        yield "launch-bound: the host takes as long to launch the work as the device to do it"
    said = {environment.machine.too_busy, *formatting.partial(record)}
    yield from (warning for warning in environment.warnings if warning not in said)


def _what_ran(record: Profile, width: int) -> str:
    """What was measured where, in one line; what the title says, too, where there is room."""
    workload = record.workload
    parts = [
        f"{record.model_type}, {units.count(record.parameters, short=True)} parameters",
        units.shape(workload.shape),
        *dict.fromkeys([workload.mode, workload.dtype, *formatting.variant(workload)]),
        formatting.place(record),
        formatting.plural(record.whole.n, "iteration"),
    ]
    line = ", ".join(parts)
    return line if len(line) <= width else ", ".join(parts[1:])


# --- the table -----------------------------------------------------------------------------


def _table(every: Sequence[Hotspot], view: View) -> layout.Section:
    spots = top_of(every, view.top, view.sort, view.type)
    table = screens.table_of([_row(spot) for spot in spots], _ALIGN, _OMITTED_FIRST)
    return layout.Section(_title(view, spots), [table])


_ALIGN = {"path": "c", "type": "l", "input→output": "l", "ms": ".", "bound by": "l"}
_OMITTED_FIRST = ("bound by", "FLOPs", "reached", "of roof", "input→output")


def _title(view: View, spots: Sequence[Hotspot]) -> str:
    """What is sorted how, beginning with the first layer, as its path may be cut in the table."""
    what = {
        "self": "Slowest",
        "time": "Slowest with all that is in it",
        "flops": "Most FLOPs",
        "params": "Most parameters",
        "memory": "Most bytes moved",
    }[view.sort]
    if not spots:
        return ""
    first = spots[0]
    bound = f"bound by {first.bound}" if first.bound else ""
    share = f"{units.percent(first.share, digits=1)} of the time"
    return screens.first_named(what, first.row.path, first.row.type, share, bound)


def _row(spot: Hotspot) -> dict[str, str]:
    row, time = spot.row, spot.time
    rate = {"compute": units.flop_rate, "memory": units.byte_rate}
    return {
        "path": row.path or screens.MODEL,
        # A function's name stands in its path.
        "type": "function" if row.kind == "function" else row.type,
        "input→output": screens.shapes(row.input_shapes, row.output_shapes),
        "ms": formatting.ms(time, "median") if time else units.milliseconds(spot.mean_s),
        "±": formatting.relative_half_width(time) if time else "-",
        "share": units.percent(spot.share, digits=1),
        "FLOPs": formatting.dash(spot.flops, partial(units.count, short=True)),
        "reached": rate[spot.bound](spot.rate) if spot.bound and spot.rate is not None else "-",
        "of roof": "-" if spot.of_roof is None else units.percent(spot.of_roof),
        "bound by": spot.bound or "-",
    }


def _bounds(spots: Sequence[Hotspot]) -> str:
    """Which roof is over how much of the time."""
    shares: dict[str, float] = {}
    for spot in spots:
        bound = spot.bound or "not known"
        shares[bound] = shares.get(bound, 0.0) + spot.share
    if set(shares) <= {"not known"}:
        return ""
    largest = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    return ", ".join(f"{name} {units.percent(share)}" for name, share in largest)
