"""One table out of many whole-model records, and the places in a document that hold it.

A document keeps a table between two comments, of which the first says what it is made of::

    <!-- layerbench:table stats cpu/stats --sort mean -->
    <!-- layerbench:end -->

``--side-by-side`` and ``--columns`` may stand there too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from layerbench import units
from layerbench.errors import UsageError
from layerbench.records.timing import Profile
from layerbench.records.workload import Frozen
from layerbench.reporters import formatting, latex_table
from layerbench.reporters.csv import written
from layerbench.reporters.result_columns import (
    COLUMNS,
    Cell,
    Entry,
    Value,
    chosen,
    entries,
    median_cell,
    work_input,
)
from layerbench.text import shown, visible

SORTS = ("device", "model", "input", "mean", "median", "parameters")
LABEL = "tab:layerbench"

_OPENING = re.compile(r"<!-- *layerbench:table\b(?P<arguments>[^\n]*?)-->")
_ENDING = "<!-- layerbench:end -->"


FORMATS = {"md": "github", "txt": "simple", "html": "html", "latex": "latex_booktabs"}
"""What a table can be made as, with tabulate's name for it; ``csv`` besides."""


@dataclass(frozen=True)
class _Table:
    """Cells by the heading of the column, before a format.

    Attributes:
        rows: with the same columns.
        right: the headings of those that are aligned at their right ends.
        measured: the headings of those that stay in the table though they be the same in all rows.
        notes: sentences of the caption.
        settings: of each row, what it can be compared within: the best of such rows is bold.
    """

    rows: Sequence[Mapping[str, Cell]]
    right: frozenset[str]
    measured: frozenset[str]
    notes: Sequence[str]
    settings: Sequence[object]


def render_table(
    records: Sequence[Frozen],
    sort: str = "device",
    *,
    format: str = "md",
    side_by_side: bool = False,
    columns: Sequence[str] | None = None,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """A table with a row for each profile, without a final newline.

    What is the same in all rows stands above the table, not in it; csv keeps it. Figures of csv
    are numbers in SI units.

    Args:
        records: profiles of whole models, in any order. Memory reports and structures among
            them give the profiles of the same workload what their tensors hold before the run
            (in 512-byte blocks, and in millions of elements), the peak of all tensors at
            inference, and GFLOPs.
        sort: the first thing to order by, one of `SORTS`; then device, model, input and
            threads, numbers in names by their value (``resnet18`` before ``resnet101``).
        format: one of `FORMATS`, or ``csv``.
        side_by_side: a row for each model and input, and a column for each device and number of
            threads with the median in ms; of two records with one place the later one counts.
        columns: words of `layerbench.reporters.result_columns.COLUMNS`; ``None`` for the usual
            ones, and those that tell rows apart.
        caption: said above the table, before what is the same in all rows.
        label: of LaTeX, what a paper refers to the table by; `LABEL` where it is ``None``.

    Raises:
        UsageError: no such order, format or column, no profile, or rows that differ only in what
            is not shown.
    """
    _check_choices(sort, format, side_by_side, columns, caption, label)
    rows = entries([shown(record) for record in records])
    if not rows:
        raise UsageError(
            "there is no profile of a whole model among the records: name one that layerbench "
            "timer, layerbench.profile or sh stats.sh wrote"
        )
    rows = sorted(rows, key=lambda entry: _order(entry.profile, sort))
    if side_by_side:
        table = _side_by_side([entry.profile for entry in rows])
    else:
        table = _in_rows(rows, chosen(rows, columns, paper=format == "latex"))
    if format == "csv":
        return _csv(table)
    table = _without_constants(table)
    said = " ".join([*([_sentence(caption)] if caption else []), *table.notes])
    return _latex(table, said, label or LABEL) if format == "latex" else _plain(table, said, format)


def _sentence(caption: str) -> str:
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def _check_choices(
    sort: str,
    format: str,
    side_by_side: bool,
    columns: Sequence[str] | None,
    caption: str | None,
    label: str | None,
) -> None:
    if sort not in SORTS:
        raise UsageError(f"cannot sort by {sort!r}: choose from {', '.join(SORTS)}")
    if format not in FORMATS and format != "csv":
        raise UsageError(f"unknown format {format!r}: choose from {', '.join([*FORMATS, 'csv'])}")
    if side_by_side and columns is not None:
        raise UsageError("--side-by-side has columns of its own: leave out --columns")
    if caption is not None and format == "csv":
        raise UsageError("csv has no caption: leave out --caption")
    if label is not None and format != "latex":
        raise UsageError(f"--label is for latex, not for {format}")


# --- the cells -------------------------------------------------------------------------------


def _in_rows(rows: Sequence[Entry], names: Sequence[str]) -> _Table:
    """A row for each profile."""
    columns = [COLUMNS[name] for name in names]
    return _Table(
        [{column.heading: column.cell(row) for column in columns} for row in rows],
        frozenset(column.heading for column in columns if column.right),
        frozenset(column.heading for column in columns if column.measured),
        [],
        [work_input(row.profile) for row in rows],
    )


_MARKS = {"stable": "", "noisy": " ~", "drifting": " >"}


def _side_by_side(profiles: Sequence[Profile]) -> _Table:
    """A row for each work, in the order of the profiles; columns by device and threads."""
    places = {
        formatting.place(record): (
            _natural(record.environment.device.name),
            formatting.threads(record) or 0,
        )
        for record in profiles
    }
    works: dict[tuple[str, str, int], dict[str, list[Profile]]] = {}
    for record in profiles:
        name = formatting.model_name(record.workload)
        work = (name, work_input(record), record.parameters)
        works.setdefault(work, {}).setdefault(formatting.place(record), []).append(record)
    ordered = sorted(places, key=lambda place: places[place])
    rows = [
        {
            "Model": Cell(model, {"model": model}),
            "Input": Cell(input, {"input": input}),
            "Parameters": Cell(units.count(parameters), {"parameters": parameters}),
        }
        | {f"{place}: median ms": _latest(place, there.get(place, ())) for place in ordered}
        for (model, input, parameters), there in works.items()
    ]
    return _Table(
        rows,
        frozenset(rows[0]) - {"Model", "Input"},
        frozenset(rows[0]) - {"Model", "Input", "Parameters"},
        _repeated(works),
        [input for _, input, _ in works],
    )


def _latest(place: str, records: Sequence[Profile]) -> Cell:
    """The median of the latest measurement, with a mark where the figure is not stable."""
    record = max(records, key=lambda record: record.environment.started, default=None)
    if record is None:
        return Cell("-", {f"{place}: median_s": None, f"{place}: verdict": None})
    cell = median_cell(record)
    mark = _MARKS[record.whole.verdict]
    data: dict[str, Value] = {f"{place}: median_s": record.whole.median}
    data[f"{place}: verdict"] = record.whole.verdict
    return Cell(f"{cell.text}{mark}", data, f"{cell.uncertain}{mark}", cell.span)


def _repeated(works: Mapping[tuple[str, str, int], Mapping[str, Sequence[Profile]]]) -> list[str]:
    """What is said of several measurements of one work in one place."""
    several = [
        f"{model}, {input} on {place} ({len(records)})"
        for (model, input, _), there in works.items()
        for place, records in there.items()
        if len(records) > 1
    ]
    return [f"The latest of several measurements: {'; '.join(several)}."] if several else []


def _without_constants(table: _Table) -> _Table:
    """The table with what is the same in all of several rows said above it."""
    if len(table.rows) < 2:
        return table
    same = {
        name: cell.text
        for name, cell in table.rows[0].items()
        if name not in table.measured and all(row[name].text == cell.text for row in table.rows)
    }
    if not same or len(same) == len(table.rows[0]):
        return table
    note = f"In all rows: {'; '.join(f'{name} {text}' for name, text in same.items())}."
    rows = [{name: row[name] for name in row if name not in same} for row in table.rows]
    return replace(table, rows=rows, notes=[note, *table.notes])


# --- the formats -----------------------------------------------------------------------------


def _csv(table: _Table) -> str:
    """Numbers as numbers, in SI units that the names of the columns say."""
    rows = [{k: v for cell in row.values() for k, v in cell.data.items()} for row in table.rows]
    return written([list(rows[0]), *(list(row.values()) for row in rows)]).removesuffix("\n")


def _plain(table: _Table, caption: str, format: str) -> str:
    """Markdown, text or HTML, with the caption above."""
    columns = list(table.rows[0])
    align = _alignment(table, columns)
    cells = [[cell.text for cell in row.values()] for row in table.rows]
    if format == "md":
        cells = [[formatting.markdown(cell) for cell in row] for row in cells]
        made, caption = (
            formatting.markdown_table(columns, cells, align),
            formatting.markdown(caption),
        )
    else:
        made = formatting.tabulated(columns, cells, align, FORMATS[format])
    if not caption:
        return made
    if format == "html":
        return made.replace("<table>", f"<table>\n<caption>{escape(caption)}</caption>", 1)
    return f"{visible(caption)}\n\n{made}"


_EXPLAINED = {
    "uncertain": "In parentheses: half of the 95 % interval, in units of the last digit.",
    "bold": "Bold: the best of an input, and all that the intervals do not tell from it.",
    "marks": "~ noisy, > drifting.",
}


def _latex(table: _Table, caption: str, label: str) -> str:
    """For a paper: figures with their uncertainty, the best ones in bold."""
    columns = list(table.rows[0])
    best = {
        (place, name)
        for name in columns
        for place in _best(table, [row[name] for row in table.rows])
    }
    rows = [
        [_in_latex(cell, (place, name) in best) for name, cell in row.items()]
        for place, row in enumerate(table.rows)
    ]
    cells = [cell for row in table.rows for cell in row.values()]
    notes = [
        *([_EXPLAINED["uncertain"]] if any(cell.uncertain for cell in cells) else []),
        *([_EXPLAINED["bold"]] if best else []),
        *([_EXPLAINED["marks"]] if any(cell.text.endswith((" ~", " >")) for cell in cells) else []),
    ]
    said = " ".join(text for text in (caption, *notes) if text)
    return latex_table.table(columns, rows, _alignment(table, columns), said, label)


def _in_latex(cell: Cell, best: bool) -> str:
    text = latex_table.escaped(cell.uncertain or cell.text)
    return latex_table.bold(text) if best else text


def _best(table: _Table, cells: Sequence[Cell]) -> list[int]:
    """The places of the best cells of a column, and of those that may be as good.

    Only cells of one setting are compared; where all are alike, none is best.
    """
    groups: dict[object, list[int]] = {}
    for place, cell in enumerate(cells):
        if cell.span is not None:
            groups.setdefault(table.settings[place], []).append(place)
    best: list[int] = []
    for places in groups.values():
        spans = {place: cells[place].span or (0, 0) for place in places}
        most = min(spans.values(), key=sum)[1]
        good = [place for place in places if spans[place][0] <= most]
        best += good if len(good) < len(places) else []
    return best


def _alignment(table: _Table, columns: Sequence[str]) -> str:
    return "".join("r" if name in table.right else "l" for name in columns)


# --- the places in a document ----------------------------------------------------------------


def update_markers(text: str, load: Callable[[Sequence[str]], Sequence[Frozen]]) -> str:
    """The document with every table between markers made anew.

    Args:
        text: a Markdown document.
        load: gives the records of the paths that an opening marker names.

    Raises:
        UsageError: no marker, one without an end, or one that cannot be read.
    """
    opening = _OPENING.search(text)
    if opening is None:
        raise UsageError(
            "no table to update: put <!-- layerbench:table PATHS --> and "
            f"{_ENDING} where it should stand"
        )
    parts: list[str] = []
    while opening:
        head, text = text[: opening.end()], text[opening.end() :]
        following = _OPENING.search(text)
        end = text.find(_ENDING)
        if end < 0 or (following and following.start() < end):
            raise UsageError(f"the marker {opening[0]} has no {_ENDING} after it")
        paths, sort, side_by_side, columns = _arguments(opening)
        table = render_table(load(paths), sort, side_by_side=side_by_side, columns=columns)
        parts += [head, "\n", table, "\n", _ENDING]
        text = text[end + len(_ENDING) :]
        opening = _OPENING.search(text)
    return "".join([*parts, text])


def _arguments(opening: re.Match[str]) -> tuple[list[str], str, bool, list[str] | None]:
    """Paths and order of a marker, whether devices stand side by side, and the columns."""
    try:
        words = shlex.split(opening["arguments"])
    except ValueError as error:
        raise UsageError(f"cannot read the marker {opening[0]}: {error}") from None
    said, words = _said(words)
    side_by_side = "--side-by-side" in words
    words = [word for word in words if word != "--side-by-side"]
    if not words or any(word.startswith("--") for word in words):
        raise UsageError(
            f"cannot read the marker {opening[0]}: "
            "write <!-- layerbench:table PATHS [--sort KEY] [--side-by-side] [--columns LIST] -->"
        )
    columns = said.get("--columns")
    return (
        words,
        said.get("--sort", SORTS[0]),
        side_by_side,
        columns.split(",") if columns else None,
    )


def _said(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the options that have one, and the other words."""
    said: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word in ("--sort", "--columns"):
            said[word] = next(waiting, "")
        else:
            rest.append(word)
    return said, rest


def _order(record: Profile, sort: str) -> tuple[object, ...]:
    workload = record.workload
    keys: dict[str, object] = {
        "device": _natural(record.environment.device.name),
        "model": _natural(formatting.model_name(workload)),
        "input": (_natural(workload.input), workload.shape),
        "mean": record.whole.mean,
        "median": record.whole.median,
        "parameters": record.parameters,
    }
    first = keys[sort]
    threads = formatting.threads(record) or 0
    # The date last, so that records that are otherwise alike keep one order.
    return (
        first,
        keys["device"],
        keys["model"],
        keys["input"],
        threads,
        record.environment.started,
    )


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that orders numbers in a name by value."""
    parts = re.findall(r"\d+|\D+", text.lower())
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
