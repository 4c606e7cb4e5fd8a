"""Reads records: ``python -m layerbench.service.web.record_reader``. Loads no torch.

A record may come from anybody. What reading it does to this process, the server outlives: it
limits its memory and its time, and begins another one.

One JSON object comes in first, with the places and the limits; then one for each question.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from layerbench.errors import ComparisonError, RecordError
from layerbench.service.protocol.confinement import NICE, end_first, limit_memory
from layerbench.service.protocol.pipe import PipeWriter
from layerbench.service.web.record_library import RecordLibrary, Unknown
from layerbench.service.web.resident_process import BYTES, UNKNOWN


def main() -> None:
    """Answer questions about records, one after the other, for as long as the server asks."""
    pipe = PipeWriter(os.dup(1))
    # Libraries print what they like, but not into the answer.
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    end_first()
    limit_memory(first["memory_bytes"])
    os.nice(NICE)
    folders = RecordLibrary([Path(place) for place in first["places"]], first["most_bytes"])
    pipe.send({"found": {}})
    for line in sys.stdin:
        pipe.send(*_answered(folders, json.loads(line)))


def _answered(folders: RecordLibrary, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        answer, document = _answer_to(folders, question)
    except Unknown:
        return {"found": {UNKNOWN: True}}, b""
    except (RecordError, ComparisonError) as error:
        return {"error": str(error)}, b""
    except (MemoryError, RecursionError):
        return {"error": "the record cannot be read: it takes too much memory"}, b""
    if document is not None:
        answer = {BYTES: len(document)}
    return {"found": answer}, document or b""


def _answer_to(
    folders: RecordLibrary, question: dict[str, Any]
) -> tuple[dict[str, Any], bytes | None]:
    """What was asked, and a document's bytes if it was one."""
    what, ids = question["what"], question["ids"]
    if what == "list":
        return {"files": [[one.id, one.shown, one.state] for one in folders.listed()]}, None
    if what == "states":
        places = [folders.place(id) for id in ids]
        return {"states": [[one.shown, one.state] for one in places]}, None
    if what == "describe":
        described = folders.described(*ids)
        return {"record": None if described is None else described.model_dump(mode="json")}, None
    if what == "document":
        return {}, folders.document(*ids)
    return {}, folders.comparison(*ids)


if __name__ == "__main__":
    main()
