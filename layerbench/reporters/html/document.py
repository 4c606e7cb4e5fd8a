"""From records to the page's data. Sums, orders and joins happen here, not in the page."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench.records.bundle import Bundle, place_of
from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters.html import plain
from layerbench.reporters.html.distributions import folds_of, spreads_of
from layerbench.reporters.html.graphs import graphs
from layerbench.reporters.html.header import (
    environment,
    facts,
    first_record,
    notes,
    source,
    subtitle,
    title,
)
from layerbench.reporters.html.kernels import kernels
from layerbench.reporters.html.metrics import metrics_of
from layerbench.reporters.html.roofline import roofline
from layerbench.reporters.html.rows import bounds, columns, rows_of
from layerbench.reporters.html.schema import PageData
from layerbench.reporters.html.timeline import changed, timeline
from layerbench.text import shown


def bundled(record: Frozen) -> Bundle | None:
    """A record of its own as a bundle; ``None`` for a kind that has no rows of layers."""
    if isinstance(record, Bundle):
        return record
    place = place_of(record)
    return None if place is None else Bundle.model_validate({place: record})


def of(bundle: Bundle, view: View = USUAL) -> PageData:
    """All that a page shows of these records, with their text made visible.

    Args:
        bundle: the records.
        view: what the first screen shows.
    """
    rows = rows_of(bundle)
    metrics = metrics_of(bundle, rows)
    compared = changed(bundle, rows)
    head = _head(bundle, view)
    numbers = {row.path: index for index, row in enumerate(rows)}
    data = PageData(
        title=title(bundle),
        subtitle=subtitle(bundle),
        facts=tuple(facts(bundle)),
        source=tuple(source(bundle)),
        notes=tuple(notes(bundle)),
        warnings=tuple(_warnings(bundle, head)),
        rows=columns(rows, bounds(bundle)),
        metrics=metrics,
        spreads=tuple(spreads_of(bundle, rows)),
        folds=tuple(folds_of(rows, metrics, compared)),
        changed=compared,
        timeline=timeline(bundle, rows),
        roofline=roofline(bundle, numbers),
        kernels=kernels(bundle, numbers),
        graphs=graphs(bundle),
    )
    # Markup has lines, which are no text from outside.
    return shown(data).model_copy(update={"head": head})


def _head(bundle: Bundle, view: View) -> str:
    first = first_record(bundle)
    return "" if first is None else plain.head(first, view)


def _warnings(bundle: Bundle, head: str) -> Iterator[str]:
    """The warnings that the first screen does not say."""
    measured = environment(bundle)
    for warning in measured.warnings if measured else ():
        if plain.escape(shown(warning)) not in head:
            yield warning
