"""The points of a column: which begin, in which order, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from layerbench.cluster.columns import Columns
from layerbench.cluster.scheduling import Ended, Task
from layerbench.cluster.sweeps import Request, SweepWork, point_name
from layerbench.errors import NotEnoughMemory
from layerbench.profilers import sweep as local
from layerbench.records.sweep import Sweep
from tests.support.clusters import ended, failed, full, node, slot, sweep

SECONDS = 8.0


class Column:
    """The work of one column, with what it keeps.

    Args:
        models, sizes, batches: of the request.
        stored: records of tasks that ran before, by their names.
    """

    def __init__(
        self,
        batches: tuple[int, ...] = (1, 2, 4, 8),
        models: tuple[str, ...] = ("m",),
        sizes: tuple[int, ...] = (),
        stored: dict[str, Sweep] | None = None,
    ) -> None:
        self.request = Request(models, sizes, batches, ("--threads=1",), SECONDS)
        self.columns = Columns()
        column = self.columns.add("cpu", slot())
        self.kept: list[str] = []
        stored = stored or {}
        self.work = SweepWork(
            self.request,
            self.columns,
            column,
            lambda task, _: stored.get(task.name),
            lambda task, *_: self.kept.append(task.name),
        )

    def take(self, *names: str) -> list[Task]:
        """Take as many, which must be these; an empty name is none."""
        tasks = [self.work.take() for _ in names]
        assert tuple("" if task is None else task.name for task in tasks) == names
        return [task for task in tasks if task is not None]

    def measured(self, task: Task, image_s: float = 0.01) -> None:
        """A point has come."""
        model, _, batch = task.name.partition(", batch ")
        self.work.finish(ended(task, sweep(model.partition(" at ")[0], int(batch), image_s)))

    def run(self, image_s: Callable[[int], float], most: int | None = None) -> None:
        """Measure whatever is left, one at a time; batches above ``most`` do not fit."""
        while (task := self.work.take()) is not None:
            batch = int(task.name.rpartition(" ")[2])
            if most is not None and batch > most:
                self.work.finish(ended(task, full("m", batch)))
            else:
                self.measured(task, image_s(batch))
        assert self.work.left() == []
        assert self.work.done == self.work.total

    @property
    def batches(self) -> list[int]:
        """Of the points that its record has."""
        record = self.record
        return [] if record is None else [point.batch for point in record.points]

    @property
    def record(self) -> Sweep | None:
        return self.work.column("layerbench sweep").sweep

    @property
    def missing(self) -> dict[int, str]:
        return {one.batch: one.why for one in self.work.column("").missing}


def test_the_command_line_of_a_point():
    order = Column(sizes=(32,)).request.order("m", "32", 4)
    words = ("sweep", "--models", "m", "--batches", "4", "--sizes", "32", "--threads=1")
    assert (order.words, order.samples) == (words, False)


def test_a_second_batch_waits_for_the_first_point_of_its_climb():
    of = Column(models=("m", "n"))
    first, other = of.take("m, batch 1", "n, batch 1")
    of.take("", "")
    of.measured(first)
    # Where devices would be idle, the next ones begin beside each other.
    of.take("m, batch 2", "m, batch 4", "m, batch 8", "")
    of.measured(other)
    of.take("n, batch 2", "n, batch 4")


def test_a_climb_of_which_nothing_runs_comes_first():
    of = Column(models=("m", "n"))
    first, other = of.take("m, batch 1", "n, batch 1")
    of.measured(first)
    of.measured(other)
    of.take("m, batch 2", "n, batch 2", "m, batch 4", "n, batch 4", "m, batch 8", "n, batch 8", "")


def test_every_model_at_every_size():
    of = Column((1,), ("m", "n"), (32, 64))
    for task in of.take(
        "m at 32, batch 1", "m at 64, batch 1", "n at 32, batch 1", "n at 64, batch 1"
    ):
        of.measured(task)
    assert (of.work.done, of.work.total) == (4, 4)
    assert [point.model for point in of.record.points] == ["m", "m", "n", "n"]


def test_a_batch_that_does_not_fit_drops_larger_ones_whenever_they_come():
    of = Column((1, 2, 4, 8, 16))
    of.measured(of.take("m, batch 1")[0])
    two, four, eight = of.take("m, batch 2", "m, batch 4", "m, batch 8")
    of.measured(eight)
    assert of.batches == [1, 8]
    of.work.finish(ended(four, full("m", 4)))
    assert of.batches == [1]
    of.take("")
    of.measured(two)
    assert of.batches == [1, 2]
    (end,) = of.record.ends
    assert (end.batch, end.fits, of.missing) == (4, False, {})
    assert (of.work.done, of.work.total, of.work.left()) == (5, 5, [])


def test_of_two_ends_the_smaller_one_counts():
    of = Column()
    of.measured(of.take("m, batch 1")[0])
    two, four = of.take("m, batch 2", "m, batch 4")
    of.work.finish(ended(two, full("m", 2)))
    of.work.finish(ended(four, full("m", 4)))
    assert [end.batch for end in of.record.ends] == [2]


def test_no_batch_begins_that_would_take_too_long_nor_is_it_given_up_while_smaller_ones_run():
    of = Column()
    of.measured(of.take("m, batch 1")[0], image_s=0.3)
    (two,) = of.take("m, batch 2")
    of.take("")
    assert of.record.ends == ()
    of.measured(two, image_s=0.1)
    (four,) = of.take("m, batch 4")
    of.measured(four, image_s=0.2)
    of.take("")
    (end,) = of.record.ends
    assert (end.batch, end.fits, end.why) == (
        8,
        True,
        "8 forwards would take about 13 s, more than the 8 s of a point",
    )


@pytest.mark.parametrize("seed", range(20))
def test_one_device_has_the_points_and_the_end_of_a_sweep_on_one_machine(seed, monkeypatch):
    draw = random.Random(seed)
    batches = tuple(sorted(draw.sample(range(1, 40), 6)))
    times = {batch: draw.uniform(0.02, 0.2) for batch in batches}
    most = draw.choice((None, *batches))
    of = Column(batches)
    of.run(times.__getitem__, most)

    def point(_, subject, batch, *__):
        if most is not None and batch > most:
            raise NotEnoughMemory("it needs 9 GiB")
        return sweep("m", batch, times[batch]).points[0]

    monkeypatch.setattr(local, "_point", point)
    what = local.Climb("m", (32, 32), lambda _: None, subject=lambda _: None)
    device = type("Device", (), {"look": None})
    points, end = local.climb(what, batches, device, seconds=SECONDS)
    assert of.batches == [point.batch for point in points]
    ends = of.record.ends
    told = [(one.batch, one.fits, one.why) for one in ends]
    assert told == ([] if end is None else [(end.batch, end.fits, end.why)])


@pytest.mark.parametrize(
    ("status", "complaint", "why"),
    [
        (2, "error: no such model", "no such model"),
        (-9, "", "its process was ended by signal 9 (out of memory, perhaps)"),
        (0, "", "its process gave no record"),
    ],
)
def test_a_point_whose_process_fails_is_missing_with_the_larger_ones(status, complaint, why):
    of = Column()
    of.measured(of.take("m, batch 1")[0])
    (two,) = of.take("m, batch 2")
    of.work.finish(failed(two, status, complaint))
    assert (of.batches, of.missing, of.kept) == ([1], {2: why, 4: why, 8: why}, ["m, batch 1"])
    assert of.work.left() == []
    of.take("")


def test_what_a_smaller_batch_ends_is_no_longer_missing():
    of = Column()
    of.measured(of.take("m, batch 1")[0])
    two, four = of.take("m, batch 2", "m, batch 4")
    of.work.finish(Ended(four, None, "no node is left"))
    assert of.missing == {4: "no node is left"}
    of.work.finish(ended(two, full("m", 2)))
    assert of.missing == {}


def test_a_task_that_is_given_back_begins_before_all_others():
    of = Column(models=("m", "n"))
    (first,) = of.take("m, batch 1")
    of.work.give_back(first)
    assert next(task.name for task in of.work.left()) == "m, batch 1"
    assert of.work.take() is first
    assert of.work.done == 0


def test_a_task_that_is_given_back_beyond_the_end_does_not_begin():
    of = Column()
    of.measured(of.take("m, batch 1")[0])
    two, four = of.take("m, batch 2", "m, batch 4")
    of.work.give_back(four)
    of.work.finish(ended(two, full("m", 2)))
    of.take("")
    assert (of.work.left(), of.work.done, of.work.total) == ([], 4, 4)


def test_points_that_no_node_is_left_for_are_missing_and_no_longer_left():
    of = Column()
    (first,) = of.take("m, batch 1")
    of.work.give_back(first)
    for task in of.work.left():
        of.work.finish(Ended(task, None, "no node with cpu is left"))
    assert of.missing == dict.fromkeys((1, 2, 4, 8), "no node with cpu is left")
    assert (of.work.left(), of.work.done) == ([], 4)
    assert of.record is None


def test_stored_points_are_not_measured_again():
    of = Column(stored={"m, batch 1": sweep("m", 1), "m, batch 4": sweep("m", 4)})
    assert (of.work.done, of.batches) == (2, [1, 4])
    of.take("m, batch 2", "m, batch 8", "")


def test_a_stored_end_holds_also_for_larger_points_that_are_stored():
    stored = {"m, batch 1": sweep("m", 1), "m, batch 4": full("m", 4), "m, batch 8": sweep("m", 8)}
    of = Column(stored=stored)
    of.measured(*of.take("m, batch 2"))
    of.take("")
    assert (of.batches, [end.batch for end in of.record.ends]) == ([1, 2], [4])


def test_only_smaller_batches_say_whether_one_takes_too_long():
    stored = {"m, batch 1": sweep("m", 1, 0.01), "m, batch 8": sweep("m", 8, 9.0)}
    of = Column(stored=stored)
    of.take("m, batch 2", "m, batch 4")


def test_a_record_of_several_nodes_has_the_warnings_of_all():
    of = Column((1, 2))
    (first,) = of.take("m, batch 1")
    early, late = sweep("m", 1), sweep("m", 2)
    environments = [
        one.environment.model_copy(update={"warnings": (name, "both"), "started": start})
        for one, name, start in ((early, "a", "2026-01-02"), (late, "b", "2026-01-01"))
    ]
    nodes = [node(), node(), node()]
    early = early.model_copy(update={"environment": environments[0], "notes": ("same",)})
    of.work.finish(ended(first, early, nodes[0]))
    late = late.model_copy(update={"environment": environments[1], "notes": ("same",)})
    of.work.finish(ended(of.work.take(), late, nodes[1]))
    column = of.work.column("layerbench sweep --cluster auto")
    made = column.sweep.environment
    assert made.warnings == ("a", "both", "b")
    assert (str(made.started), made.command) == ("2026-01-01", "layerbench sweep --cluster auto")
    assert column.sweep.notes == ("same",)
    assert column.nodes == (nodes[0].title, nodes[1].title)


def test_the_file_of_a_point_is_named_after_it():
    (task,) = Column(models=("my nets/a.py:make",), sizes=(32,)).take(
        "my nets/a.py:make at 32, batch 1"
    )
    assert point_name(task, "0123456789abcdef") == "my-nets-a-py-make-at-32-batch-1_01234567"
