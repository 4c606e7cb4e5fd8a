"""What a node is asked to do, and what came of it. They travel as plain dictionaries.

A node of another version would not know our classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Kind = TypeVar("Kind", bound=BaseModel)
SIGNALLED = "its process was ended by signal {number} (out of memory, perhaps)"
SAMPLES = ".npz"


@dataclass(frozen=True)
class Order:
    """One command line of layerbench, for a process of its own.

    Attributes:
        words: the verb and its options, the record as JSON on standard output.
        device: that it runs on, as PyTorch calls it there.
        samples: whether every sample is wanted, too: the verb writes them to a folder.
    """

    words: tuple[str, ...]
    device: str
    samples: bool = False

    def packed(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "words": list(self.words),
            "device": self.device,
            "samples": self.samples,
        }


@dataclass(frozen=True)
class Outcome:
    """How a command line ended.

    Attributes:
        status: its exit status; the number of a signal, negative, where one ended it.
        output: standard output: a record as JSON.
        complaint: the last line of standard error.
        files: what it wrote, by paths relative to its folder.
        seconds: that its process took.
    """

    status: int
    output: str
    complaint: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failure(self) -> str:
        """Why there is no record, as one sentence; empty where its process ended well."""
        if self.status < 0:
            return SIGNALLED.format(number=-self.status)
        if self.status > 0:
            return self.complaint.removeprefix("error: ") or f"it ended with status {self.status}"
        return ""

    def record(self, kind: type[Kind]) -> Kind | None:
        """The record that it gave; ``None`` where it is none of this kind."""
        texts = [content for path, content in self.files.items() if path.endswith(".json")]
        # Of several reports of one measurement the longest has everything.
        text = max(texts, key=len, default=self.output.encode())
        try:
            return kind.model_validate_json(text)
        except ValidationError:
            return None

    def samples(self) -> bytes | None:
        """Every sample, as NumPy's archive; ``None`` where they were not wanted."""
        files = (content for path, content in self.files.items() if path.endswith(SAMPLES))
        return next(files, None)
