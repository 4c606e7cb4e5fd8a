"""CSV for spreadsheets and data frames: a row for the whole model and for every layer.

What ran, and where, is repeated in every row, so that a row stands alone and rows of many
reports can be put into one table. Times are seconds; an empty cell was not measured.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence

from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters import documents

NAME = "csv"
SUFFIX = ".csv"


def render(record: Frozen, view: View = USUAL) -> str:
    """The rows of a record; the columns are those of all rows, in the order in which they come.

    Args:
        record: of any kind.
        view: whether there are rows of kernels, too; nothing else of it.

    Raises:
        UsageError: there are none of such a record.
    """
    common, rows = documents.rows(record, view)
    columns = dict.fromkeys(name for row in (common, *rows) for name in row)
    lines = [[(common | row).get(name) for name in columns] for row in rows]
    return (
        written([[*columns], *lines]) if columns and (rows or common.keys() - {"cautions"}) else ""
    )


def written(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text: none of their cells is a formula or ends the line that it stands in."""
    lines = _Lines()
    # Cells with any of these two characters are quoted.
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerows([inert(cell) for cell in row] for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    """Takes what a writer writes, line by line."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


# A spreadsheet would compute what begins like this, also in the wide letters of East Asian text.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-](\d+(\.\d*)?|\.\d+)?(e[+-]?\d+)?( %)?", re.ASCII | re.IGNORECASE)


def inert(cell: object) -> object:
    """A cell as a spreadsheet shows it: text that begins like a formula has a quote before it.

    Numbers, also those with a sign that stand here as text, and a dash alone stay what they are.
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"
