"""``timer --cluster``: each model on each input is timed on every device that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from layerbench.cli import _cluster, _endings, _options, _output
from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.journal import Entry, Journal, key_of
from layerbench.cluster.lists import ListWork
from layerbench.cluster.order import Order
from layerbench.cluster.scheduling import Ended, Task
from layerbench.cluster.shipping import checksums
from layerbench.records.timing import Profile
from layerbench.store import paths, reading

VERB = "timer"
OWN = frozenset({"models", "model", "input", "keep_samples"})
Write = Callable[[Profile, paths.Places, bytes | None], list[Path]]
"""Writes a profile's reports and its samples to these places."""


def timer(
    options: _cluster.ClusterOptions,
    asked: Sequence[_options.WorkloadOptions],
    *,
    out: Path | None,
    keep_samples: bool,
    write: Write,
    show: Callable[[Profile], None],
    quiet: bool,
) -> list[Profile]:
    """Time each of several workloads on each device.

    Args:
        options: the cluster's.
        asked: models and inputs.
        out: the folder of the reports.
        keep_samples: whether every sample is wanted.
        write, show: deliver a profile, to files or the terminal.
        quiet: whether no progress is shown.

    Returns:
        the profiles, in the order in which they came.

    Raises:
        UsageError: no cluster, or no such device.
        typer.Exit: somebody interrupted, or some are missing.
    """
    from layerbench.cli._progress import shown

    assert options.cluster is not None
    left_out = _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | OWN
    models = list(dict.fromkeys(one.model for one in asked))
    with _cluster.joined(options.cluster, models, left_out) as cluster:
        run = _Run(cluster, asked, out, keep_samples, options.resume, write, show)
        works: list[ListWork] = []

        def work_of(columns: Columns, column: Column) -> ListWork:
            tasks = [task for task in run.tasks() if not run.is_there(task, column)]
            work = ListWork(column, tasks, run.ended_in(columns))
            works.append(work)
            return work

        variables = _cluster.variables_of(VERB, left_out)
        dispatcher = _cluster.dispatcher(cluster, options.devices, variables, work_of)
        with shown(VERB, quiet) as progress:
            interrupted = _cluster.run(dispatcher, works, progress, "models")
    _end(run, interrupted)
    return run.profiles


def _end(run: _Run, interrupted: bool) -> None:
    """Say what is missing.

    Raises:
        typer.Exit: something is.
    """
    for line in run.missing:
        _output.complain(line)
    if interrupted:
        _output.complain("interrupted: what was measured up to then is kept")
        raise typer.Exit(_endings.INTERRUPTED)
    if run.missing:
        raise typer.Exit(_endings.FAILED)


@dataclass
class _Run:
    """What one command line measures, and what came of it.

    Attributes:
        cluster, asked, out, keep_samples, resume, write, show: as of `timer`.
        profiles: measured.
        missing: what was not, and why, a sentence each.
    """

    cluster: _cluster.Joined
    asked: Sequence[_options.WorkloadOptions]
    out: Path | None
    keep_samples: bool
    resume: bool
    write: Write
    show: Callable[[Profile], None]
    profiles: list[Profile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def tasks(self) -> list[Task]:
        """One for each model on each input."""
        return [
            Task(
                one.model if one.input is None else f"{one.model} on {one.input}",
                Order(self._words(one), device="", samples=self.keep_samples),
            )
            for one in self.asked
        ]

    def is_there(self, task: Task, column: Column) -> bool:
        """Whether it was measured before; its profile counts among those that were."""
        entry = Journal(self.out).read().get(self._key(task, column)) if self.resume else None
        if entry is None or self.out is None:
            return False
        record = reading.read(self.out / entry.files[0])
        if isinstance(record, Profile):
            self.profiles.append(record)
        return isinstance(record, Profile)

    def ended_in(self, columns: Columns) -> Callable[[Column, Ended], None]:
        """What delivers a profile."""

        def ended(column: Column, ended: Ended) -> None:
            profile = self._profile(column, ended)
            if profile is None:
                return
            self.profiles.append(profile)
            if self.out is None:
                self.show(profile)
                return
            assert ended.outcome is not None
            files = self.write(
                profile, self._places(profile, columns.folder(column)), ended.outcome.samples()
            )
            for path in files:
                typer.echo(str(path))
            self._note(column, ended, files)

        return ended

    def _words(self, one: _options.WorkloadOptions) -> tuple[str, ...]:
        words = [VERB, f"--model={self.cluster.renamed[one.model]}"]
        words += [] if one.input is None else [f"--input={one.input}"]
        words += ["--keep-samples"] if self.keep_samples else []
        return (*words, *self.cluster.words)

    def _profile(self, column: Column, ended: Ended) -> Profile | None:
        why = ended.why if ended.outcome is None else ended.outcome.failure
        if not why:
            assert ended.outcome is not None
            profile = ended.outcome.record(Profile)
            if profile is not None:
                environment = profile.environment.model_copy(update={"sent": self.cluster.files})
                return profile.model_copy(update={"environment": environment})
            why = "its process gave no record"
        self.missing.append(f"{ended.task.name}, {column.name}: not measured: {why}")
        return None

    def _places(self, profile: Profile, folder: str) -> paths.Places:
        """As if measured here, unless two columns would share a folder."""
        assert self.out is not None
        usual = paths.places(profile, self.out)
        own = self.out / profile.environment.device.slug
        return paths.Places(
            whole=self.out / folder / usual.whole.relative_to(own),
            layers=self.out / folder / usual.layers.relative_to(own),
        )

    def _note(self, column: Column, ended: Ended, files: Sequence[Path]) -> None:
        assert self.out is not None
        node = ended.node.title if ended.node is not None else ""
        records = sorted(
            (path for path in files if path.suffix == ".json"),
            key=lambda path: path.parent.name != "layers",
        )
        names = tuple(path.relative_to(self.out).as_posix() for path in records)
        if names:
            key = self._key(ended.task, column)
            Journal(self.out).add(Entry(key, ended.task.name, column.name, node, 0, names))

    def _key(self, task: Task, column: Column) -> str:
        return key_of(task.order.words, checksums(self.cluster.files), column.torch, column.name)
