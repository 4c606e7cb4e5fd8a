"""One table out of many whole-model records, and the places in a document that hold it.

A document keeps a table between two comments, of which the first says what it is made of::

    <!-- layerbench:table stats cpu/stats --sort mean -->
    <!-- layerbench:end -->

``--side-by-side`` may stand there too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from layerbench import units
from layerbench.errors import UsageError
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.workload import Frozen, Workload
from layerbench.reporters import formatting
from layerbench.reporters.csv import written
from layerbench.text import shown

SORTS = ("device", "model", "input", "mean", "median", "parameters")

# Columns of names; the others are of figures.
_NAMES = ("Model", "Input", "Device", "Verdict")
_OPENING = re.compile(r"<!-- *layerbench:table\b(?P<arguments>[^\n]*?)-->")
_ENDING = "<!-- layerbench:end -->"


FORMATS = {"md": "github", "txt": "simple", "html": "html", "latex": "latex_booktabs"}
"""What a table can be made as, with tabulate's name for it; ``csv`` besides."""


def render_table(
    records: Sequence[Frozen],
    sort: str = "device",
    *,
    format: str = "md",
    side_by_side: bool = False,
) -> str:
    """A table with a row for each profile, without a final newline.

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

    Raises:
        UsageError: no such order or format, or no profile.
    """
    if sort not in SORTS:
        raise UsageError(f"cannot sort by {sort!r}: choose from {', '.join(SORTS)}")
    records = [shown(record) for record in records]
    profiles = [record for record in records if isinstance(record, Profile)]
    if not profiles:
        raise UsageError(
            "there is no profile of a whole model among the records: name one that timer.py, "
            "layerbench.profile or sh stats.sh wrote"
        )
    more = _Companions(records)
    ordered = sorted(profiles, key=lambda record: _order(record, sort))
    if side_by_side:
        return _made(_side_by_side(ordered), format)
    return _made([_row(record) | more.cells(record.workload) for record in ordered], format)


def _made(rows: Sequence[Mapping[str, str]], format: str) -> str:
    """The table in one of the formats, of cells by the name of the column."""
    columns = list(rows[0])
    align = "".join("l" if name in _NAMES else "r" for name in columns)
    cells = [list(row.values()) for row in rows]
    if format == "md":
        cells = [[formatting.markdown(cell) for cell in row] for row in cells]
        return formatting.markdown_table(columns, cells, align)
    if format == "csv":
        return written([columns, *cells]).removesuffix("\n")
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: choose from {', '.join([*FORMATS, 'csv'])}")
    return formatting.tabulated(columns, cells, align, FORMATS[format])


_MARKS = {"stable": "", "noisy": " ~", "drifting": " >"}


def _side_by_side(profiles: Sequence[Profile]) -> list[dict[str, str]]:
    """A row for each work, in the order of the profiles; columns by device and threads."""
    places = {
        formatting.place(record): (
            _natural(record.environment.device.name),
            formatting.threads(record) or 0,
        )
        for record in profiles
    }
    works: dict[tuple[str, str, str], dict[str, Profile]] = {}
    for record in profiles:
        place = formatting.place(record)
        work = (
            formatting.model_name(record.workload),
            _input(record),
            units.count(record.parameters),
        )
        there = works.setdefault(work, {})
        if place not in there or there[place].environment.started < record.environment.started:
            there[place] = record
    ordered = sorted(places, key=lambda place: places[place])
    return [
        {"Model": model, "Input": input, "Parameters": parameters}
        | {f"{place}: median ms": _median(there.get(place)) for place in ordered}
        for (model, input, parameters), there in works.items()
    ]


def _median(record: Profile | None) -> str:
    """With a mark where the figure is not stable."""
    if record is None:
        return "-"
    return formatting.ms(record.whole, "median") + _MARKS[record.whole.verdict]


class _Companions:
    """The memory reports and structures beside the profiles, by workload."""

    def __init__(self, records: Sequence[Frozen]) -> None:
        self._memory = {
            record.workload: record
            for record in records
            if isinstance(record, MemoryReport) and not record.training
        }
        self._structures = {
            record.workload: record for record in records if isinstance(record, Structure)
        }

    def cells(self, workload: Workload) -> dict[str, str]:
        """Those that some record has something for; ``-`` where none of the workload is there."""
        memory, structure = self._memory.get(workload), self._structures.get(workload)
        columns = ("Allocated MiB", "Tensors M", "Peak MiB") if self._memory else ()
        cells = dict.fromkeys((*columns, *(["GFLOPs"] if self._structures else [])), "-")
        if memory:
            cells["Allocated MiB"] = units.mebibytes(memory.total.block_bytes, unit=False)
            cells["Tensors M"] = f"{memory.total.elements / 1e6:.2f}"
            cells["Peak MiB"] = units.mebibytes(memory.peak.bytes, unit=False)
        if structure:
            cells["GFLOPs"] = f"{structure.flops / 1e9:.2f}"
        return cells


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
        paths, sort, side_by_side = _arguments(opening)
        table = render_table(load(paths), sort, side_by_side=side_by_side)
        parts += [head, "\n", table, "\n", _ENDING]
        text = text[end + len(_ENDING) :]
        opening = _OPENING.search(text)
    return "".join([*parts, text])


def _arguments(opening: re.Match[str]) -> tuple[list[str], str, bool]:
    """Paths and order of a marker, and whether devices stand side by side."""
    try:
        words = shlex.split(opening["arguments"])
    except ValueError as error:
        raise UsageError(f"cannot read the marker {opening[0]}: {error}") from None
    sort = SORTS[0]
    if "--sort" in words:
        at = words.index("--sort")
        sort = " ".join(words[at + 1 : at + 2])
        words = words[:at] + words[at + 2 :]
    side_by_side = "--side-by-side" in words
    words = [word for word in words if word != "--side-by-side"]
    if not words or any(word.startswith("--") for word in words):
        raise UsageError(
            f"cannot read the marker {opening[0]}: "
            "write <!-- layerbench:table PATHS [--sort KEY] [--side-by-side] -->"
        )
    return words, sort, side_by_side


def _row(record: Profile) -> dict[str, str]:
    whole = record.whole
    return {
        "Model": formatting.model_name(record.workload),
        "Input": _input(record),
        "Device": record.environment.device.name,
        "Threads": formatting.dash(formatting.threads(record), str),
        "Mean ms": formatting.ms(whole, "mean"),
        "Std ms": formatting.ms(whole, "std"),
        "FPS": formatting.fps(record),
        "Median ms": formatting.ms(whole, "median"),
        "95 % interval": f"[{formatting.ms(whole, 'ci_low')}, {formatting.ms(whole, 'ci_high')}]",
        "Parameters": units.count(record.parameters),
        "Verdict": whole.verdict,
    }


def _input(record: Profile) -> str:
    """The input's name and shape; once if the name is the shape."""
    shape = "x".join(str(size) for size in record.workload.shape)
    name = record.workload.input
    return shape if name == shape else f"{name} ({shape})"


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
