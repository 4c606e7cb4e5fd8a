"""The document of several cards side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerbench import units
from layerbench.records.card_estimates import CardEstimate, CardEstimates
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared
from layerbench.reporters.documents.latency_estimate import checked, error, interval

_ALIGN = {"card": "c", "fits": "l", "time [90 %]": "l", "bound by": "l", "checked": "l"}
_OMITTED_FIRST = ("price", "memory", "bound by", "fits", "largest")
_IN_ALL = "steps alone: no loading of data, no validation, and a GPU that works all the time"
_ORDERS = {
    "given": "Cards",
    "time": "Cards, the fastest first",
    "cost": "Cards, the cheapest first",
}


def document(record: CardEstimates, view: View = USUAL) -> layout.Document:
    """The best card, then a row for each."""
    whole = _table(record.rows)
    first = _table(record.rows[: view.top], short=True)
    return layout.Document(
        title=f"{shared.title(record.workload)}: {_what(record)} predicted for "
        f"{formatting.plural(len(record.rows), 'GPU')}",
        head=[
            *shared.cautions(cautions(record)),
            layout.Text(_answer(record)),
            layout.Text(_ran(record)),
            layout.Section(_ORDERS[record.order], [first]),
        ],
        sections=[
            layout.Section("All cards", [whole] if len(record.rows) > view.top else []),
            layout.listed("Without a time", list(_without(record))),
            layout.listed("Checked", list(_checked(record))),
            layout.listed("Notes", record.notes),
            layout.what_ran(_fields(record)),
        ],
    )


def _what(record: CardEstimates) -> str:
    if record.samples is not None:
        epochs = formatting.plural(record.epochs or 1, "epoch")
        return f"{epochs} of {units.count(record.samples)} images"
    return "a training step" if record.optimizer else "a forward"


def _answer(record: CardEstimates) -> str:
    """The cheapest card where there are prices, else the fastest."""
    timed = [row for row in record.rows if row.seconds is not None]
    certain = [row for row in timed if row.fits in (None, "yes")]
    unclear = "" if certain else ", which may not fit"
    timed = certain or timed
    priced = [row for row in timed if row.cost is not None]
    if priced:
        best = min(priced, key=lambda row: row.cost or 0.0)
        return f"cheapest: {best.card.title}{unclear}, {_cost(best)} for {_total(best)}"
    if not timed:
        return "on none of them"
    best = max(timed, key=lambda row: row.images_per_s or 0.0)
    total = f", {_total(best)} in all" if best.total_s is not None else ""
    batch = formatting.plural(best.batch or 0, "image")
    rate = f"{_rate(best)} images/s"
    return f"fastest: {best.card.title}{unclear}, {rate}, {_time(best)} for {batch}{total}"


def _ran(record: CardEstimates) -> str:
    workload = record.workload
    step = f"training with {record.optimizer}" if record.optimizer else workload.mode
    settings = [workload.arithmetic, *formatting.variant(workload)]
    settings = [one for one in settings if one != workload.mode]
    parts = [record.model_type, _shape(record), step, *settings]
    return ", ".join([*dict.fromkeys(parts), "predicted: nothing was measured"])


def _shape(record: CardEstimates) -> str:
    """The input's, without the batch where each card has its own."""
    shape = record.workload.shape
    one_batch = all(row.batch in (None, record.workload.batch) for row in record.rows)
    return units.shape(shape if one_batch else shape[1:])


def _table(rows: Sequence[CardEstimate], *, short: bool = False) -> layout.Table:
    cells = [_cells(row, short) for row in rows]
    all_fit = all(row.fits in (None, "yes") for row in rows if row.seconds is not None)
    omitted = [name for name in _OMITTED_FIRST if all_fit or name != "fits"]
    return screens.table_of(cells, _ALIGN, omitted, cut=None)


def _cells(row: CardEstimate, short: bool) -> dict[str, str]:
    """Of a row; short, a cost has no interval, so that a screen has room for the others."""
    known = row.checked
    return {
        "card": row.card.name,
        "memory": formatting.dash(row.memory_bytes, units.bytes_),
        "fits": row.fits or "-",
        "largest": formatting.dash(row.largest_batch, units.count),
        "batch": formatting.dash(row.batch, units.count),
        "time [90 %]": _time(row),
        "images/s": _rate(row),
        "bound by": row.bound or "-",
        "in all": _total(row),
        "price": formatting.dash(row.price, _money),
        "cost": formatting.dash(row.cost, _money) if short else _cost(row),
        "median error": "-" if known is None else error(known),
    }


def _time(row: CardEstimate) -> str:
    if row.seconds is None or row.interval is None:
        return "-"
    return interval(row.seconds, row.interval)


def _rate(row: CardEstimate) -> str:
    return formatting.dash(row.images_per_s, units.per_second)


def _total(row: CardEstimate) -> str:
    return formatting.dash(row.total_s, units.duration)


def _cost(row: CardEstimate) -> str:
    if row.cost is None or row.cost_low is None or row.cost_high is None:
        return "-"
    return f"{_money(row.cost)} [{_money(row.cost_low)}, {_money(row.cost_high)}]"


def _money(amount: float) -> str:
    """In the user's currency, whatever that is; of next to nothing two digits that count."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}"


def _without(record: CardEstimates) -> Iterator[str]:
    yield from (f"{row.card.name}: {row.absent}" for row in record.rows if row.absent)


def _checked(record: CardEstimates) -> Iterator[str]:
    """How wrong such predictions were, cards of one answer together."""
    cards: dict[str, list[str]] = {}
    for row in record.rows:
        if row.checked is not None:
            cards.setdefault(checked(row.checked), []).append(row.card.name)
    yield from (f"{', '.join(names)}: {said}" for said, names in cards.items())


def _fields(record: CardEstimates) -> list[tuple[str, str]]:
    workload = record.workload
    return [
        ("Model", f"{workload.model} ({record.model_type}), {formatting.weights(workload)}"),
        ("Input", f"{workload.input} {_shape(record)}"),
        *formatting.files(workload),
        ("Predicted", "from the shapes of its operators; nothing was measured"),
        *([("In all", _IN_ALL)] if record.samples is not None else []),
        ("Software", f"torch {record.torch}, layerbench {record.layerbench}"),
    ]


def cautions(record: CardEstimates) -> list[str]:
    """What weakens the figures, the gravest first."""
    unchecked = [
        row.card.name for row in record.rows if row.checked is not None and not row.checked.known
    ]
    said = [f"not checked against measured times: {', '.join(unchecked)}"] if unchecked else []
    lacking = [row.card.name for row in record.rows if row.absent and row.fits != "no"]
    if lacking:
        said.insert(0, f"no time for {', '.join(lacking)}, and below stands why")
    return [*said, *record.notes]


def rows(record: CardEstimates) -> cells.Rows:
    """A row a card."""
    common = {
        **cells.what_ran(record.workload),
        "optimizer": record.optimizer,
        **cells.fields(record, "samples", "epochs"),
    }
    return common, [_row(row) for row in record.rows]


def _row(row: CardEstimate) -> cells.Cells:
    bounds = {"memory": row.memory_interval, "seconds": row.interval, "total": row.total_interval}
    known = row.checked
    return {
        "card": row.card.name,
        "card_memory_bytes": row.card.memory_bytes,
        "batch_used": row.batch,
        **cells.fields(row, "fits", "largest_batch", "memory_bytes", "seconds", "bound"),
        **cells.fields(row, "images_per_s", "total_s", "price", "cost", "cost_low", "cost_high"),
        **{
            f"{name}_{end}": getattr(interval, end, None)
            for name, interval in bounds.items()
            for end in ("low", "high")
        },
        "checked": None if known is None else checked(known),
        "checked_median_error": None if known is None else known.median_error,
        "absent": row.absent or None,
    }
