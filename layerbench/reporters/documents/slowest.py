"""The first screen of a profile: what weakens it, its answer, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from layerbench import units
from layerbench.analysis.hotspots import Group, Hotspot, by_block, hotspots, top_of, types_of
from layerbench.records.bounds import Shape
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared
from layerbench.reporters.documents.advice import advice

FEW_ROUNDS = 30
"""With fewer samples an interval rests on little."""

_MOST_NAMED = 6
# Columns of a field's name.
_FIELD = 10
# A group of less than this is not named.
_LEAST_SHARE = 0.01


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
                ("By type", _groups(types_of(spots), view.width)),
                ("By block", _groups(by_block(record), view.width)),
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
    return layout.Section(_title(view, spots), [table_of([_row(spot) for spot in spots])])


_ALIGN = {"path": "c", "type": "l", "input→output": "l", "ms": ".", "bound by": "l"}
_OMITTED_FIRST = ("bound by", "FLOPs", "reached", "of roof", "input→output")


def table_of(rows: Sequence[Mapping[str, str]]) -> layout.Table:
    """A table of layers for the first screen, less the columns that nothing is known for."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] != "-" for row in rows)]
    return layout.Table(
        names,
        [[row[name] for name in names] for row in rows],
        "".join(_ALIGN.get(name, "r") for name in names),
        omitted_first=tuple(names.index(name) for name in _OMITTED_FIRST if name in names),
        cut=0,
        fewest=3,
    )


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
    bound = f", bound by {first.bound}" if first.bound else ""
    named = f"{first.row.path or 'the model itself'} ({first.row.type})"
    return f"{what}: {named}, {units.percent(first.share, digits=1)} of the time{bound}"


def _row(spot: Hotspot) -> dict[str, str]:
    row, time = spot.row, spot.time
    rate = {"compute": units.flop_rate, "memory": units.byte_rate}
    return {
        "path": row.path or "(model)",
        # A function's name stands in its path.
        "type": "function" if row.kind == "function" else row.type,
        "input→output": _shapes(row),
        "ms": formatting.ms(time, "median") if time else units.milliseconds(spot.mean_s),
        "±": formatting.relative_half_width(time) if time else "-",
        "share": units.percent(spot.share, digits=1),
        "FLOPs": formatting.dash(spot.flops, partial(units.count, short=True)),
        "reached": rate[spot.bound](spot.rate) if spot.bound and spot.rate is not None else "-",
        "of roof": "-" if spot.of_roof is None else units.percent(spot.of_roof),
        "bound by": spot.bound or "-",
    }


def _shapes(row: LayerRow) -> str:
    """Of the first tensor in and out, without the images of the batch."""
    ends = [_shape(shapes[0]) if shapes else "" for shapes in (row.input_shapes, row.output_shapes)]
    return "→".join(end for end in ends if end) or "-"


def _shape(sizes: Shape) -> str:
    return units.by_x(sizes[1:] if len(sizes) > 1 else sizes)


# --- sums ----------------------------------------------------------------------------------


def _groups(groups: Sequence[Group], width: int) -> str:
    """The largest with their shares, as many as a line holds, and what the others have together."""
    for number in range(_MOST_NAMED, 0, -1):
        text = _named(groups, number)
        if len(text) <= width - _FIELD:
            return text
    return text


def _named(groups: Sequence[Group], number: int) -> str:
    named = [group for group in groups[:number] if group.share >= _LEAST_SHARE]
    parts = [f"{_name(group)} {units.percent(group.share, digits=1)}" for group in named]
    rest = groups[len(named) :]
    if named and rest:
        share = units.percent(sum(group.share for group in rest), digits=1)
        parts.append(f"{formatting.plural(len(rest), 'other')} {share}")
    return ", ".join(parts)


def _name(group: Group) -> str:
    """A block by its path, a type with the number of its layers."""
    return group.path or f"{group.name} ({group.count})"


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
