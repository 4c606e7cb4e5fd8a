"""What the page is given to show, as the bytes that are sent. Loads no torch."""

from __future__ import annotations

from typing import Any

from layerbench.page import document
from layerbench.records import Bundle, MemoryReport, Profile, Structure


def of_bundle(bundle: Bundle) -> bytes:
    """The page's document of records, as JSON."""
    return document.of(bundle).model_dump_json().encode()


def of_structure(found: dict[str, Any]) -> bytes:
    """Of a structure as a process told it.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return of_bundle(Bundle(structure=Structure.model_validate(found)))


def of_profile(found: dict[str, Any]) -> bytes:
    """Of a profile with its structure and, perhaps, its memory report, as a process told them.

    Raises:
        pydantic.ValidationError: they are none.
    """
    memory = found["memory"]
    return of_bundle(
        Bundle(
            profile=Profile.model_validate(found["profile"]),
            structure=Structure.model_validate(found["structure"]),
            memory=None if memory is None else MemoryReport.model_validate(memory),
        )
    )
