"""``layerbench sweep --cluster``: the points are tasks on every device that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from layerbench.cli import _cluster, _endings, _options, _output
from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.journal import Entry, Journal, key_of
from layerbench.cluster.scheduling import Ended, Task
from layerbench.cluster.sweeps import Request, SweepWork, point_name
from layerbench.environment.software import command_line
from layerbench.records.device_sweeps import DeviceSweeps
from layerbench.records.sweep import Sweep
from layerbench.records.view import View
from layerbench.records.workload import ReadFile
from layerbench.reporters import json
from layerbench.store import writing

VERB = "sweep"
OWN = frozenset({"models", "sizes", "batches", "runs"})


def sweep(
    options: _cluster.ClusterOptions,
    models: Sequence[str],
    sizes: Sequence[int],
    batches: Sequence[int],
    seconds: float,
    *,
    names: list[str],
    out: Path | None,
    view: View,
    quiet: bool,
) -> None:
    """Measure every point on every device, and print or write the devices side by side.

    Args:
        options: the cluster's.
        models, sizes, batches, seconds: as in `layerbench sweep`.
        names, out, view, quiet: formats, folder, what is shown, and whether progress is.

    Raises:
        UsageError: no cluster, or no such device.
        typer.Exit: somebody interrupted, or points are missing.
    """
    from layerbench.cli._progress import shown

    assert options.cluster is not None
    left_out = _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | OWN
    with _cluster.joined(options.cluster, models, left_out) as cluster:
        request = Request(
            tuple(dict.fromkeys(cluster.renamed[model] for model in models)),
            tuple(sizes),
            tuple(batches),
            cluster.words,
            seconds,
        )
        kept = _Kept(out, Journal(out), cluster.files, cluster.digest, options.resume)
        works: list[SweepWork] = []

        def work_of(columns: Columns, column: Column) -> SweepWork:
            work = SweepWork(request, columns, column, kept.load, kept.keep_in(columns))
            works.append(work)
            return work

        dispatcher = _cluster.dispatcher(cluster, options.devices, work_of)
        with shown(VERB, quiet) as progress:
            interrupted = _cluster.run(dispatcher, works, progress, "points")
        command = command_line(sys.argv)
        record = DeviceSweeps(columns=tuple(work.column(command) for work in works))
        _deliver(record, dispatcher.columns, names, out, view)
    if interrupted:
        _output.complain("interrupted: the report is of what was measured up to then")
        raise typer.Exit(_endings.INTERRUPTED)
    if any(column.missing for column in record.columns):
        _output.complain("points are missing: the report says which, and why")
        raise typer.Exit(_endings.FAILED)


def _deliver(
    record: DeviceSweeps, columns: Columns, names: list[str], out: Path | None, view: View
) -> None:
    if out is not None:
        folders = {columns.title(column): columns.folder(column) for column in columns.all()}
        for column in record.columns:
            if column.sweep is not None:
                _options.deliver(column.sweep, names, out / folders[column.name], view)
    _options.deliver(record, names, out, view)


@dataclass(frozen=True)
class _Kept:
    """Records of points, as they lie in the folder of the reports.

    Attributes:
        out: the folder; ``None`` keeps nothing.
        journal: of the folder.
        files: that were sent to the nodes.
        digest: of all that was sent.
        resume: whether what is stored is taken for measured.
    """

    out: Path | None
    journal: Journal
    files: tuple[ReadFile, ...]
    digest: str
    resume: bool

    def load(self, task: Task, column: Column) -> Sweep | None:
        """The stored record of a task."""
        if not self.resume:
            return None
        return self.journal.record(self._key(task, column), Sweep)

    def keep_in(self, columns: Columns) -> Callable[[Task, Column, Ended, Sweep], None]:
        """What stores a task's record."""

        def keep(task: Task, column: Column, ended: Ended, record: Sweep) -> None:
            if self.out is None:
                return
            key = self._key(task, column)
            place = Path(columns.folder(column), "points", f"{point_name(task, key)}.json")
            environment = record.environment.model_copy(update={"sent": self.files})
            record = record.model_copy(update={"environment": environment})
            (self.out / place).parent.mkdir(parents=True, exist_ok=True)
            writing.write_text(self.out / place, json.render(record))
            node = ended.node.title if ended.node is not None else ""
            entry = Entry(key, task.name, column.name, node, 0, (place.as_posix(),))
            self.journal.add(entry)

        return keep

    def _key(self, task: Task, column: Column) -> str:
        return key_of(task.order.words, self.digest, column)
