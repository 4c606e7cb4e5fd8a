"""One representative forward for https://www.speedscope.app: an evented profile of its spans."""

from __future__ import annotations

import json

from layerbench.records.timing import Profile
from layerbench.reporters import documents, formatting
from layerbench.reporters.spans import Span, label, spans

NAME = "speedscope"
SUFFIX = ".speedscope.json"
PROFILES_ONLY = True
NEEDS_LAYERS = True

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def render(record: Profile) -> str:
    """The profile as JSON; see `layerbench.reporters.spans` for what the forward is.

    Raises:
        UsageError: a profile without layers.
    """
    stretches = spans(record)
    title = f"{formatting.model_name(record.workload)} on {record.workload.input}"
    doubtful = "".join(f" ({text})" for text in documents.cautions(record)[:1])
    content = {
        "$schema": _SCHEMA,
        "exporter": f"layerbench {record.environment.software.layerbench}",
        "name": f"{title}, {record.environment.device.name}{doubtful}",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": label(span.row)} for span in stretches]},
        "profiles": [
            {
                "type": "evented",
                "name": title,
                "unit": "seconds",
                "startValue": 0.0,
                "endValue": _rounded(stretches[0].end_s),
                "events": _events(stretches),
            }
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _events(stretches: list[Span]) -> list[dict[str, object]]:
    """Opening and closing events in order of time, an inner frame closed before an outer one."""
    events: list[dict[str, object]] = []
    open_frames: list[int] = []

    def close(until_depth: int) -> None:
        while open_frames and stretches[open_frames[-1]].row.depth >= until_depth:
            frame = open_frames.pop()
            events.append({"type": "C", "frame": frame, "at": _rounded(stretches[frame].end_s)})

    for frame, span in enumerate(stretches):
        close(span.row.depth)
        events.append({"type": "O", "frame": frame, "at": _rounded(span.start_s)})
        open_frames.append(frame)
    close(0)
    return events


def _rounded(seconds: float) -> float:
    """To a tenth of a nanosecond, as the record has it."""
    return round(seconds, 10)
