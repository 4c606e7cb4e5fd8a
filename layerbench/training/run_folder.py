"""What a run leaves on disk, and where.

::

    outputs/<model>_<phase>_<time>/
        recipe.json       what was asked, written first; locked while a process trains here
        train.log         what happened, with times
        stats.log         the report: phases, epochs, processes, latency and memory
        metrics.csv       a row an epoch
        run.json          the record
        checkpoint.pth    the state to go on from
        model.pth         the weights of the best epoch; model.safetensors beside it
        *.png             loss, accuracy, latency and memory against batch size
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from layerbench import plots, reporters
from layerbench.environment.watch import utc_now
from layerbench.errors import OutputError, RecordError, UsageError
from layerbench.records.recipes import Recipe
from layerbench.records.training_run import EpochRow, TrainingRun
from layerbench.records.workload import Frozen
from layerbench.store import paths, reading, writing
from layerbench.text import one_line, visible
from layerbench.training import checkpoints
from layerbench.units import percent

RECIPE = reading.RECIPE
CHECKPOINT = "checkpoint.pth"
# Processes that load images for one that was killed hold its run until they notice.
LOCK_WAIT_S = 10.0
RECORD = "run.json"

log = logging.getLogger("layerbench.training")


def log_epoch(row: EpochRow, epochs: int, *, unreadable: bool) -> None:
    """Log the results of an epoch.

    Args:
        row: of the epoch.
        epochs: of the run.
        unreadable: whether images that could not be read are said, too.
    """
    log.info(
        "epoch %d/%d: loss %.4f, accuracy %s; validation: loss %.4f, accuracy %s; %.1f s, "
        "%.1f images/s",
        row.epoch,
        epochs,
        row.train_loss,
        percent(row.train_accuracy, digits=2),
        row.val_loss,
        percent(row.val_accuracy, digits=2),
        row.train_s + row.validation_s,
        row.images_per_s,
    )
    if row.unreadable and unreadable:
        log.warning("%d images could not be read and were left out", row.unreadable)


def new_folder(recipe: Frozen, below: Path, prefix: str) -> Path:
    """Make the folder of a run that begins now, and put its recipe there.

    Args:
        recipe: what is trained, and how.
        below: the folder that runs lie in.
        prefix: what its name begins with, before the time.

    Raises:
        OutputError: it is there already, or cannot be made.
    """
    folder = below / f"{prefix}{utc_now().strftime('%Y%m%d-%H%M%S')}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise OutputError(
            f"{folder} is there already: wait a second, or take another --output_dir"
        ) from None
    except OSError as error:
        raise OutputError(
            f"cannot make {folder}: {error.strerror or error}; choose another --output_dir"
        ) from error
    writing.write_text(folder / RECIPE, recipe.model_dump_json(indent=2) + "\n")
    return folder


def latest(recipe: Recipe, below: Path) -> Path | None:
    """The last run of this model and phase that has not finished."""
    begun = sorted(below.glob(f"{prefix(recipe)}*/{RECIPE}"), reverse=True)
    return next((path.parent for path in begun if not _is_finished(path.parent)), None)


def check_folder(folder: Path) -> Path:
    """A folder that the user named to go on in.

    Raises:
        UsageError: no run was begun there, or it has finished.
    """
    if not (folder / RECIPE).is_file():
        raise UsageError(f"{folder} holds no run: there is no {RECIPE} in it")
    if _is_finished(folder):
        raise UsageError(f"the run in {folder} has finished: there is nothing to go on with")
    return folder


def prefix(recipe: Recipe) -> str:
    """What the names of the folders of a model and phase begin with."""
    phase = f"phase{recipe.phase}" if recipe.phase else recipe.data
    return f"{paths.model_name(recipe.model)}_{phase}_"


def _is_finished(folder: Path) -> bool:
    record = last_record(folder)
    return record is not None and record.outcome != "running"


def begun_recipe(folder: Path) -> Recipe:
    """What was asked of the run in a folder.

    Raises:
        RecordError: it cannot be read.
    """
    path = folder / RECIPE
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} holds no recipe: {one_line(error, 200)}") from error


def last_record(folder: Path) -> TrainingRun | None:
    """The record that a run has left so far."""
    try:
        record = reading.read(folder / RECORD)
    except RecordError:
        return None
    return record if isinstance(record, TrainingRun) else None


def clear_away(folder: Path) -> None:
    """Remove what a killed run had begun to write."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, option: str = checkpoints.RESUME) -> Iterator[None]:
    """Hold the run's folder: two processes that go on with one run would write into each other.

    Args:
        folder: of the run.
        option: that led to it.

    Raises:
        UsageError: another process has it.
        OutputError: nothing can be written there.
    """
    path = folder / RECIPE
    try:
        held = os.open(path, os.O_RDWR)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        if not _locked(held):
            raise UsageError(
                f"another process trains in {folder}: wait for it, or begin a run of its own "
                f"without {option}"
            )
        yield
    finally:
        os.close(held)


def _locked(file: int) -> bool:
    """Whether the file is ours until it is closed; where files cannot be locked, it is."""
    if sys.platform == "win32":
        return True
    import fcntl

    ends = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > ends:
                return False
            time.sleep(LOCK_WAIT_S / 100)
        except OSError:
            return True


def write_reports(record: TrainingRun, folder: Path, *, pictures: bool = True) -> None:
    """Record, table, text and, if wanted, pictures, each whole or as it was.

    Raises:
        OutputError: they cannot be written.
    """
    writing.write_text(folder / "stats.log", reporters.render("txt", record))
    writing.write_text(folder / "metrics.csv", reporters.render("csv", record))
    if pictures and record.epochs:
        writing.write_bytes(folder / "loss.png", plots.loss(record))
        writing.write_bytes(folder / "accuracy.png", plots.accuracy(record))
    if pictures and record.points:
        title = f"{record.recipe.model}, inference"
        writing.write_bytes(
            folder / "latency_vs_batch.png", plots.latency_against_batch(record.points, title)
        )
        writing.write_bytes(
            folder / "memory_vs_batch.png", plots.memory_against_batch(record.points, title)
        )
    # Last: a run that has this record has all the others.
    writing.write_text(folder / RECORD, reporters.render("json", record))


def write_weights(model: nn.Module, folder: Path) -> None:
    """``model.pth`` and ``model.safetensors``: a plain state dict each.

    Raises:
        OutputError: they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    checkpoints.save(folder / "model.pth", tensors)
    # That format takes no memory that two names share: each gets its own.
    apart = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    path = folder / "model.safetensors"
    try:
        with writing.replaced(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            # By its name: `save` would hold all of it a second time.
            save_file(apart, file.name)
            _settle(Path(file.name), mode)
    except SafetensorError as error:  # as it says that the disk is full
        raise OutputError(f"cannot write {path}: {error}") from error


def _settle(path: Path, mode: int) -> None:
    """A file that another library put in our file's place: to the disk, with our permissions."""
    with path.open("rb") as file:
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


class PlainFormatter(logging.Formatter):
    """A line a message, whatever stands in the names of files and models."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: D102 - logging's name
        return visible(str(super().formatMessage(record)))


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Copy log messages into the run's ``train.log``."""
    try:
        handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder / 'train.log'}: {error.strerror}") from error
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
