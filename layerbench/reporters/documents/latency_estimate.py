"""The document of a time predicted for a GPU: the answer, how far it was checked, every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import fsum

from layerbench import units
from layerbench.analysis.largest import largest, layers
from layerbench.analysis.portions import by_path, by_type
from layerbench.records.latency_estimate import (
    COVERAGE,
    Checked,
    LatencyEstimate,
    LatencyRow,
    Limit,
    TimeInterval,
)
from layerbench.records.memory import Phase
from layerbench.records.view import USUAL, Sort, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared, trifles

# Of a layer's time, what sets its digits: none is known better.
_KNOWN_TO = 0.02
_INTERVAL = f"{units.percent(COVERAGE)} interval"
_ALIGN = {"path": "c", "type": "l", "input→output": "l", "ms": ".", "bound by": "l"}
_OMITTED_FIRST = ("operators", "moved", "FLOPs", "input→output", "type")
_PHASES: tuple[Phase, ...] = ("forward", "loss", "backward", "recomputation", "optimizer")
_IN_TREE: tuple[Phase, ...] = ("forward", "backward", "recomputation", "optimizer")
_LEGEND = (
    "ms: predicted, of a layer with all that is in it; self: without the layers in it; share: of "
    "the whole; moved: bytes that its operators read and write."
)


def document(record: LatencyEstimate, view: View = USUAL) -> layout.Document:
    """The time with its interval and how far it was checked, then every layer."""
    return layout.Document(
        title=f"{shared.title(record.workload)}: {what(record)} predicted for {record.card.title}",
        head=_first_screen(record, view),
        sections=[
            _phases(record),
            _blocks(record),
            _tree(record, view),
            layout.listed("Notes", record.notes),
            layout.what_ran(_fields(record)),
        ],
    )


def what(record: LatencyEstimate) -> str:
    """What the time is of."""
    return f"a training step with {record.optimizer}" if record.training else "a forward"


def interval(seconds: float, between: TimeInterval) -> str:
    """``12.3 ms [11.0, 13.9]``: digits follow the interval."""
    half_width = (between.high - between.low) / 2
    time, _, unit = units.seconds(seconds, half_width).rpartition(" ")
    ends = (units.seconds(end, half_width, unit) for end in (between.low, between.high))
    return f"{time} {unit} [{', '.join(end.rpartition(' ')[0] for end in ends)}]"


def error(known: Checked) -> str:
    """The median error of such predictions, in a word or two."""
    return units.percent(known.median_error or 0.0, digits=1) if known.known else "not checked"


def checked(known: Checked) -> str:
    """How wrong such predictions were, in one phrase."""
    if not known.known:
        return f"not checked against measured times: {known.question}"
    within = "" if known.within is None else f", {units.percent(known.within)} in their intervals"
    times = formatting.plural(known.rows, "held-out time")
    models = "" if known.models is None else f" of {formatting.plural(known.models, 'model')}"
    return f"{known.question}: median error {error(known)}{within}, by {times}{models}"


def _first_screen(record: LatencyEstimate, view: View) -> list[layout.Part]:
    rate = f"{units.per_second(record.images_per_s)} images/s" if record.seconds else "-"
    time = interval(record.seconds, record.interval)
    answer = f"{time} {what(record).partition(' with ')[0]}"
    blocks = ((row.type, row.path, row.seconds or 0.0) for row in record.rows if row.block)
    return [
        *shared.cautions(cautions(record)),
        layout.Text(f"{answer} (predicted, {_INTERVAL}), {rate}: bound by {record.bound}"),
        layout.Text(f"Checked: {checked(record.checked)}" if record.checked.known else ""),
        layout.Text(_ran(record)),
        _slowest(record, view),
        layout.Fields(
            [
                ("Phases", shares(record.phases, record.seconds)),
                ("By type", screens.sums(by_type(layers(record, "self")), view.width)),
                ("By block", screens.sums(by_path(blocks, record.seconds), view.width)),
                ("Bound by", shares(record.limits, record.seconds)),
            ]
        ),
    ]


def shares(seconds: Mapping[Limit, float] | Mapping[Phase, float], whole: float) -> str:
    """Names with their parts of the whole, the largest first."""
    portions = by_path(((name, name, time) for name, time in seconds.items()), whole)
    return ", ".join(f"{one.path} {units.percent(one.share, digits=1)}" for one in portions)


def _ran(record: LatencyEstimate) -> str:
    workload = record.workload
    parameters = record.rows[0].parameters if record.rows else 0
    settings = [workload.mode, workload.arithmetic, *formatting.variant(workload)]
    return shared.ran(
        record.model_type,
        parameters,
        units.shape(workload.shape),
        *dict.fromkeys(settings),
        *([record.optimizer] if record.optimizer else []),
        formatting.plural(record.operators, "operator"),
        f"predicted for {record.card.name}",
    )


def _slowest(record: LatencyEstimate, view: View) -> layout.Section:
    most = largest(record, view)
    if not most:
        return screens.none_shown(view.type, (row.type for row in record.rows))
    made = [_slow(each.row, each.share, each.of) for each in most]
    table = screens.table_of(made, _ALIGN, _OMITTED_FIRST)
    named: dict[Sort, str] = {
        "time": "Slowest with all that is in it",
        "flops": "Most FLOPs",
        "params": "Most parameters",
        "memory": "Most bytes moved",
    }
    first = most[0]
    share = f"{units.percent(first.share, digits=1)} of all"
    bound = f"bound by {first.row.limit}" if first.row.limit else ""
    title = named.get(first.of, "Slowest")
    return layout.Section(
        screens.first_named(title, first.row.path, first.row.type, share, bound), [table]
    )


def _slow(row: LatencyRow, share: float, of: Sort) -> dict[str, str]:
    whole = of == "time"
    short = partial(units.count, short=True)
    return {
        "path": row.path or screens.MODEL,
        "type": row.type,
        "input→output": screens.shapes(row.input_shapes, row.output_shapes),
        "ms": _ms(row.seconds if whole else row.own_seconds),
        "share": units.percent(share, digits=1),
        "bound by": row.limit or "-",
        "FLOPs": short(row.flops if whole else row.own_flops),
        "moved": units.bytes_(row.bytes if whole else row.own_bytes),
        "operators": str(row.operators if whole else row.own_operators),
    }


def _ms(seconds: float | None) -> str:
    """Three digits: no layer's time is known better."""
    return "-" if seconds is None else units.milliseconds(seconds, _KNOWN_TO * seconds)


def _phases(record: LatencyEstimate) -> layout.Section:
    rows = [
        {
            "phase": name,
            "ms": _ms(record.phases[name]),
            "share": formatting.part(record.phases[name], record.seconds),
        }
        for name in _PHASES
        if name in record.phases
    ]
    return layout.table("A step", rows, "l.r")


def _phase_cells(row: LatencyRow, record: LatencyEstimate) -> dict[str, str]:
    """The phases of a training step that are any layer's."""
    return {f"{name} ms": _ms(row.phases.get(name)) for name in _IN_TREE if name in record.phases}


def _blocks(record: LatencyEstimate) -> layout.Section:
    rows = [
        {
            **shared.block_cells(row),
            "input shape": formatting.shape_list(row.input_shapes),
            "ms": _ms(row.seconds),
            "share": formatting.part(row.seconds, record.seconds),
            **_phase_cells(row, record),
            "operators": str(row.operators),
        }
        for row in formatting.block_rows(record.rows)
    ]
    phases = sum(name in record.phases for name in _IN_TREE)
    return layout.table(
        "Blocks (predicted)", rows, f"rlcl.r{'.' * phases}r", omitted_first=("input shape",)
    )


def _tree(record: LatencyEstimate, view: View) -> layout.Section:
    shown = [row for row in record.rows if view.has(row.type, row.depth)]
    runs = trifles.in_runs(
        shown, view, lambda row: row.seconds, record.seconds, trifles.LEAST_OF_MORE
    )
    rows = [
        _layer(run[0], record, view) if len(run) == 1 else _folded(run, record, view)
        for run in runs
    ]
    phases = sum(name in record.phases for name in _IN_TREE)
    legend = layout.Text(_LEGEND, indented=False)
    return layout.table(
        "Layers (predicted)",
        rows,
        f"lr..r{'.' * phases}lrrrl",
        legend,
        formats=layout.FULL,
        omitted_first=("operators", "calls", "moved"),
    )


def _layer(row: LatencyRow, record: LatencyEstimate, view: View) -> dict[str, str]:
    return {
        "layer": shared.branch(row, view),
        "calls": str(row.calls),
        "ms": _ms(row.seconds),
        "self": _ms(row.own_seconds),
        "share": formatting.part(row.seconds, record.seconds),
        **_phase_cells(row, record),
        "bound by": row.limit or "-",
        "FLOPs": units.count(row.flops, short=True),
        "moved": units.bytes_(row.bytes),
        "operators": str(row.operators),
        "": formatting.note_on(row.calls, row.note),
    }


def _folded(rows: Sequence[LatencyRow], record: LatencyEstimate, view: View) -> dict[str, str]:
    """One row for neighbours that take next to nothing."""
    outer = trifles.outer(rows)
    return {
        **dict.fromkeys(_layer(rows[0], record, view), ""),
        "layer": trifles.label(rows, trifles.LEAST_OF_MORE),
        "ms": _ms(fsum(row.seconds or 0.0 for row in outer)),
        "operators": str(sum(row.operators for row in outer)),
    }


def _fields(record: LatencyEstimate) -> list[tuple[str, str]]:
    workload, card = record.workload, record.card
    rates = {str(name): units.flop_rate(rate) for name, rate in card.flops.items()}
    return [
        ("Model", f"{workload.model} ({record.model_type}), {formatting.weights(workload)}"),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *formatting.files(workload),
        ("Run", what(record)),
        ("Card", f"{card.title}, {units.byte_rate(card.bandwidth)}, {formatting.pairs(rates)}"),
        ("Predicted", "from the shapes of its operators; nothing was measured"),
        ("Checked", checked(record.checked)),
        ("Outside", f"{units.seconds(record.outside_s)} in no layer"),
        ("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]


def cautions(record: LatencyEstimate) -> list[str]:
    """What weakens the times, the gravest first."""
    return [*([] if record.checked.known else [checked(record.checked)]), *record.notes]


def rows(record: LatencyEstimate) -> cells.Rows:
    """A row a module, with all that is known of it, and of the whole."""
    known = record.checked
    common: cells.Cells = {
        **cells.what_ran(record.workload),
        "optimizer": record.optimizer,
        "card": record.card.name,
        "bound": record.bound,
        "checked": checked(known),
    }
    whole: cells.Cells = {
        "predicted_s": record.seconds,
        "predicted_low_s": record.interval.low,
        "predicted_high_s": record.interval.high,
        "checked_median_error": known.median_error,
    }
    return common, [{**_cells(row, record), **whole} for row in record.rows]


def _cells(row: LatencyRow, record: LatencyEstimate) -> cells.Cells:
    every = cells.fields(row)
    phases = every.pop("phases")
    assert isinstance(phases, dict)
    return {
        **every,
        "share": row.own_seconds / record.seconds if row.own_seconds and record.seconds else None,
        **{f"{name}_s": phases.get(name) for name in record.phases},
    }
