"""A sentence for every timed row, as the tables of earlier studies have them: made for grep."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench import units
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.workload import Frozen
from layerbench.reporters import documents, formatting
from layerbench.text import shown

NAME = "sentences"
SUFFIX = ".sentences.txt"
PROFILES_ONLY = True


def render(record: Frozen) -> str:
    """The sentences of a profile: its cautions, then the whole model, the blocks, other rows."""
    made = shown(record)
    assert isinstance(made, Profile)
    said = [*documents.cautions(made), whole_sentence(made), *sentences(made)]
    return "\n".join(said) + "\n"


def whole_sentence(record: Profile) -> str:
    """Of the whole model."""
    mean, std = (f"{formatting.ms(record.whole, field)} ms" for field in ("mean", "std"))
    return (
        f"Average execution time for {record.model_type} with input shape "
        f"{units.shape(record.workload.shape)} is {mean} (std {std}, {formatting.fps(record)} FPS)"
    )


def sentences(record: Profile) -> Iterator[str]:
    """Of every timed row but the model itself: blocks first, then the others."""
    rows = [row for row in record.layers if row.path and row.inclusive]
    rows.sort(key=lambda row: not _is_numbered(row))
    return map(_sentence, rows)


def _is_numbered(row: LayerRow) -> bool:
    return row.block and row.position is not None


def _sentence(row: LayerRow) -> str:
    numbered = _is_numbered(row)
    place = f"position {row.position}" if numbered else row.path
    shapes = formatting.shapes(row.input_shapes)
    noun = "shapes" if len(row.input_shapes) > 1 else "shape"
    inputs = f" with input {noun} {shapes}" if shapes else ""
    path = f" ({row.path})" if numbered else ""
    return (
        f"Average execution time for {row.type} at {place}{inputs} "
        f"is {formatting.ms(row.inclusive, 'mean')} ms{path}"
    )
