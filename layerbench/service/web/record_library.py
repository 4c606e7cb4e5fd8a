"""Records in files and folders, as the process that reads them finds them. Loads no torch.

Only regular files are looked at, and in a folder only those that lie in it: a pipe, a device, or a
link that leads out of it is passed over. Who asks names a record by a number that is made of its
place, never by the place itself.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbench.analysis.bundle import joined
from layerbench.analysis.comparison import compare
from layerbench.errors import RecordError
from layerbench.records.bundle import Bundle, times_in
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record
from layerbench.records.timing import Profile
from layerbench.reporters.html.document import bundled
from layerbench.service.web.answers import RecordAnswer
from layerbench.service.web.page_documents import of_bundle
from layerbench.store import reading
from layerbench.text import visible
from layerbench.units import bytes_

ID_DIGITS = 16
# Files that are listed; a folder of more is not one of records.
MOST_FILES = 10_000
# Folders within folders.
MOST_DEEP = 32

State = tuple[int, ...]
"""What changes where a file does: its number, size and date."""


class Unknown(Exception):
    """There is no record of this number."""


@dataclass(frozen=True)
class Place:
    """A file, what it is shown as, and the state that it was seen in."""

    file: Path
    shown: str
    state: State

    @property
    def id(self) -> str:
        """A number that says nothing of the place."""
        return hashlib.sha256(os.fsencode(self.file)).hexdigest()[:ID_DIGITS]


class RecordLibrary:
    """Records in these files and folders.

    Args:
        named: files, and folders that are looked through at any depth.
        most: bytes of a file.
    """

    def __init__(self, named: Sequence[Path], most: int) -> None:
        self._named = named
        self._most = most
        self._places: dict[str, Place] = {}

    def listed(self) -> list[Place]:
        """Every file once, as it was first named."""
        places: dict[str, Place] = {}
        for place in _places(self._named):
            places.setdefault(place.id, place)
            if len(places) == MOST_FILES:
                break
        self._places = places
        return list(places.values())

    def place(self, id: str) -> Place:
        """The file of a number, as it is now.

        Raises:
            Unknown: there is none.
        """
        place = self._places.get(id)
        if place is None or _state(place.file) != place.state:
            self.listed()
        if id not in self._places:
            raise Unknown
        return self._places[id]

    def described(self, id: str) -> RecordAnswer | None:
        """What is said of a file; nothing of a record that the page has no picture for.

        Raises:
            Unknown: there is none of this number.
        """
        place = self.place(id)
        try:
            record = self._read(place)
        except RecordError as error:
            return RecordAnswer(id=id, path=place.shown, problem=str(error))
        bundle = bundled(record)
        return None if bundle is None else _described(place, record, bundle)

    def document(self, id: str) -> bytes:
        """A record as the page takes it.

        Raises:
            Unknown: there is none of this number.
            RecordError: it cannot be read.
            ComparisonError: the page has no picture for such a kind.
        """
        place = self.place(id)
        return of_bundle(joined([(place.shown, self._read(place))]))

    def comparison(self, baseline: str, contender: str) -> bytes:
        """Two profiles beside each other, as the page takes them.

        Raises:
            Unknown: there is no record of such a number.
            RecordError: one cannot be read, or is no profile.
            ComparisonError: they are not of the same work.
        """
        (first, before), (second, after) = (self._profile(id) for id in (baseline, contender))
        comparison = compare(before, after, names=(first, second))
        return of_bundle(Bundle(comparison=comparison, profile=after, baseline=before))

    def _profile(self, id: str) -> tuple[str, Profile]:
        place = self.place(id)
        times = times_in(self._read(place))
        if times is None:
            raise RecordError(f"{place.shown} is not a profile: only profiles can be compared")
        return place.shown, times

    def _read(self, place: Place) -> Record:
        """A record.

        Raises:
            RecordError: it cannot be read; the message names it as it is shown.
        """
        _, size, _ = place.state
        if size > self._most:
            raise RecordError(
                f"{place.shown} has {bytes_(size)}: records of up to {bytes_(self._most)} are read"
            )
        try:
            return reading.read(place.file, Record)
        except RecordError as error:
            raise RecordError(str(error).replace(str(place.file), place.shown)) from error


def _places(named: Sequence[Path]) -> Iterator[Place]:
    for place in named:
        whole = place.resolve()
        if not whole.is_dir():
            # Named by whoever started the server, wherever a link leads.
            state = _state(whole)
            if state is not None:
                yield Place(whole, visible(place.name), state)
            continue
        for folder, folders, files in os.walk(whole):
            deep = len(Path(folder).parts) - len(whole.parts)
            folders[:] = sorted(folders) if deep < MOST_DEEP else []
            for name in sorted(files):
                if reading.is_named_as_record(name):
                    yield from _within(whole, Path(folder, name))


def _within(whole: Path, file: Path) -> Iterator[Place]:
    """A file, if it is a regular one of a folder."""
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError):
        # It has gone, or is a link that leads nowhere or to itself.
        return
    state = _state(real)
    if state is not None and real.is_relative_to(whole):
        yield Place(real, visible(str(whole.name / file.relative_to(whole))), state)


def _state(file: Path) -> State | None:
    """Of a regular file; nothing of what could hang or never end."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _described(place: Place, record: Record, bundle: Bundle) -> RecordAnswer:
    one: Any = bundle.any_with_rows() or record
    ran = getattr(one, "contender", one)
    environment: Environment | None = getattr(ran, "environment", None)
    rows = one.layers if isinstance(one, Profile) else getattr(one, "rows", ())
    return RecordAnswer(
        id=place.id,
        path=place.shown,
        kind=record.record,
        model=visible(ran.workload.model),
        input=visible(ran.workload.input),
        device=None if environment is None else environment.device.slug,
        measured_at=None if environment is None else environment.started,
        layers=len(rows),
    )
