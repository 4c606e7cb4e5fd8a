"""What the callbacks of all training loops do with the steps that they profile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from layerbench import reporters
from layerbench.errors import LayerbenchError, UsageError, at_least
from layerbench.profilers.user_steps import STEPS, LiveSteps
from layerbench.records.training_step import TrainingProfile
from layerbench.store import paths, writing
from layerbench.store.writing import AnyPath

START = 50
FORMATS = ("txt", "json")
PREFIX = "layerbench/"


class ProfiledSteps:
    """Some steps of a training, and the report on them.

    Args:
        start: steps of this run that pass before.
        steps: whose times count; one more, before them, is looked at.
        out: the folder of the report and the record; ``None`` writes none.
        memory: whether the tensors of the step that is looked at are traced.

    Attributes:
        live: the steps of the training that runs now; ``None`` before the first one.
        record: of the last training; ``None`` where nothing was profiled.
        written: where its report and record lie.
    """

    def __init__(self, start: int, steps: int, out: AnyPath | None, *, memory: bool) -> None:
        self._start = at_least("start", start, 0)
        self._steps = at_least("steps", steps, 2)
        self._out = out
        self._memory = memory
        self.live: LiveSteps | None = None
        self.record: TrainingProfile | None = None
        self.written: tuple[Path, ...] = ()

    def begin(self, model: nn.Module, optimizers: Sequence[Optimizer], entry: str) -> LiveSteps:
        """A training begins.

        Args:
            model: that it trains.
            optimizers: that update it.
            entry: the model's method that runs a step's forward.

        Raises:
            OutputError: nothing can be written to the folder.
        """
        if self._out is not None:
            writing.check_writable(self._out)
        self.end()
        self.record, self.written = None, ()
        self.live = LiveSteps(
            model,
            optimizers,
            skip=self._start,
            steps=self._steps,
            entry=entry,
            memory=self._memory,
        )
        return self.live

    def step(self) -> dict[str, float]:
        """A step has ended; gives what is to be logged, once, after the last one."""
        if self.live is None:
            return {}
        self.live.step()
        return self.end() if self.live.is_over else {}

    def passed(self, steps: int) -> None:
        """So many of the steps that pass before have ended, of which not each was told."""
        if self.live is not None:
            self.live.number = max(self.live.number, min(steps, self._start - 1))

    def end(self) -> dict[str, float]:
        """The training has ended, or its steps have; gives what is to be logged.

        A training that ends before its steps have all been profiled is told on what there is. It
        goes on where nothing can be told, or written: a warning says why.
        """
        live, self.live = self.live, None
        if live is None:
            return {}
        live.close()
        try:
            self._keep(live)
        except LayerbenchError as error:
            warnings.warn(f"layerbench: {error}", stacklevel=2)
        return {} if self.record is None else scalars(self.record)

    def drop(self) -> None:
        """Something has raised: keep what there is, and tell nothing that would hide the error."""
        live, self.live = self.live, None
        if live is None:
            return
        live.close()
        with suppress(LayerbenchError):
            self._keep(live)

    def _keep(self, live: LiveSteps) -> None:
        """Make the record, and write it.

        Raises:
            UsageError: too few steps have been profiled.
            OutputError: it cannot be written.
        """
        if live.number < self._start:
            raise UsageError(
                f"no training step was profiled: the training ended after {live.number} of the "
                f"{self._start} steps that pass before; give a smaller start"
            )
        self.record = live.record
        if self._out is not None:
            self.written = _write(self.record, self._out)


@contextmanager
def absent(callbacks: Callable[[], list[Any]], one: object) -> Iterator[None]:
    """Take a callback out of a trainer's list, which calls each of them several times a step.

    Args:
        callbacks: gives the list that the trainer goes through.
        one: a callback in there; it comes back to its place.
    """
    there = callbacks()
    place = next((at for at, each in enumerate(there) if each is one), None)
    if place is not None:
        del there[place]
    try:
        yield
    finally:
        there = callbacks()
        if place is not None and all(each is not one for each in there):
            there.insert(place, one)


def _write(record: TrainingProfile, out: AnyPath) -> tuple[Path, ...]:
    base = paths.place(record, out)
    places = tuple(base.with_suffix(reporters.suffix(name)) for name in FORMATS)
    texts = [reporters.render(name, record).encode() for name in FORMATS]
    writing.write_all(list(zip(places, texts, strict=True)))
    return places


def scalars(record: TrainingProfile) -> dict[str, float]:
    """What a logger shows of a record: medians in seconds, images per second, bytes."""
    step = record.step.median
    found = {"step_s": step}
    found |= {f"{phase.name}_s": phase.time.median for phase in record.phases}
    if step:
        found["images_per_s"] = record.images / step
    if record.memory is not None:
        found["peak_bytes"] = float(record.memory.peak.bytes)
    return {f"{PREFIX}{name}": value for name, value in found.items()}


def missing(name: str, host: str, extra: str) -> UsageError:
    """The error of a callback whose host is not installed."""
    return UsageError(f"layerbench.{name} needs {host}: pip install 'layerbench[{extra}]'")


__all__ = ["START", "STEPS", "ProfiledSteps", "absent", "missing", "scalars"]
