"""What jobs find: in which form, of which software, and whether it is kept. Loads no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ValidationError

from layerbench._version import __version__
from layerbench.analysis import disturbance
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.service.protocol.questions import ProfileQuestion, Question
from layerbench.service.protocol.results import MeasurementResult, unsteadiness
from layerbench.service.web.page_documents import read_profile
from layerbench.service.web.tables import Result
from layerbench.service.web.worker_process import ChildFailed

# In what is stored: why it is no answer to the next one who asks.
UNSTEADY = "unsteady"
PACKAGES = ("torch", "torchvision", "timm", "transformers")
# What is found for each kind of question.
FORMS: dict[str, tuple[type[BaseModel], ...]] = {
    Question.what: (MeasurementResult,),
    ProfileQuestion.what: (Profile, Structure, MemoryReport),
}
# Forms by the names under which stores have them from when descriptions were a part of the form.
NAMED_BEFORE = {"798f5641": "db00bc0d", "8a29df3a": "25e210b2"}


def answers_next(result: Result | None) -> Result | None:
    """What is stored, if it is an answer to the next one who asks."""
    return None if result is None or result.found.get(UNSTEADY) else result


def checked(what: str, answer: dict[str, Any]) -> str:
    """Look whether what a process found can be read again; why it is not to be kept, if so.

    Raises:
        ChildFailed: it cannot be read.
    """
    try:
        if what == Question.what:
            return unsteadiness(MeasurementResult.model_validate(answer))
        profile = read_profile(answer).profile
        return "" if profile is None else disturbance.too_busy(profile)
    except (ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ChildFailed("died", f"the measuring process found what is no result: {reason}") from (
            error
        )


def versions(*kinds: type[BaseModel]) -> Mapping[str, str]:
    """Of the software that a result depends on, and of the form in which it is found."""
    # What is stored in another form is not found, rather than misread.
    schemas = [_without_words(kind.model_json_schema()) for kind in kinds]
    form = "".join(json.dumps(schema, sort_keys=True) for schema in schemas)
    digest = hashlib.sha256(form.encode()).hexdigest()[:8]
    software = {"layerbench": __version__, "form": NAMED_BEFORE.get(digest, digest)}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    return software


def _without_words(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """A schema without descriptions: another wording is no other form."""
    if isinstance(schema, list):
        return [_without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_words(part)
        for name, part in schema.items()
        if not (name == "description" and isinstance(part, str))
    }
