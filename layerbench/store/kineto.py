"""Traces of torch.profiler, read piece by piece: a file of any size takes little memory.

A trace is Chrome's JSON: an object with a list ``traceEvents``, or that list alone, compressed by
gzip or not. A piece ends where one event ends and another begins. Whether it truly does is for the
JSON parser to say: text that ends within a string or a list never parses.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from pydantic_core import from_json

from layerbench.errors import RecordError
from layerbench.records.bounds import MOST_NAME
from layerbench.records.trace_events import (
    FRAME,
    KERNEL,
    LAUNCH,
    NONE,
    OPERATOR,
    RANGE,
    Integers,
    TraceEvents,
)
from layerbench.store.writing import AnyPath
from layerbench.text import one_line, shortened
from layerbench.units import bytes_

MODULE = "nn.Module: "
"""What the names of Python calls begin with that are calls of a module."""

PIECE_BYTES = 2**17
"""What is read and parsed at a time: its values fit into a core's caches."""
MOST_PIECE_BYTES = 64 * 2**20
"""Of what stands between two ends of events, or before the first one."""

MOST_EVENTS = 2**25
"""Of a trace: they take 2 GiB, and minutes."""
MOST_NAMES = 100_000
"""Different ones; others become `OTHER_NAMES`."""
OTHER_NAMES = "(other names)"

# By what PyTorch calls them, from 1.8 on, in small letters.
CATEGORIES = {
    "cpu_op": OPERATOR,
    "operator": OPERATOR,
    "python_function": FRAME,
    "pythonfunction": FRAME,
    "user_annotation": RANGE,
    "kernel": KERNEL,
    "concurrent_kernel": KERNEL,
    "gpu_memcpy": KERNEL,
    "memcpy": KERNEL,
    "gpu_memset": KERNEL,
    "memset": KERNEL,
    "runtime": LAUNCH,
}
_LAUNCHES = ("_runtime", "_driver")

_ENDINGS = (".json", ".json.gz")
_GZIP = b"\x1f\x8b"
# What the first bytes of a file say that is no JSON yet, and what to do.
_TO_UNPACK = {
    _GZIP: "is compressed by gzip twice: unpack it once",
    b"PK\x03\x04": "is compressed by zip: unpack it",
    b"\xfd7zXZ": "is compressed by xz: unpack it",
    b"BZh": "is compressed by bzip2: unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it",
    b"\xff\xfe": "is text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16: save it as UTF-8",
}
_MARK = b"\xef\xbb\xbf"
_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
# Where the last end of an event is looked for first.
_NEAR_END = 2**13
_PLACE = re.compile(r" at line (\d+) column (\d+)$")
_ENDS_EARLY = "EOF while parsing"
# Of one event, and of the times that a file may say, so that sums of them stay finite.
_MOST_MICROSECONDS = 1e11
_MOST_TIME = 9e15
_MOST_SAID = 200
_RECORD = "export one by prof.export_chrome_trace"


def read(path: AnyPath) -> TraceEvents:
    """Read a trace of torch.profiler.

    Raises:
        RecordError: there is none, it is damaged, or of another program; the message says what to
            do.
    """
    path = Path(path)
    columns = _Columns()
    try:
        with path.open("rb") as file:
            pieces = _Pieces(path, _unpacked(file))
            for events in pieces:
                columns.add(events)
                if columns.total > MOST_EVENTS:
                    raise RecordError(
                        f"{path} has more than {MOST_EVENTS} events, too many to read: record "
                        "fewer steps, or without with_stack"
                    )
    except FileNotFoundError:
        raise RecordError(f"there is no trace {path}") from None
    except IsADirectoryError:
        raise RecordError(f"{path} is a folder: {_to_name_in(path)}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(
            f"{path} is cut short or damaged: its gzip data cannot be unpacked "
            f"({one_line(error, _MOST_SAID)}); copy it again, or {_RECORD}"
        ) from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL
        raise RecordError(f"cannot read {path}: {error}") from error
    _check_origin(path, columns, pieces.header)
    return columns.made(pieces.header)


def _to_name_in(folder: Path) -> str:
    """What to name of a folder: `tensorboard_trace_handler` writes into one."""
    there = sorted(one for ending in _ENDINGS for one in folder.glob(f"*{ending}"))
    return f"name one trace in it, such as {there[-1]}" if there else "name a trace"


def _unpacked(file: BinaryIO) -> BinaryIO:
    is_packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_packed else file


class _Pieces:
    """The lists of events in a file, one after the other.

    Attributes:
        header: what else the file says; whole when all events are read.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.header: dict[str, Any] = {}
        self._path = path
        self._file = file
        self._rest = b""
        self._lines = 0  # before the rest
        self._opening = b"["  # of what is left

    def __iter__(self) -> Iterator[list[Any]]:
        self._begin()
        wanted = PIECE_BYTES
        while self._grow(wanted):
            events = self._complete()
            if events is None:
                wanted = 2 * len(self._rest)
                self._check_size("no event ends")
                continue
            wanted = PIECE_BYTES
            yield events
        yield self._end()

    def _grow(self, wanted: int) -> bool:
        """Have so many bytes; whether there were so many."""
        parts, size = [self._rest], len(self._rest)
        while size < wanted:
            part = self._file.read(PIECE_BYTES)
            if not part:
                break
            parts.append(part)
            size += len(part)
        self._rest = b"".join(parts)
        return size >= wanted

    def _check_size(self, what: str) -> None:
        if len(self._rest) > MOST_PIECE_BYTES:
            raise RecordError(
                f"{self._path} is no trace of torch.profiler: {what} in "
                f"{bytes_(MOST_PIECE_BYTES)}; {_RECORD}"
            )

    def _begin(self) -> None:
        """Read up to the first event."""
        more = self._grow(PIECE_BYTES)
        for beginning, to_do in _TO_UNPACK.items():
            if self._rest.startswith(beginning):
                raise RecordError(f"{self._path} {to_do}, or {_RECORD}")
        self._rest = self._rest.removeprefix(_MARK)
        text = self._rest.lstrip()
        if not text:
            raise RecordError(f"{self._path} is empty: {_RECORD}")
        if text.startswith(b"["):
            self._skip(len(self._rest) - len(text) + 1)
            return
        while True:
            for found in _EVENTS.finditer(self._rest):
                said = self._parsed(self._rest[: found.end()] + b"]}", early=True)
                if said is not None:
                    self.header = said
                    self._skip(found.end())
                    self._opening = b'{"traceEvents":['
                    return
            if not more:
                break
            more = self._grow(2 * len(self._rest))
            self._check_size("no list of events begins")
        self._refuse_other(self._parsed(self._rest))

    def _refuse_other(self, said: object) -> None:
        """A file that is JSON and holds no events."""
        if isinstance(said, dict) and "record" in said and "schema_version" in said:
            raise RecordError(
                f"{self._path} is a layerbench record, not a trace: leave --from-trace out"
            )
        raise RecordError(f"{self._path} is JSON without traceEvents, no trace: {_RECORD}")

    def _complete(self) -> list[Any] | None:
        """The events that are there as a whole; ``None`` if there is no end of any."""
        end = None
        for start in (max(0, len(self._rest) - _NEAR_END), 0):
            for found in _BETWEEN.finditer(self._rest, start):
                end = found
            if end is not None:
                break
        if end is None:
            return None
        complete = b"[" + self._rest[: end.start() + 1] + b"]"
        events: list[Any] | None = self._parsed(complete, early=True)
        if events is not None:
            self._skip(self._rest.index(b",", end.start()) + 1)
        return events

    def _end(self) -> list[Any]:
        """The last events, and what the file says after them."""
        if self._opening == b"[":
            # Chrome's own rules let the bracket at the end be left out.
            open_ended: list[Any] | None = self._parsed(b"[" + self._rest, early=True)
            if open_ended is None:
                try:
                    open_ended = from_json(b"[" + self._rest + b"]")
                except ValueError:
                    raise self._cut_short() from None
            return open_ended or []
        said = self._parsed(self._opening + self._rest)
        events = said.pop("traceEvents")
        self.header |= said
        return events if isinstance(events, list) else []

    def _skip(self, number: int) -> None:
        self._lines += self._rest.count(b"\n", 0, number)
        self._rest = self._rest[number:]

    def _parsed(self, text: bytes, *, early: bool = False) -> Any:  # noqa: ANN401 - JSON
        """The values of JSON.

        Args:
            text: begins where the rest of the file does, but for a bracket.
            early: whether it may end early, and is ``None`` then.
        """
        try:
            return from_json(text)
        except ValueError as error:
            message = one_line(error, _MOST_SAID)
        ends_early = message.startswith(_ENDS_EARLY)
        if ends_early and early:
            return None
        if ends_early:
            raise self._cut_short()
        place = _PLACE.search(message)
        if place is not None:
            line = self._lines + int(place[1])
            message = f"{message[: place.start()]} at line {line}"
        raise RecordError(f"{self._path} is not JSON: {message}; {_RECORD}")

    def _cut_short(self) -> RecordError:
        return RecordError(f"{self._path} is cut short: copy it again, or {_RECORD}")


class _Columns:
    """Columns that grow event by event."""

    def __init__(self) -> None:
        self._labels: dict[tuple[int, str], int] = {}
        self._threads: dict[tuple[object, object], int] = {}
        self._columns = [array("q") for _ in range(8)]
        self.total = self.frames = self.broken = 0
        self.categories: Counter[str] = Counter()
        self._kinds: dict[str, int | None] = {}

    def add(self, events: list[Any]) -> None:
        """Take the events that have a length."""
        labels, threads, categories = self._labels, self._threads, self.categories
        kinds = self._kinds
        label, thread, starts, durations, *more = (one.append for one in self._columns)
        externals, correlations, sequences, forward_threads = more
        self.total += len(events)
        for event in events:
            if type(event) is not dict:
                self.broken += 1
                continue
            get = event.get
            category = get("cat")
            if get("ph") != "X" or type(category) is not str:
                continue
            categories[category] += 1
            if category not in kinds:
                kinds[category] = kind_of(category)
            kind = kinds[category]
            if kind is None:
                continue
            name = get("name")
            if type(name) is not str:
                self.broken += 1
                continue
            if kind == FRAME and not name.startswith(MODULE):
                self.frames += 1
                continue
            times = _times(get("ts"), get("dur"))
            if times is None:
                self.broken += 1
                continue
            args = get("args")
            said = args.get if type(args) is dict else _nothing
            place = (_hashable(get("pid")), _hashable(get("tid")))
            number = labels.get((kind, name))
            label(self._new_label(kind, name) if number is None else number)
            thread(threads.setdefault(place, len(threads)))
            starts(times[0])
            durations(times[1])
            externals(_number(said("External id", said("external id"))))
            correlations(_number(said("correlation")))
            sequences(_number(said("Sequence number")))
            forward_threads(_number(said("Fwd thread id")))

    @property
    def kept(self) -> int:
        """Events in the columns."""
        return len(self._columns[0])

    def _new_label(self, kind: int, name: str) -> int:
        """The number of a name that was not seen before, or not as it can be kept."""
        key = (kind, shortened(name, MOST_NAME))
        if key not in self._labels and len(self._labels) >= MOST_NAMES:
            key = (kind, OTHER_NAMES)
        return self._labels.setdefault(key, len(self._labels))

    def made(self, header: dict[str, Any]) -> TraceEvents:
        """The columns as they are now."""
        label, thread, start, duration, *numbers = map(_as_array, self._columns)
        external, correlation, sequence, forward_thread = numbers
        return TraceEvents(
            labels=tuple(self._labels),
            threads=len(self._threads),
            label=label,
            thread=thread,
            start_ns=start,
            duration_ns=duration,
            external=external,
            correlation=correlation,
            sequence=sequence,
            forward_thread=forward_thread,
            total=self.total,
            frames=self.frames,
            broken=self.broken,
            categories=dict(self.categories),
            header=header,
        )


def kind_of(category: str) -> int | None:
    """Which of the kinds events of a category are; ``None`` for what says nothing of times."""
    small = category.lower()
    if small in CATEGORIES:
        return CATEGORIES[small]
    return LAUNCH if small.endswith(_LAUNCHES) else None


def _as_array(column: array[int]) -> Integers:
    return np.frombuffer(column, dtype=np.int64) if column else np.zeros(0, np.int64)


def _nothing(_: str, default: object = None) -> object:
    return default


def _hashable(value: object) -> object:
    return value if isinstance(value, str | int | float) else repr(value)


def _number(value: object) -> int:
    """A number of an event; `NONE` without one."""
    return value if type(value) is int and 0 <= value < 2**63 else NONE


def _times(start: object, duration: object) -> tuple[int, int] | None:
    """Start and duration in nanoseconds; ``None`` where they are no times."""
    if not isinstance(start, int | float) or not isinstance(duration, int | float):
        return None
    # What is no number is in no interval.
    if not (abs(start) < _MOST_TIME and 0 <= duration < _MOST_MICROSECONDS):
        return None
    return round(start * 1000), round(duration * 1000)


def _check_origin(path: Path, columns: _Columns, header: dict[str, Any]) -> None:
    """Refuse traces of other programs.

    Raises:
        RecordError: says which they are, as far as that can be told.
    """
    other = header.get("otherData")
    if isinstance(other, dict) and "layerbench" in other:
        raise RecordError(
            f"{path} is layerbench's own trace of one representative run: give the record that it "
            "was exported from, python -m layerbench report X.json"
        )
    if not columns.total:
        raise RecordError(f"{path} holds no events: {_RECORD} after the profiler has stopped")
    if columns.kept:
        return
    if any(kind_of(category) is not None for category in columns.categories):
        raise RecordError(
            f"{path} has no operator, module, range or kernel whose times can be read: {_RECORD} "
            "of whole steps"
        )
    names = ", ".join(name for name, _ in columns.categories.most_common(3))
    held = f" (they are {one_line(names, _MOST_SAID)})" if names else ""
    raise RecordError(
        f"{path} is no trace of torch.profiler: none of its {columns.total} events is an operator, "
        f"a range or a kernel{held}; {_RECORD}"
    )
