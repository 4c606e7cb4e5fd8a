"""The document of several records of the same work: what each knows of a layer, in one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from layerbench import units
from layerbench.analysis.hotspots import Hotspot, hotspots
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryRow
from layerbench.records.timing import Profile
from layerbench.records.view import USUAL, View
from layerbench.reporters import documents, formatting
from layerbench.reporters.documents import (
    cells,
    layout,
    memory,
    screens,
    shared,
    slowest,
    structure,
    timing,
)
from layerbench.reporters.documents.largest import answer
from layerbench.reporters.html.header import unlike
from layerbench.reporters.html.rows import PageRow, rows_of

_TITLES = {
    "profile": "time",
    "structure": "structure",
    "memory": "memory",
    "training": "training step",
    "latency": "predicted time",
    "comparison": "comparison",
}
_LEGEND = (
    "All figures are a layer's own, without the layers in it. ms: median; ±: half of its 95 % "
    "interval, as a part of it; share: of the instrumented forward, by means. A function that "
    "alone can compute has its module's FLOPs. allocated: MiB of tensors that it allocates in a "
    "forward, freed again or not; self at peak: those that are alive at the peak of the run."
)
_ON_DEVICE = (
    " ms is time on the device, host ms that of launching it; kernels: that the layer runs itself."
)
_ALIGN = {"path": "c", "type": "l", "input→output": "l", "ms": ".", "": "l", "host ms": "."}
_OMITTED_FIRST = ("groups", "kernel", "calls", "±", "params", "input→output")
_ALLOCATED, _AT_PEAK = "allocated", "self at peak"


def document(record: Bundle, view: View = USUAL) -> layout.Document:
    """The first screen of the times with the peak of the memory, and one table of layers."""
    names = [title for name, title in _TITLES.items() if name in record.parts()]
    return layout.Document(
        title=f"{shared.title(record.workload)}: {_listed(names)}",
        head=_head(record, view),
        sections=[*_sections(record, view), *_others(record, view)],
    )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# --- the first screen ----------------------------------------------------------------------


def _head(record: Bundle, view: View) -> list[layout.Part]:
    one = record.comparison or record.any_with_rows()
    if one is not record.profile or record.profile is None:
        return [] if one is None else [*documents.document(one, view).head]
    spots = hotspots(record.profile)
    return [
        *slowest.opening(record.profile, view),
        layout.Text(answer(record.memory) if record.memory else ""),
        _largest(record, record.profile, spots, view),
        slowest.sums(record.profile, spots, view),
    ]


def _largest(
    record: Bundle, profile: Profile, spots: Sequence[Hotspot], view: View
) -> layout.Section:
    """The table of a profile's first screen; by memory, those that hold most of the peak first."""
    if view.sort != "memory" or record.memory is None:
        return slowest.table(profile, spots, view)
    bytes_of = {row.path: row for row in record.memory.rows}
    ordered = sorted(
        (spot for spot in spots if view.type in (None, spot.row.type)),
        key=lambda spot: _held(bytes_of.get(spot.row.path)),
        reverse=True,
    )[: view.top]
    if not ordered:
        return screens.none_shown(view.type, (spot.row.type for spot in spots))
    rows = [
        {**slowest.layer_cells(spot), **_memory_cells(bytes_of.get(spot.row.path))}
        for spot in ordered
    ]
    first = ordered[0].row
    size = f"{units.mebibytes(_held(bytes_of.get(first.path))[0])} held at the peak"
    title = screens.first_named("Most memory", first.path, first.type, size)
    return layout.Section(title, [slowest.table_of(rows)])


def _held(row: MemoryRow | None) -> tuple[int, int]:
    """Bytes at the peak, and besides those that are freed before."""
    return (row.self_at_peak or 0, row.self_allocated or 0) if row else (0, 0)


def _memory_cells(row: MemoryRow | None) -> dict[str, str]:
    return {
        _ALLOCATED: formatting.mebibytes(row.self_allocated if row else None),
        _AT_PEAK: formatting.mebibytes(row.self_at_peak if row else None),
    }


# --- the rest ------------------------------------------------------------------------------


def _sections(record: Bundle, view: View) -> list[layout.Section]:
    """Those of the profile, with one table in place of its tree, and the totals of the others."""
    layers = [_layers(record, view), *_totals(record)]
    if record.profile is None:
        return [
            *layers,
            layout.listed("Notes", list(_notes(record))),
            shared.not_measured(record.absent),
        ]
    return timing.sections(_with_remarks(record, record.profile), view, layers)


def _with_remarks(record: Bundle, profile: Profile) -> Profile:
    """The profile with what the others have to say, too."""
    absent = {**profile.absent, **record.absent}
    return profile.model_copy(update={"notes": tuple(_notes(record)), "absent": absent})


def _notes(record: Bundle) -> Iterator[str]:
    own = (record.profile, record.structure, record.memory)
    yield from unlike(record)
    yield from dict.fromkeys(note for part in own if part for note in part.notes)


def _totals(record: Bundle) -> Iterator[layout.Section]:
    if record.structure:
        yield from structure.totals(record.structure)
    if record.memory:
        yield from memory.totals(record.memory)


def _others(record: Bundle, view: View) -> Iterator[layout.Section]:
    """What is no figure of a forward's layers: those reports behind the joined one."""
    for part in (record.training, record.latency, record.comparison):
        if part is not None:
            made = documents.document(part, view)
            if part is not record.comparison:  # whose head is the first screen
                yield layout.Section(made.title, made.head)
            yield from made.sections


# --- the joined table ----------------------------------------------------------------------


def _layers(record: Bundle, view: View) -> layout.Section:
    """What the records know of each layer, in one table."""
    spots = _spots(record)
    made = [
        _cells(row, spots.get(row.path)) for row in _rows(record) if view.has(row.type, row.depth)
    ]
    table = screens.table_of(made, _ALIGN, _OMITTED_FIRST, cut=None)
    on_device = record.profile is not None and record.profile.device_rounds is not None
    legend = layout.Text(_LEGEND + _ON_DEVICE * on_device, indented=False)
    return layout.Section("Layers", [table, legend], formats=layout.FULL)


def _spots(record: Bundle) -> dict[str, Hotspot]:
    return {spot.row.path: spot for spot in (hotspots(record.profile) if record.profile else ())}


def _rows(record: Bundle) -> Iterator[PageRow]:
    """Less those of a baseline that the model has no more."""
    return (row for row in rows_of(record) if row.kind != "missing")


def _cells(row: PageRow, spot: Hotspot | None) -> dict[str, str]:
    short = partial(units.count, short=True)
    kernel, groups = _known(row, "kernel_size"), _known(row, "groups")
    flops = _known(row, "self_flops") if spot is None or spot.flops is None else spot.flops
    return {
        "path": row.path or screens.MODEL,
        "type": slowest.type_of(row.kind, row.type),
        "calls": str(row.calls),
        "input→output": screens.shapes(row.inputs, row.outputs),
        "ms": slowest.own_ms(spot) if spot else "-",
        "±": formatting.relative_half_width(spot.time) if spot and spot.time else "-",
        "share": units.percent(spot.share, digits=1) if spot else "-",
        "host ms": formatting.ms(spot.host if spot else None, "median"),
        "kernels": formatting.dash(spot.kernels if spot else None, units.count),
        "FLOPs": formatting.dash(flops, short),
        "params": formatting.dash(_known(row, "own_parameters"), short),
        **_memory_cells(row.bytes),
        "kernel": formatting.dash(kernel, units.by_x),
        "groups": formatting.dash(groups, str),
        "": formatting.note_on(row.calls, row.note),
    }


def _known(row: PageRow, field: str) -> Any:  # noqa: ANN401 - fields of several kinds
    """What the profile says of a layer; the structure, where it says nothing."""
    said = getattr(row.time, field, None)
    return getattr(row.made_of, field, None) if said is None else said


# --- rows ----------------------------------------------------------------------------------

_LAYERS = ("module", "function")
_OF_LAYERS = ("path", "type", "kind", "depth", "calls", "block", "note")


def cautions(record: Bundle) -> list[str]:
    """What voids or weakens the figures: those of the record that the first screen is of."""
    one = record.comparison or record.any_with_rows()
    return [] if one is None else documents.cautions(one)


def rows(record: Bundle, view: View = USUAL) -> cells.Rows:
    """A row for each layer: what is common to the records, and then the fields of each.

    A field that two of them have is the profile's, then the structure's.
    """
    spots = _spots(record)
    ran = cells.what_ran(record.workload)
    if record.profile is not None:
        ran, times = timing.rows(record.profile, view)
        by_path = {str(row["path"]): row for row in times if row["kind"] in _LAYERS}
        kernels = [row for row in times if row["kind"] == "kernel"]
    else:
        by_path, kernels = {}, []
    made = []
    for row in _rows(record):
        common: cells.Cells = {
            **{name: getattr(row, name) for name in _OF_LAYERS},
            "input_shapes": cells.shapes(row.inputs),
            "output_shapes": cells.shapes(row.outputs),
        }
        share = spots[row.path].share if row.path in spots else None
        own = by_path.get(row.path, {})
        made.append(_first(common, own, {"share": share}, *_fields(row)))
    return ran, [*made, *kernels]


def _fields(row: PageRow) -> Iterator[cells.Cells]:
    for part in (row.made_of, row.bytes):
        if part is not None:
            yield cells.fields(part)


def _first(*parts: cells.Cells) -> cells.Cells:
    """Of each column the first value that is known."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: next((part[name] for part in parts if part.get(name) is not None), None)
        for name in names
    }
