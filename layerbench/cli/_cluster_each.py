"""Measure each of several things on every device of a cluster, by the command lines of one verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer

from layerbench.cli import _cluster, _endings, _output
from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.journal import Entry, Journal, key_of
from layerbench.cluster.lists import ListWork
from layerbench.cluster.order import Order
from layerbench.cluster.scheduling import Ended, Task
from layerbench.records.environment import Environment
from layerbench.records.kinds import Record

Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Measured(Generic[Kind]):
    """One record that came back.

    Attributes:
        column: the title of its column.
        name: of what was measured.
        record: its device's folder is the column's.
        samples: every sample, as NumPy's archive, where they were wanted.
        key: what tells the task from all others.
    """

    column: str
    name: str
    record: Kind
    samples: bytes | None
    key: str


@dataclass
class Each(Generic[Kind]):
    """What one command line measures, and what came of it.

    Attributes:
        verb: of the command lines.
        own: its options that the nodes do not get from the command line.
        models: as the user named them.
        words: the options of each thing by its name, of models as the nodes name them.
        kind: of the records.
        deliver: writes a record, and gives the files; the first holds the record as JSON.
        samples: whether every sample is wanted.
        measured: what has come back.
        missing: what was not measured, and why, a sentence each.
    """

    verb: str
    own: frozenset[str]
    models: Sequence[str]
    words: Callable[[Mapping[str, str]], Mapping[str, Sequence[str]]]
    kind: type[Kind]
    deliver: Callable[[Measured[Kind]], Sequence[Path]]
    samples: bool = False
    measured: list[Measured[Kind]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def measure(
    each: Each[Kind], options: _cluster.ClusterOptions, out: Path | None, *, quiet: bool
) -> bool:
    """Measure all of them on every device that is asked for.

    Args:
        each: what is measured.
        options: the cluster's.
        out: the folder of the reports.
        quiet: whether no progress is shown.

    Returns:
        whether somebody interrupted.

    Raises:
        UsageError: no cluster, or no such device.
    """
    from layerbench.cli._progress import beside_report

    assert options.cluster is not None
    left_out = _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | each.own
    with _cluster.joined(options.cluster, each.models, left_out) as cluster:
        run = _Run(each, cluster, out, options.resume)
        works: list[ListWork] = []

        def work_of(columns: Columns, column: Column) -> ListWork:
            tasks = [task for task in run.tasks() if not run.is_there(columns, column, task)]
            work = ListWork(column, tasks, run.ended_in(columns))
            works.append(work)
            return work

        dispatcher = _cluster.dispatcher(cluster, options.devices, work_of)
        with beside_report(each.verb, quiet) as progress:
            return _cluster.run(dispatcher, works, progress, "measurements")


def end(each: Each[Any], interrupted: bool) -> None:
    """Say what is missing.

    Raises:
        typer.Exit: something is, or somebody interrupted.
    """
    for line in each.missing:
        _output.complain(line)
    if interrupted:
        _output.complain("interrupted: what was measured up to then is kept")
        raise typer.Exit(_endings.INTERRUPTED)
    if each.missing:
        raise typer.Exit(_endings.FAILED)


@dataclass
class _Run(Generic[Kind]):
    each: Each[Kind]
    cluster: _cluster.Joined
    out: Path | None
    resume: bool

    @cached_property
    def journal(self) -> Journal:
        """Read once, of however many tasks."""
        return Journal(self.out)

    def tasks(self) -> list[Task]:
        """One for each thing."""
        each = self.each
        return [
            Task(
                name,
                Order(
                    (*each.verb.split(), *words, *self.cluster.words),
                    device="",
                    samples=each.samples,
                ),
            )
            for name, words in each.words(self.cluster.renamed).items()
        ]

    def is_there(self, columns: Columns, column: Column, task: Task) -> bool:
        """Whether it was measured before; its record counts among those that were."""
        if not self.resume:
            return False
        key = self._key(task, column)
        record = self.journal.record(key, self.each.kind)
        if record is None:
            return False
        title = columns.title(column)
        self.each.measured.append(Measured(title, task.name, record, None, key))
        return True

    def ended_in(self, columns: Columns) -> Callable[[Column, Ended], None]:
        """What delivers a record."""

        def ended(column: Column, ended: Ended) -> None:
            record = self._record(column, ended, columns.folder(column))
            if record is None or ended.outcome is None:
                return
            key = self._key(ended.task, column)
            samples = ended.outcome.samples()
            measured = Measured(columns.title(column), ended.task.name, record, samples, key)
            self.each.measured.append(measured)
            self._note(column, ended, key, self.each.deliver(measured))

        return ended

    def _record(self, column: Column, ended: Ended, folder: str) -> Kind | None:
        why = ended.why if ended.outcome is None else ended.outcome.failure
        record = None if why or ended.outcome is None else ended.outcome.record(self.each.kind)
        if record is None:
            why = why or "its process gave no record"
            self.each.missing.append(f"{ended.task.name}, {column.name}: not measured: {why}")
            return None
        environment: Environment = getattr(record, "environment")  # noqa: B009 - of each kind here
        device = environment.device.model_copy(update={"slug": folder})
        update = {"sent": self.cluster.files, "device": device}
        return record.model_copy(update={"environment": environment.model_copy(update=update)})

    def _note(self, column: Column, ended: Ended, key: str, files: Sequence[Path]) -> None:
        if self.out is None or not files:
            return
        node = ended.node.title if ended.node is not None else ""
        names = tuple(path.relative_to(self.out).as_posix() for path in files)
        self.journal.add(Entry(key, ended.task.name, column.name, node, 0, names))

    def _key(self, task: Task, column: Column) -> str:
        return key_of(task.order.words, self.cluster.digest, column)
