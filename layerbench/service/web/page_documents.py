"""What the page is given to show, as the bytes that are sent. Loads no torch."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from layerbench.errors import RecordError
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.reporters.html import document

# How many documents are kept as they were sent.
KEPT = 64
# Bytes of them all: a model of ten thousand rows takes some megabytes.
MOST_KEPT = 64 * 2**20


class Documents:
    """The documents that were asked for last, as they were sent."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: object) -> bytes | None:
        """One that is kept."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, key: object, content: bytes) -> None:
        """Keep a document; the least recently used ones are dropped."""
        self._bytes += len(content) - len(self._kept.get(key, b""))
        self._kept[key] = content
        while len(self._kept) > KEPT or (self._bytes > MOST_KEPT and len(self._kept) > 1):
            self._bytes -= len(self._kept.popitem(last=False)[1])

    async def made(self, key: object, make: Callable[[], bytes]) -> bytes:
        """A kept document, or a new one, made in a thread."""
        content = self.get(key)
        if content is None:
            content = await asyncio.to_thread(make)
            self.keep(key, content)
        return content


def of_bundle(bundle: Bundle) -> bytes:
    """The page's document of records, as JSON."""
    return document.of(bundle).model_dump_json().encode()


def of_structure(answer: dict[str, Any]) -> bytes:
    """The document of a structure, from a process's answer.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return of_bundle(Bundle(structure=Structure.model_validate(answer)))


def read_profile(answer: dict[str, Any]) -> Bundle:
    """A profile with its structure and an optional memory report, from a process's answer.

    Raises:
        pydantic.ValidationError, KeyError: they are none.
    """
    memory = answer["memory"]
    return Bundle(
        profile=Profile.model_validate(answer["profile"]),
        structure=Structure.model_validate(answer["structure"]),
        memory=None if memory is None else MemoryReport.model_validate(memory),
    )


def of_profile(answer: dict[str, Any]) -> bytes:
    """The document of what `read_profile` reads.

    Raises:
        RecordError: it cannot be read, as where the store was damaged.
    """
    try:
        return of_bundle(read_profile(answer))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(" ".join(str(error).split())[:200]) from error
