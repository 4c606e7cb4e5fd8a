"""The state of a run on disk: whole or the one before, and never another model's."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, ValidationError

from layerbench.errors import OutputError, RecordError, UsageError
from layerbench.records.bounds import Count, Figure, Positive
from layerbench.records.recipes import Recipe
from layerbench.records.training_run import EpochRow
from layerbench.records.workload import Frozen
from layerbench.store import writing
from layerbench.text import one_line

VERSION = 1
MARK = "layerbench checkpoint"
# Characters of what is wrong that a message repeats.
MOST_SAID = 200
RESUME, RESUME_FROM = "--resume", "--resume_from"
# What may differ between a run and the one that takes it up: it changes no weight.
FREE = frozenset({"patience", "unreadable"})


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a run depends on.

    Attributes:
        recipe: of the run.
        epoch: the one to go on with, from 1.
        step: of that epoch, from 0.
        states: of model, optimizer and gradient scaler.
        sums: of the epoch so far, over all processes.
        rows: the epochs that ended.
        resumed_after: as in `TrainingRun`.
        unreadable: as in `TrainingRun`.
        images: of the data set's training half.
    """

    recipe: Recipe
    epoch: int
    step: int
    states: dict[str, Any]
    sums: dict[str, float] = field(default_factory=dict)
    rows: tuple[EpochRow, ...] = ()
    resumed_after: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()
    images: int = 0


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole, or leave the old one.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        MARK: VERSION,
        "recipe": checkpoint.recipe.model_dump_json(),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "states": checkpoint.states,
        "sums": checkpoint.sums,
        "rows": [row.model_dump_json() for row in checkpoint.rows],
        "resumed_after": list(checkpoint.resumed_after),
        "unreadable": list(checkpoint.unreadable),
        "images": checkpoint.images,
    }
    save(path, content)


def save(path: Path, content: Any) -> None:  # noqa: ANN401 - whatever torch can save
    """``torch.save``, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with writing.replaced(path) as file:
            torch.save(content, file)
    except RuntimeError as error:  # as torch says that the disk is full
        raise OutputError(f"cannot write {path}: {error}") from error


def read(path: Path, option: str = RESUME) -> Checkpoint:
    """Read a checkpoint. Every byte is checked, and nothing in it is executed.

    Args:
        path: of its file.
        option: that asked for it.

    Raises:
        RecordError: it is none, or damaged.
    """
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RecordError(f"there is no checkpoint {path}") from None
    except Exception as error:  # whatever damaged bytes make torch raise
        raise unreadable(path, str(error) or type(error).__name__, option) from error
    if not isinstance(content, dict) or content.get(MARK) != VERSION:
        raise RecordError(f"{path} is not a checkpoint of this version of layerbench")
    try:
        held = _Content.model_validate({name: content[name] for name in content if name != MARK})
        return Checkpoint(
            **{name: getattr(held, name) for name in _Content.model_fields if name in _PLAIN},
            recipe=Recipe.model_validate_json(held.recipe),
            rows=tuple(EpochRow.model_validate_json(row) for row in held.rows),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the recipe or a row"
        raise unreadable(path, f"{place}: {first['msg']}", option) from error


def _check_archive(path: Path) -> None:
    """Compare each file of the archive with its checksum, which torch does not.

    Raises:
        ValueError: it is no such archive, or something in it is not as it was written.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    with zipfile.ZipFile(path) as archive:
        held = archive.infolist()
        if any(file.compress_type != zipfile.ZIP_STORED for file in held):
            raise ValueError("it is packed, which no checkpoint of ours is")
        if sum(file.file_size for file in held) > size:
            raise ValueError("it says that it holds more than its size")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it is not as it was written: its checksum is another")


def unreadable(path: Path, reason: str, option: str) -> RecordError:
    """The error of a checkpoint that cannot be gone on from, and what to do."""
    return RecordError(
        f"{path} is not a readable checkpoint: {one_line(reason, MOST_SAID)}; without "
        f"{option} a new run begins"
    )


class _Content(Frozen):
    """What a checkpoint's file holds besides its version."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    recipe: str
    epoch: Positive
    step: Count
    states: dict[str, Any]
    sums: dict[Literal["loss", "correct", "images", "unreadable"], Figure]
    rows: list[str]
    resumed_after: tuple[Count, ...]
    unreadable: tuple[str, ...]
    images: Count


_PLAIN = set(_Content.model_fields) - {"recipe", "rows"}


def check_same(recipe: Recipe, begun: Recipe, path: Path, option: str = RESUME) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        UsageError: what differs.
    """
    differing = [
        f"{name} {getattr(begun, name)} there, {getattr(recipe, name)} here"
        for name in Recipe.model_fields
        if name not in FREE and getattr(begun, name) != getattr(recipe, name)
    ]
    if differing:
        raise UsageError(
            f"{path} is of another training: {'; '.join(differing)}. Give the options it was begun "
            f"with, or leave {option} out"
        )
