"""What a driver has stored, a line a task, so that another one goes on with what is missing.

A line is written after its files. Where a driver dies between the two, the task runs once more and
its files are replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from layerbench._version import __version__
from layerbench.cluster.columns import Column
from layerbench.errors import OutputError, RecordError
from layerbench.records.kinds import Record
from layerbench.store import reading

Kind = TypeVar("Kind", bound=Record)

NAME = "cluster.jsonl"


def key_of(words: Sequence[str], sent: str, column: Column) -> str:
    """What tells one task from all others.

    Args:
        words: of its command line.
        sent: checksum of all that was sent along.
        column: where it runs.
    """
    where = [column.name, column.slug, column.torch, __version__]
    content = json.dumps([list(words), sent, where])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A task that has ended.

    Attributes:
        key: of `key_of`.
        name, column, node: for people.
        status: exit status of its process.
        files: that hold its record, relative to the journal's folder.
    """

    key: str
    name: str
    column: str
    node: str
    status: int
    files: tuple[str, ...]


class Journal:
    """The journal of a folder.

    Args:
        folder: of the reports; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._read: dict[str, Entry] | None = None

    def read(self) -> dict[str, Entry]:
        """The tasks whose files are all there, by key; a line that is torn is none."""
        if self._folder is None:
            return {}
        try:
            lines = (self._folder / NAME).read_text(errors="replace").splitlines()
        except OSError:
            return {}
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        return {
            entry.key: entry
            for entry in entries
            if all((self._folder / file).is_file() for file in entry.files)
        }

    def record(self, key: str, kind: type[Kind]) -> Kind | None:
        """The stored record of a task; ``None`` where none can be read.

        Args:
            key: of the task.
            kind: of the record, which lies in the first of the task's files.
        """
        if self._read is None:
            # Once: there may be as many questions as lines. What is added later is not asked for.
            self._read = self.read()
        entry = self._read.get(key)
        if entry is None or self._folder is None or not entry.files:
            return None
        try:
            return reading.read(self._folder / entry.files[0], kind)
        except RecordError:
            # Whatever has become of it: what is measured again replaces it.
            return None

    def add(self, entry: Entry) -> None:
        """Write a line, and wait until it lies on the disk.

        Raises:
            OutputError: it cannot be written.
        """
        if self._folder is None:
            return
        line = json.dumps(vars(entry)) + "\n"
        path = self._folder / NAME
        try:
            # A torn line of a driver that died would swallow this one.
            with path.open("ab+") as file:
                whole = file.seek(0, os.SEEK_END) == 0
                if not whole:
                    file.seek(-1, os.SEEK_END)
                    whole = file.read(1) == b"\n"
                file.write(("\n" * (not whole) + line).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _entry(line: str) -> Entry | None:
    try:
        values: Mapping[str, Any] = json.loads(line)
        return Entry(**{**values, "files": tuple(values["files"])})
    except (ValueError, TypeError, KeyError):
        return None
