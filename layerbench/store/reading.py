"""Records read back and validated. Loads no torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, overload

from pydantic import BaseModel, ValidationError

from layerbench.errors import RecordError
from layerbench.records import kinds
from layerbench.records.kinds import Record
from layerbench.store.writing import AnyPath
from layerbench.text import one_line
from layerbench.units import bytes_

if TYPE_CHECKING:
    from layerbench.records.bundle import Bundle
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.timing import Profile

Kind = TypeVar("Kind", bound=Record)

# Beside a training run's record lies what was asked of it, under this name.
RECIPE = "recipe.json"

MOST_BYTES = 64 * 2**20
"""Of a record's file, which takes some eleven times as much memory: 20,000 rows with all times."""
MOST_VARIABLE = "LAYERBENCH_RECORD_MIB"
"""Of the environment: another limit, in MiB."""

# Characters of a damaged record that a message repeats.
MOST_SAID = 200
_GZIP = b"\x1f\x8b"
_TRACE = b'"traceEvents"'

# --- reading -----------------------------------------------------------------------------


@overload
def read(path: AnyPath) -> Any: ...  # noqa: ANN401 - what the file holds is not known before
@overload
def read(path: AnyPath, kind: type[Kind]) -> Kind: ...
def read(path: AnyPath, kind: type[Record] = Record) -> Any:
    """Read and validate a record.

    Args:
        path: of its file.
        kind: class of the record, such as `layerbench.Profile`; left out, it may be any.

    Raises:
        RecordError: there is none, it is damaged, or of another kind; the message names the place.
    """
    path = Path(path)
    data = _file_content(path)
    head = _head(path, data)
    held = _kind(path, head.record, data)
    if not issubclass(held, kind):
        raise RecordError(f"{path} holds a {held.kind()} record, not a {kind.kind()}")
    _check_version(path, held, head.schema_version)
    try:
        return held.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(f"{path} is not a valid record: {_first_problem(error)}") from error


def with_times(path: AnyPath) -> Profile | Bundle:
    """Read and validate a profile, or a bundle that holds one.

    Raises:
        RecordError: as `read`, or it holds no times.
    """
    record = read(path)
    check_times(path, record)
    return cast("Profile | Bundle", record)


def check_times(path: AnyPath, record: Record) -> None:
    """Refuse a record that is no profile, and no bundle that holds one.

    Raises:
        RecordError: names the file.
    """
    from layerbench.records.bundle import times_in

    if times_in(record) is None:
        raise RecordError(f"{path} holds a {record.record} record, not a profile")


def read_all(places: Iterable[AnyPath]) -> list[tuple[Path, Record]]:
    """All records in files and in folders, at any depth, sorted by path, each once.

    Raises:
        RecordError: a place is not there, or a file is damaged.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        paths += _records_in(place) if place.is_dir() else [place]
    records = {path: read(path) for path in sorted(set(paths))}
    # A file with several names goes by the first of them.
    by_file = {path.resolve(): path for path in reversed(records)}
    return [(path, records[path]) for path in reversed(by_file.values())]


def _records_in(folder: Path) -> Iterator[Path]:
    return (
        path for path in folder.rglob("*.json") if is_named_as_record(path.name) and path.is_file()
    )


def is_named_as_record(name: str) -> bool:
    """Whether a file in a folder is one: exports such as ``X.trace.json`` hold two dots.

    What a training run was asked is not a record of what it did.
    """
    return name.endswith(".json") and name.count(".") == 1 and name != RECIPE


def _file_content(path: Path) -> bytes:
    """What a file holds, up to the limit."""
    most = _most_bytes()
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise RecordError(f"there is no record {path}") from None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL
        raise RecordError(f"cannot read {path}: {error}") from error
    if len(data) > most:
        raise RecordError(
            f"{path} is larger than a record may be, {bytes_(most)}; a number of MiB in "
            f"{MOST_VARIABLE} lets larger ones be read"
        )
    return data


def _most_bytes() -> int:
    said = os.environ.get(MOST_VARIABLE, "")
    if not said:
        return MOST_BYTES
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 8):
        raise RecordError(f"{MOST_VARIABLE} holds a number of MiB, not {one_line(said, MOST_SAID)}")
    return int(said) * 2**20


class _Head(BaseModel):
    """The head of a record, which determines how the rest is read."""

    record: Any = None
    schema_version: Any = None


def _head(path: Path, data: bytes) -> _Head:
    try:
        return _Head.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] != "json_invalid":
            raise _no_record(path, data) from None
        raise RecordError(f"{path} {_wrong_json(data, problem['msg'])}") from error


def _no_record(path: Path, data: bytes) -> RecordError:
    if _TRACE in data:
        return RecordError(
            f"{path} is a trace, no record: python -m layerbench report --from-trace {path}"
        )
    return RecordError(f"{path} is JSON, but no layerbench record")


def _wrong_json(data: bytes, message: str) -> str:
    """In the words of Python's reader, which says where; but for what it would accept."""
    if data.startswith(_GZIP):
        return "is compressed, and no record; of a trace: python -m layerbench report --from-trace"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not JSON: byte {error.start} is not UTF-8 text"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        ends_early = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        what = "is cut short" if ends_early else "is not JSON"
        return f"{what}: {error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        message = str(error)
    return f"is not JSON that can be read: {one_line(message, MOST_SAID)}"


def _kind(path: Path, name: object, data: bytes) -> type[Record]:
    if not isinstance(name, str):
        raise _no_record(path, data)
    try:
        return kinds.named(name)
    except KeyError:
        raise RecordError(
            f"{path} holds an unknown kind of record, {one_line(repr(name), MOST_SAID)}; "
            f"this layerbench reads {', '.join(kinds.names())}"
        ) from None


def _check_version(path: Path, kind: type[Record], version: object) -> None:
    readable = get_args(kind.model_fields["schema_version"].annotation)
    if version not in readable:
        raise RecordError(
            f"{path} has schema_version {one_line(repr(version), MOST_SAID)}; this layerbench "
            f"reads {', '.join(map(str, readable))}: measure again, or use the version that wrote "
            "it"
        )


def _first_problem(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    place = one_line(".".join(map(str, first["loc"])), MOST_SAID) or "the record"
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {one_line(first['msg'].removeprefix('Value error, '), MOST_SAID)}{more}"


# --- where a record lies -----------------------------------------------------------------


def apart(path: AnyPath, record: Structure | MemoryReport | MemoryEstimate) -> Path:
    """The path from `place`, or one beside it where a report of another kind lies already.

    A structure and a measured memory of one workload would else have one name.
    """
    path, ours = Path(path), record.record == "structure"
    for ending in _SAY_THEIR_KIND:
        kind = _kind_of(path.with_name(f"{path.name}{ending}"))
        if kind is not None and (kind == "structure") != ours:
            return path.with_name(f"{path.name}_{'structure' if ours else 'memory'}")
    return path


_SAY_THEIR_KIND = (".json", ".txt", ".md", ".csv")
# Of a record, or at the end of a title.
_KIND = re.compile(r'(?:"record": ?"|: )(structure|memory)\b')


def _kind_of(file: Path) -> str | None:
    """``structure`` or ``memory``; ``None`` if there is no file, or a file of another kind."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            start = text.read(4096)
    except OSError:
        return None
    if file.suffix == ".csv":
        header = start.partition("\n")[0].split(",")
        return "structure" if "flops" in header else "memory" if "allocated" in header else None
    match = _KIND.search(start)
    return None if match is None else match[1]
