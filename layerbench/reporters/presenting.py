"""What the methods of a record do: `layerbench.records.presented` loads it by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerbench import reporters
from layerbench.analysis import portions
from layerbench.analysis.largest import layers
from layerbench.analysis.selection import not_shown
from layerbench.environment import notebook
from layerbench.errors import LayerbenchError, UsageError
from layerbench.records.bundle import Bundle
from layerbench.records.options import checked
from layerbench.records.presented import Presented
from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters import documents
from layerbench.reporters.documents import layout
from layerbench.reporters.html.embedded import frame as framed
from layerbench.reporters.screen import columns
from layerbench.store import writing
from layerbench.text import one_line, shown, visible

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 10
"""Of a repr."""

_WIDTH = USUAL.width
# Of why there is no record yet.
_MOST_SAID = 400
_USUAL_ENDING = ".json"

# --- as text -------------------------------------------------------------------------------


def brief(record: Presented) -> str:
    """At most ten lines: what it is, the answer, how to see more.

    It never fails: a debugger also asks what is half made.
    """
    try:
        content = record.presented()
    except LayerbenchError as error:
        return one_line(f"<{type(record).__name__}: {error}>", _MOST_SAID)
    except Exception:
        return _bare(record)
    try:
        made = documents.document(shown(content))
    except Exception:
        return _bare(record)
    lines = [f"{type(record).__name__}: {made.title}"]
    for line in _said(layout.of_format(made.head, "txt")):
        if len(lines) == MOST_LINES - 1:
            break
        lines.append(line)
    return "\n".join(one_line(line, _WIDTH) for line in [*lines, _more(record)])


def _said(parts: Sequence[layout.Part]) -> Iterator[str]:
    """What the first screen says in sentences and fields; of a section with a table, its title."""
    for part in parts:
        match part:
            case layout.Text():
                yield part.text
            case layout.Fields():
                yield from (f"{name}: {text}" for name, text in part.items if text)
            case layout.Lines():
                yield from part.lines
            case layout.Section():
                inner = layout.of_format(part.parts, "txt")
                if part.title:
                    yield part.title
                yield from _said(inner)


def _more(record: Presented) -> str:
    layers = ".top() and .by_type(), " if _has_layers(record) else ""
    return f"More: print() and .show(full=True), {layers}.to_dataframe(), .save(path)"


def _has_layers(record: Presented) -> bool:
    content = _one_of(record.presented())
    return bool(getattr(content, "layers", None) or getattr(content, "rows", None))


def _bare(record: Presented) -> str:
    """Of a record that has no report, or not yet all its fields: which of them it has."""
    held = [name for name, value in vars(record).items() if value is not None and name[0] != "_"]
    return one_line(f"<{type(record).__name__} with {', '.join(held) or 'nothing'}>", _WIDTH)


def screen(record: Presented) -> str:
    """The first screen, without a line feed at its end; the repr of a record that has none."""
    try:
        return reporters.render("screen", record.presented()).rstrip("\n")
    except LayerbenchError:
        return brief(record)


def rendered(record: Presented, format: str) -> str:
    """The record in a format.

    Raises:
        UsageError: there is none for such a record.
    """
    return reporters.render(format, record.presented())


def frame(record: Presented) -> str:
    """The page as a notebook shows it."""
    content: Frozen = record.presented()
    title = brief(record).partition("\n")[0]
    return framed(content, title, screen(record))


def show(record: Presented, fields: Mapping[str, Any]) -> None:
    """Print the first screen, or more of the report; in a notebook display the page.

    Args:
        record: of any kind.
        fields: of a `View`; with any of them a notebook, too, gets text.
    """
    if not fields and notebook.is_running():
        _display(record)
        return
    view = checked(View, {"width": columns(), **fields})
    for line in not_shown(record.presented(), view):
        print(visible(line), file=sys.stderr)
    text = reporters.render("txt" if view.full else "screen", record.presented(), view)
    sys.stdout.write("\n".join(map(visible, text.split("\n"))))


def _display(record: Presented) -> None:
    from IPython.display import display  # of the notebook that is running

    display(record)  # type: ignore[no-untyped-call]


# --- as values -----------------------------------------------------------------------------


def plain(record: Presented) -> dict[str, Any]:
    """Plain values, as in the JSON."""
    values: dict[str, Any] = record.presented().model_dump(mode="json", by_alias=True)
    return values


def dataframe(record: Presented) -> pd.DataFrame:
    """The rows of csv.

    Raises:
        UsageError: there is no pandas, or there are no rows of such a record.
    """
    common, rows = documents.rows(record.presented())
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("to_dataframe needs pandas: pip install 'layerbench[notebook]'") from None
    names = dict.fromkeys(name for row in (common, *rows) for name in row)
    return pd.DataFrame([{**common, **row} for row in rows], columns=[*names])


# --- as a file -----------------------------------------------------------------------------


def save(record: Presented, path: str | Path) -> Path:
    """Write the record in the format that the path's ending says.

    Raises:
        UsageError: no format has this ending, or not for such a record.
        OutputError: it cannot be written.
    """
    path = Path(path)
    if not path.name:
        raise UsageError(f"{path} is a folder: name a file in it, such as {path / 'record.json'}")
    if not path.suffix:
        path = path.with_name(f"{path.name}{_USUAL_ENDING}")
    writing.write_text(path, rendered(record, _format_of(path)))
    return path


def _format_of(path: Path) -> str:
    """The format with the longest ending that the name has: ``.trace.json`` before ``.json``."""
    endings = {reporters.suffix(name): name for name in reporters.names()}
    fitting = [ending for ending in endings if path.name.endswith(ending)]
    if not fitting:
        known = ", ".join(sorted(endings))
        raise UsageError(f"no format has the ending of {path.name}: choose from {known}")
    return endings[max(fitting, key=len)]


# --- layers --------------------------------------------------------------------------------


def top(record: Presented, number: int, sort: str | None, type: str | None) -> list[portions.Large]:
    """The slowest or largest layers; see `Presented.top`."""
    values = {"top": number, "type": type, **({} if sort is None else {"sort": sort})}
    names = {"top": "n"}
    view = checked(View, values, lambda name: names.get(name, name))
    content = _one_of(record.presented(), sort)
    every = layers(content, None if sort is None else view.sort)
    return portions.most(every, view.top, view.sort, view.type)


def by_type(record: Presented) -> list[portions.Portion]:
    """What each type has together; see `Presented.by_type`."""
    return portions.by_type(layers(_one_of(record.presented())))


def _one_of(content: Any, sort: str | None = None) -> Any:  # noqa: ANN401 - a record
    """Of a bundle the record that knows most of what is asked for; any other as it is."""
    if not isinstance(content, Bundle):
        return content
    if sort == "memory" and content.memory is not None:
        return content.memory
    return content.any_with_rows() or content
