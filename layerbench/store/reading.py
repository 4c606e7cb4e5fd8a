"""Records read back and validated. Loads no torch."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from layerbench.errors import RecordError
from layerbench.records.timing import Profile
from layerbench.records.workload import Frozen
from layerbench.store.writing import AnyPath
from layerbench.text import one_line
from layerbench.units import bytes_

if TYPE_CHECKING:
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure

Record = TypeVar("Record")

# Beside a training run's record lies what was asked of it, under this name.
RECIPE = "recipe.json"

MOST_BYTES = 64 * 2**20
"""Of a record's file, which takes some eleven times as much memory: 20,000 rows with all times."""
MOST_VARIABLE = "LAYERBENCH_RECORD_MIB"
"""Of the environment: another limit, in MiB."""

# Characters of a damaged record that a message repeats.
MOST_SAID = 200

# A new kind of record is one more line: the value of its field ``record``, and its class's place in
# `layerbench.records`.
RECORDS: dict[str, str] = {
    "profile": "timing.Profile",
    "structure": "structure.Structure",
    "memory": "memory.MemoryReport",
    "memory estimate": "memory.MemoryEstimate",
    "comparison": "comparison.Comparison",
    "training profile": "training_step.TrainingProfile",
    "training run": "training_run.TrainingRun",
    "training forecast": "training_estimate.TrainingEstimate",
    "sweep": "sweep.Sweep",
    "detection estimates": "detection_estimate.DetectionEstimates",
    "detection run": "detection_run.DetectionRun",
}


def record_class(kind: str) -> type[Frozen]:
    """The class of a kind of record in `RECORDS`."""
    module, _, name = RECORDS[kind].partition(".")
    record: type[Frozen] = getattr(importlib.import_module(f"layerbench.records.{module}"), name)
    return record


# --- reading -----------------------------------------------------------------------------


def read(path: AnyPath) -> Profile:
    """Read and validate a profile.

    Raises:
        RecordError: there is none, or it is damaged; the message names the place.
    """
    record = read_record(path)
    if not isinstance(record, Profile):
        kind = getattr(record, "record", type(record).__name__)
        raise RecordError(f"{path} holds a {kind} record, not a profile")
    return record


def read_record(path: AnyPath) -> Frozen:
    """Read and validate a record of any kind in `RECORDS`.

    Raises:
        RecordError: there is none, or it is damaged; the message names the place.
    """
    path = Path(path)
    data = _file_content(path)
    head = _head(path, data)
    kind = _kind(path, head.record)
    _check_version(path, kind, head.schema_version)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(f"{path} is no valid record: {_first_problem(error)}") from error


def read_all(places: Iterable[AnyPath]) -> list[tuple[Path, Profile]]:
    """All profiles in files and in folders, at any depth, sorted by path, each once.

    In a folder, records of other kinds are passed over; a damaged one is an error.

    Raises:
        RecordError: a place is not there, a file is damaged, or a file named as such is no
            profile.
    """
    found: list[tuple[Path, Profile]] = []
    for place in map(Path, places):
        if not place.is_dir():
            found.append((place, read(place)))
            continue
        read_here = ((path, read_record(path)) for path in _records_in(place))
        found += [(path, record) for path, record in read_here if isinstance(record, Profile)]
    return _each_once(found)


def read_all_kinds(places: Iterable[AnyPath]) -> list[tuple[Path, Frozen]]:
    """All records of any kind in files and in folders, as `read_all`.

    Raises:
        RecordError: a place is not there, or a file is damaged.
    """
    found: list[tuple[Path, Frozen]] = []
    for place in map(Path, places):
        paths = _records_in(place) if place.is_dir() else [place]
        found += [(path, read_record(path)) for path in paths]
    return _each_once(found)


def _records_in(folder: Path) -> Iterator[Path]:
    """A record's name holds one dot; exports such as ``X.trace.json`` hold two.

    What a training run was asked is not a record of what it did.
    """
    return (
        path
        for path in folder.rglob("*.json")
        if path.name.count(".") == 1 and path.name != RECIPE and path.is_file()
    )


def _each_once(found: list[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    ordered = sorted(dict(found).items())
    by_file = {path.resolve(): (path, record) for path, record in reversed(ordered)}
    return list(reversed(by_file.values()))


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
    """What says how the rest of a record is to be read."""

    record: Any = None
    schema_version: Any = None


def _head(path: Path, data: bytes) -> _Head:
    try:
        return _Head.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] != "json_invalid":
            raise RecordError(f"{path} is JSON, but no layerbench record") from None
        raise RecordError(f"{path} {_wrong_json(data, problem['msg'])}") from error


def _wrong_json(data: bytes, message: str) -> str:
    """In the words of Python's reader, which says where; but for what it would accept."""
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


def _kind(path: Path, name: object) -> type[Frozen]:
    if not isinstance(name, str):
        raise RecordError(f"{path} is JSON, but no layerbench record")
    if name not in RECORDS:
        raise RecordError(
            f"{path} holds an unknown kind of record, {one_line(repr(name), MOST_SAID)}; "
            f"this layerbench reads {', '.join(RECORDS)}"
        )
    return record_class(name)


def _check_version(path: Path, kind: type[Frozen], version: object) -> None:
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
    """``structure`` or ``memory``; ``None`` where there is no file, or one of something else."""
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
