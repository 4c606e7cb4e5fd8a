"""A sweep over models, sizes and batches as tasks of a cluster. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from layerbench.analysis.climbing import too_long
from layerbench.cluster import environments
from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.order import Order
from layerbench.cluster.scheduling import Ended, Task
from layerbench.records.device_sweeps import DeviceColumn, MissingPoint
from layerbench.records.sweep import Sweep, SweepEnd, SweepPoint

Load = Callable[[Task, Column], Sweep | None]
"""What is stored of a task, where it has run before."""


@dataclass
class _Climb:
    """One model at one size.

    Attributes:
        points: measured, by batch.
        to_come: batches that have not begun, ascending.
        flying: batches that run.
        end: why there are no larger ones.
    """

    model: str
    size: str
    to_come: list[int]
    points: dict[int, SweepPoint] = field(default_factory=dict)
    flying: set[int] = field(default_factory=set)
    end: SweepEnd | None = None
    missing: dict[int, str] = field(default_factory=dict)

    def ascending(self, below: float = math.inf) -> list[SweepPoint]:
        """Its points, of smaller batches than this."""
        return [self.points[batch] for batch in sorted(self.points) if batch < below]


@dataclass(frozen=True)
class Request:
    """What a sweep measures on each device.

    Attributes:
        models, sizes, batches: as in `layerbench sweep`; no sizes for the models' own.
        words: all other options of its command line.
        seconds: for a point.
    """

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    words: tuple[str, ...]
    seconds: float

    def climbs(self) -> list[_Climb]:
        """Every model at every size."""
        sizes = [str(size) for size in self.sizes] or [""]
        return [_Climb(model, size, list(self.batches)) for model in self.models for size in sizes]

    def order(self, model: str, size: str, batch: int) -> Order:
        """The command line of one point."""
        words = ["sweep", "--models", model, "--batches", str(batch)]
        words += ["--sizes", size] if size else []
        return Order((*words, *self.words), device="")


class SweepWork:
    """The points of one column.

    A batch begins before smaller ones have ended only where devices would be idle, and once a first
    point has shown how long an image takes.

    Args:
        request: what is measured.
        columns, column: on which devices.
        load: gives what is stored of a task.
        keep: stores a point's record.
    """

    def __init__(
        self,
        request: Request,
        columns: Columns,
        column: Column,
        load: Load,
        keep: Callable[[Task, Column, Ended, Sweep], None],
    ) -> None:
        self._request = request
        self._columns = columns
        self._column = column
        self._keep = keep
        self._climbs = request.climbs()
        self._open = list(self._climbs)
        self._tasks: dict[str, tuple[_Climb, int]] = {}
        self._given_back: list[Task] = []
        self._nodes: dict[str, None] = {}
        self._records: list[Sweep] = []
        for climb in self._climbs:
            for batch in list(climb.to_come):
                stored = load(self._task(climb, batch), column)
                # The end of a climb may have come from a smaller one.
                if stored is not None and batch in climb.to_come:
                    climb.to_come.remove(batch)
                    self._take_in(climb, batch, stored)

    # --- the work of a dispatcher ------------------------------------------------------------

    def take(self) -> Task | None:
        """The next point that can begin now."""
        while self._given_back:
            task = self._given_back.pop(0)
            climb, batch = self._tasks[task.name]
            if climb.end is None or batch < climb.end.batch:
                return self._begun(task, climb, batch)
        for climb in self._next_climbs():
            batch = climb.to_come[0]
            why = too_long(climb.ascending(batch), batch, self._request.seconds)
            if not why:
                climb.to_come.pop(0)
                return self._begun(self._task(climb, batch), climb, batch)
            # A smaller one that runs still may show another time.
            if not climb.flying:
                self._end(climb, batch, True, why)
        return None

    def _next_climbs(self) -> Iterator[_Climb]:
        """Climbs with points to come: first those of which nothing runs.

        What they end at is known before it begins.
        """
        # There may be thousands, and most have not begun: one after the other, not sorted.
        self._open = [climb for climb in self._open if climb.to_come]
        yield from (climb for climb in self._open if not climb.flying)
        running = (climb for climb in self._open if climb.flying and climb.points)
        yield from sorted(running, key=lambda climb: len(climb.flying))

    def give_back(self, task: Task) -> None:
        """It did not run."""
        climb, batch = self._tasks[task.name]
        climb.flying.discard(batch)
        self._given_back.append(task)

    def finish(self, ended: Ended) -> None:
        """Take in what a point's process has said."""
        climb, batch = self._tasks[ended.task.name]
        climb.flying.discard(batch)
        if ended.task in self._given_back:
            self._given_back.remove(ended.task)
        if batch in climb.to_come:
            climb.to_come.remove(batch)
        if ended.outcome is None:
            self._miss(climb, batch, ended.why)
            return
        if ended.node is not None:
            self._nodes[ended.node.title] = None
        why = ended.outcome.failure
        record = None if why else ended.outcome.record(Sweep)
        if record is None:
            self._miss(climb, batch, why or "its process gave no record", and_larger=True)
        else:
            self._keep(ended.task, self._column, ended, record)
            self._take_in(climb, batch, record)

    @property
    def waits(self) -> bool:
        """Whether any point has not begun."""
        return bool(self._given_back) or any(climb.to_come for climb in self._open)

    def left(self) -> list[Task]:
        """Points that have not begun."""
        return [
            *self._given_back,
            *(self._task(climb, batch) for climb in self._climbs for batch in climb.to_come),
        ]

    @property
    def done(self) -> int:
        """Points that will not begin any more."""
        begun = len(self._given_back) + sum(len(climb.flying) for climb in self._climbs)
        return self.total - begun - sum(len(climb.to_come) for climb in self._climbs)

    @property
    def total(self) -> int:
        """All points."""
        return len(self._climbs) * len(self._request.batches)

    # --- the column of a record -----------------------------------------------------------------

    def column(self, command: str) -> DeviceColumn:
        """What there is of the column, points in the order of the request."""
        missing = tuple(
            MissingPoint(model=climb.model, size=climb.size, batch=batch, why=why)
            for climb in self._climbs
            for batch, why in sorted(climb.missing.items())
        )
        return DeviceColumn(
            name=self._columns.title(self._column),
            torch=self._column.torch,
            nodes=tuple(self._nodes),
            sweep=self._sweep(command),
            missing=missing,
        )

    def _sweep(self, command: str) -> Sweep | None:
        if not self._records:
            return None
        environment = environments.joined([one.environment for one in self._records], command)
        return self._records[0].model_copy(
            update={
                "environment": environment,
                "points": tuple(point for climb in self._climbs for point in climb.ascending()),
                "ends": tuple(climb.end for climb in self._climbs if climb.end is not None),
                "notes": tuple(
                    dict.fromkeys(note for record in self._records for note in record.notes)
                ),
            }
        )

    # --- one point ------------------------------------------------------------------------------

    def _task(self, climb: _Climb, batch: int) -> Task:
        at = f" at {climb.size}" if climb.size else ""
        task = Task(
            f"{climb.model}{at}, batch {batch}",
            self._request.order(climb.model, climb.size, batch),
        )
        self._tasks[task.name] = (climb, batch)
        return task

    def _begun(self, task: Task, climb: _Climb, batch: int) -> Task:
        climb.flying.add(batch)
        return task

    def _take_in(self, climb: _Climb, batch: int, record: Sweep) -> None:
        self._records.append(record)
        for point in record.points:
            climb.points[batch] = point
        for end in record.ends:
            self._end(climb, batch, end.fits, end.why, end)

    def _end(
        self, climb: _Climb, batch: int, fits: bool, why: str, told: SweepEnd | None = None
    ) -> None:
        """A batch ends the climb: no larger one begins, nor is one shown that began before."""
        if climb.end is not None and climb.end.batch <= batch:
            return
        size = told.size if told is not None else next(iter(climb.points.values())).size
        model = told.model if told is not None else climb.model
        climb.end = SweepEnd(model=model, size=size, batch=batch, fits=fits, why=why)
        climb.to_come = [one for one in climb.to_come if one < batch]
        climb.points = {one: point for one, point in climb.points.items() if one < batch}
        climb.missing = {one: why for one, why in climb.missing.items() if one < batch}

    def _miss(self, climb: _Climb, batch: int, why: str, *, and_larger: bool = False) -> None:
        if climb.end is None or batch < climb.end.batch:
            climb.missing[batch] = why
        if and_larger:
            # What failed for the batch would fail for a larger one.
            larger = [one for one in climb.to_come if one > batch]
            climb.missing.update(dict.fromkeys(larger, why))
            climb.to_come = [one for one in climb.to_come if one < batch]


def point_name(task: Task, key: str) -> str:
    """Of the file that a point's record lies in."""
    letters = [one if one.isalnum() else "-" for one in task.name]
    parts = [part for part in "".join(letters).split("-") if part]
    return f"{'-'.join(parts)[:80]}_{key[:8]}"
