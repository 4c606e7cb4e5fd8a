"""The state of a run on disk: whole or the one before, and never another model's."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from layerbench import store
from layerbench.errors import OutputError, RecordError, UsageError
from layerbench.records import EpochRow, Recipe

VERSION = 1
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
        "layerbench checkpoint": VERSION,
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
        with store.replaced(path) as file:
            torch.save(content, file)
    except RuntimeError as error:  # as torch says that the disk is full
        raise OutputError(f"cannot write {path}: {error}") from error


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        RecordError: it is none, or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RecordError(f"there is no checkpoint {path}") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RecordError(f"{path} is no checkpoint that can be read: {reason}") from error
    if not isinstance(content, dict) or content.get("layerbench checkpoint") != VERSION:
        raise RecordError(f"{path} is no checkpoint of this version of layerbench")
    return Checkpoint(
        recipe=Recipe.model_validate_json(content["recipe"]),
        epoch=content["epoch"],
        step=content["step"],
        states=content["states"],
        sums=content["sums"],
        rows=tuple(EpochRow.model_validate_json(row) for row in content["rows"]),
        resumed_after=tuple(content["resumed_after"]),
        unreadable=tuple(content["unreadable"]),
        images=content["images"],
    )


def check_same(recipe: Recipe, found: Recipe, path: Path) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        UsageError: what differs.
    """
    differing = [
        f"{name} {getattr(found, name)} there, {getattr(recipe, name)} here"
        for name in Recipe.model_fields
        if name not in FREE and getattr(found, name) != getattr(recipe, name)
    ]
    if differing:
        raise UsageError(
            f"{path} is of another training: {'; '.join(differing)}. Give the options it was begun "
            "with, or leave --resume out"
        )
