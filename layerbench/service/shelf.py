"""Records in files and folders, read when they are asked for. Loads no torch.

Who asks names a record by a number that is made of its place, never by the place itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from layerbench import store
from layerbench.comparison import compare
from layerbench.errors import RecordError
from layerbench.joining import joined
from layerbench.records import (
    Bundle,
    Comparison,
    MemoryEstimate,
    MemoryReport,
    Profile,
    Structure,
    TrainingProfile,
)
from layerbench.service.documents import of_bundle
from layerbench.workload import Frozen

ID_DIGITS = 16

Viewable = Profile | Structure | MemoryReport | MemoryEstimate | TrainingProfile | Comparison


class Unknown(Exception):
    """There is no record of this number."""


class RecordAnswer(BaseModel):
    """A record that may be looked at.

    Attributes:
        id: its number.
        path: of its file, from the folder that was named on.
        kind: what it records; ``None`` where it cannot be read.
        model, input: what ran.
        device: that it was measured on; ``None`` for what is no measurement.
        measured_at: when that began.
        layers: rows.
        problem: why it cannot be read.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    path: str
    kind: str | None = None
    model: str | None = None
    input: str | None = None
    device: str | None = None
    measured_at: str | None = None
    layers: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class _Place:
    """A file, and what it is shown as."""

    file: Path
    shown: str

    @property
    def id(self) -> str:
        """A number that says nothing of the place."""
        return hashlib.sha256(str(self.file.resolve()).encode()).hexdigest()[:ID_DIGITS]


class Shelf:
    """Records in these files and folders. Used from several threads.

    Args:
        places: files, and folders that are looked through at any depth.
    """

    def __init__(self, places: tuple[Path, ...]) -> None:
        self._places = places
        self._known: dict[str, tuple[tuple[int, int], RecordAnswer | None]] = {}
        self._reading = threading.Lock()

    def entries(self) -> list[RecordAnswer]:
        """All records that may be looked at, by path; one that cannot be read says why."""
        with self._reading:
            found = [self._entry(place) for place in self._found().values()]
        return sorted((entry for entry in found if entry is not None), key=lambda one: one.path)

    def document(self, id: str) -> bytes:
        """A record as the page takes it.

        Raises:
            Unknown: there is none of this number.
            RecordError: it cannot be read.
            ComparisonError: the page has no picture for such a kind.
        """
        place, record = self._read(id)
        return of_bundle(joined([(place.shown, record)]))

    def comparison(self, baseline: str, contender: str) -> bytes:
        """Two profiles beside each other, as the page takes them.

        Raises:
            Unknown: there is no record of such a number.
            RecordError: one cannot be read, or is no profile.
            ComparisonError: they are not of the same work.
        """
        (first, before), (second, after) = (self._profile(id) for id in (baseline, contender))
        found = compare(before, after, names=(first, second))
        return of_bundle(Bundle(comparison=found, profile=after, baseline=before))

    def _profile(self, id: str) -> tuple[str, Profile]:
        place, record = self._read(id)
        if not isinstance(record, Profile):
            raise RecordError(f"{place.shown} is no profile: only profiles are compared")
        return place.shown, record

    def _read(self, id: str) -> tuple[_Place, Frozen]:
        place = self._found().get(id)
        if place is None:
            raise Unknown
        return place, _read(place)

    def _found(self) -> dict[str, _Place]:
        """Every file once, by its number, as it was first named."""
        found: dict[str, _Place] = {}
        for place in _places(self._places):
            found.setdefault(place.id, place)
        return found

    def _entry(self, place: _Place) -> RecordAnswer | None:
        try:
            status = place.file.stat()
        except OSError:
            # It has gone since the folder was looked through.
            return None
        state = (status.st_mtime_ns, status.st_size)
        known = self._known.get(place.id)
        if known is None or known[0] != state:
            known = self._known[place.id] = (state, _told(place))
        return known[1]


def _places(named: tuple[Path, ...]) -> Iterator[_Place]:
    for place in named:
        whole = place.resolve()
        if not whole.is_dir():
            yield _Place(whole, place.name)
            continue
        for file in whole.rglob("*.json"):
            # As `layerbench.store` tells records from exports.
            if file.name.count(".") == 1 and file.name != store.RECIPE:
                yield _Place(file, str(whole.name / file.relative_to(whole)))


def _read(place: _Place) -> Frozen:
    """A record.

    Raises:
        RecordError: it cannot be read; the message names it as it is shown.
    """
    try:
        return store.read_record(place.file)
    except RecordError as error:
        raise RecordError(str(error).replace(str(place.file), place.shown)) from error


def _told(place: _Place) -> RecordAnswer | None:
    """What is said of a file; nothing of a record that the page has no picture for."""
    try:
        record = _read(place)
    except RecordError as error:
        return RecordAnswer(id=place.id, path=place.shown, problem=str(error))
    if not isinstance(record, Viewable):
        return None
    return _described(place, record)


def _described(place: _Place, record: Viewable) -> RecordAnswer:
    ran = record.contender if isinstance(record, Comparison) else record
    environment = getattr(ran, "environment", None)
    rows = record.layers if isinstance(record, Profile) else record.rows
    return RecordAnswer(
        id=place.id,
        path=place.shown,
        kind=record.record,
        model=ran.workload.model,
        input=ran.workload.input,
        device=None if environment is None else environment.device.slug,
        measured_at=None if environment is None else environment.started,
        layers=len(rows),
    )
