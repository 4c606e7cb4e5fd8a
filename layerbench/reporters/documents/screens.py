"""What first screens have in common: a table of layers, and sums by type and by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layerbench import units
from layerbench.analysis.portions import Portion
from layerbench.errors import did_you_mean
from layerbench.records.bounds import Shape
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout
from layerbench.text import beginning, ending

_MOST_NAMED = 6
# Columns of a field's name.
_FIELD = 10
# A sum of less than this is not named.
_LEAST_SHARE = 0.01
_FEWEST_ROWS = 3
# Where a type is not there, so many that are.
_MOST_TYPES = 8
# Characters of a type, of a path in a title, and of one in a sum: each may be of any length.
_LONGEST_TYPE = 32
_LONGEST_PATH = 200
_LONGEST_IN_SUM = 60
MODEL = "(model)"
"""In place of the path of the model itself."""


def table_of(
    rows: Sequence[Mapping[str, str]],
    align: Mapping[str, str],
    omitted_first: Sequence[str],
    cut: str | None = "path",
) -> layout.Table:
    """A table of the rows that matter most, less the columns that nothing is known for.

    Args:
        rows: cells by the name of the column.
        align: letters as in a `Table`, of the columns that are not numbers on the right.
        omitted_first: columns that a narrow screen goes without, in this order.
        cut: the column whose cells are shortened where that is not enough; ``None`` for none.
    """
    names = [name for name in (rows[0] if rows else ()) if any(row[name] != "-" for row in rows)]
    return layout.Table(
        names,
        [[_type(row[name]) if name == "type" else row[name] for name in names] for row in rows],
        "".join(align.get(name, "r") for name in names),
        omitted_first=tuple(names.index(name) for name in omitted_first if name in names),
        cut=names.index(cut) if cut in names else None,
        fewest=_FEWEST_ROWS,
    )


def none_shown(type: str | None, types: Iterable[str]) -> layout.Section:
    """In place of such a table, why it has no rows where a type was asked for.

    Args:
        type: of the layers; ``None`` where all were.
        types: of all layers, from the first one on.
    """
    known = dict.fromkeys(types)
    if type is None or not known:
        return layout.Section("", [])
    if type in known:
        text = f"No layer of type {type} has any of what layers are sorted by: try another order."
    else:
        names = [*known]
        more = f" and {len(names) - _MOST_TYPES} more" if len(names) > _MOST_TYPES else ""
        there = f"there are {', '.join(names[:_MOST_TYPES])}{more}"
        hint = did_you_mean(type, names)
        text = f"No layer is of type {type}: " + (f"{hint} T{there[1:]}" if hint else there)
    return layout.Section("", [layout.Text(text)])


def first_named(what: str, path: str, type: str, *more: str) -> str:
    """The title of such a table: it has the first row's path whole, which the table may cut."""
    named = f"{ending(path, _LONGEST_PATH) or 'the model itself'} ({_type(type)})"
    return ", ".join([f"{what}: {named}", *filter(None, more)])


def _type(type: str) -> str:
    return beginning(type, _LONGEST_TYPE)


def shapes(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> str:
    """Of the first tensor in and out, without the images of the batch."""
    ends = [_shape(each[0]) if each else "" for each in (inputs, outputs)]
    return "→".join(end for end in ends if end) or "-"


def _shape(sizes: Shape) -> str:
    return units.by_x(sizes[1:] if len(sizes) > 1 else sizes)


def sums(portions: Sequence[Portion], width: int) -> str:
    """The largest with their shares, as many as a line holds, and what the others have together."""
    for number in range(_MOST_NAMED, 0, -1):
        text = _named(portions, number)
        if len(text) <= width - _FIELD:
            return text
    return text


def _named(portions: Sequence[Portion], number: int) -> str:
    named = [portion for portion in portions[:number] if portion.share >= _LEAST_SHARE]
    parts = [f"{_name(portion)} {units.percent(portion.share, digits=1)}" for portion in named]
    rest = portions[len(named) :]
    if named and rest:
        share = units.percent(sum(portion.share for portion in rest), digits=1)
        parts.append(f"{formatting.plural(len(rest), 'other')} {share}")
    return ", ".join(parts)


def _name(portion: Portion) -> str:
    """A block by its path, a type with the number of its layers."""
    return ending(portion.path, _LONGEST_IN_SUM) or f"{_type(portion.name)} ({portion.count})"
