"""The document of the cards that predictions can be made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from layerbench import units
from layerbench.records.card import Card, Format
from layerbench.records.cards import Cards, CheckedCard
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared

_FORMATS: tuple[Format, ...] = get_args(Format)
_HINT = (
    "--device takes a name, or a file as `layerbench devices --describe` writes it. The columns "
    "fp64 to bf16 are TFLOP/s of dense products; half precision is summed in float32."
)
NOT_CHECKED = "not checked"


def document(record: Cards) -> layout.Document:
    """A table of several cards; of one all that is known, and from where."""
    if len(record.rows) == 1:
        return _of_one(record)
    return layout.Document(
        title=f"{formatting.plural(len(record.rows), 'GPU')} that predictions are made for",
        head=[
            *shared.cautions(cautions(record)),
            layout.Text(_range(record.rows)),
            layout.Text(_HINT),
        ],
        sections=[layout.Section("", [_table(record.rows)])],
    )


def _range(rows: Sequence[CheckedCard]) -> str:
    cards = sorted((row.card for row in rows), key=lambda card: card.memory_bytes)
    ends = [
        f"{units.bytes_(card.memory_bytes)} ({card.name})" for card in (*cards[:1], *cards[-1:])
    ]
    return f"Memory of {' to '.join(ends)}"


def _table(rows: Sequence[CheckedCard]) -> layout.Table:
    shown = [_cells(row) for row in rows]
    names = [*shown[0]] if shown else []
    omitted = ("card", "SMs", "L2", "fp64", "capability", "bf16", "tf32", "fp32")
    return layout.Table(
        names,
        [[*row.values()] for row in shown],
        "".join({"name": "c", "card": "l", "checked": "l"}.get(name, "r") for name in names),
        omitted_first=tuple(names.index(name) for name in omitted if name in names),
    )


def _cells(row: CheckedCard) -> dict[str, str]:
    card = row.card
    rates = {str(name): _tera(card.flops.get(name)) for name in _FORMATS}
    return {
        "name": card.name,
        "card": card.title.removeprefix("NVIDIA "),
        "capability": card.capability,
        "SMs": str(card.multiprocessors),
        "memory": units.bytes_(card.memory_bytes),
        "bandwidth": units.byte_rate(card.bandwidth),
        "L2": units.bytes_(card.l2_bytes),
        **rates,
        "checked": row.checked,
    }


def _tera(rate: float | None) -> str:
    return "-" if rate is None else units.per_second(rate / 1e12)


def _of_one(record: Cards) -> layout.Document:
    row = record.rows[0]
    card = row.card
    rates: dict[str, str] = {
        name: units.flop_rate(card.flops[name]) for name in _FORMATS if name in card.flops
    }
    without = [name for name in _FORMATS if name not in card.flops]
    return layout.Document(
        title=f"{card.name}: {card.title}",
        head=[
            *shared.cautions(cautions(record)),
            layout.Fields(
                [
                    ("Checked", row.checked),
                    ("Memory", f"{units.bytes_(card.memory_bytes)}, {_bus(card)}"),
                    ("Dense", formatting.pairs(rates)),
                    ("Unknown", ", ".join(without)),
                    ("Cores", f"{card.multiprocessors} multiprocessors with {_cores(card)}"),
                    ("L2 cache", units.bytes_(card.l2_bytes)),
                    ("Power", "" if card.power_w is None else f"at most {card.power_w:g} W"),
                    ("CUDA", f"compute capability {card.capability}"),
                    ("Names", ", ".join((card.name, *card.aliases))),
                ]
            ),
        ],
        sections=[
            layout.Section("Sources", [layout.Fields(list(card.sources.items()))]),
        ],
    )


def _bus(card: Card) -> str:
    clock = units.frequency(card.memory_clock_hz)
    return f"{units.byte_rate(card.bandwidth)} over {card.bus_bits} bits at {clock}"


def _cores(card: Card) -> str:
    return f"{card.limits.cores} float32 cores each, at {units.frequency(card.clock_hz)}"


def cautions(record: Cards) -> list[str]:
    """What weakens the predictions made of the figures."""
    unchecked = [row.card.name for row in record.rows if row.checked.startswith(NOT_CHECKED)]
    said = f"times predicted for these have not been checked: {', '.join(unchecked)}"
    return [*record.notes, *([said] if unchecked else [])]


def rows(record: Cards) -> cells.Rows:
    """A row a card."""
    figures = (
        "name",
        "title",
        "capability",
        "multiprocessors",
        "clock_hz",
        "memory_bytes",
        "memory_clock_hz",
        "bus_bits",
        "bandwidth",
        "l2_bytes",
        "power_w",
    )
    made: list[cells.Cells] = [
        {
            **cells.fields(row.card, *figures),
            **{f"{name}_flops": row.card.flops.get(name) for name in _FORMATS},
            "checked": row.checked,
            "sources": "; ".join(f"{what}: {where}" for what, where in row.card.sources.items()),
        }
        for row in record.rows
    ]
    return {}, made
