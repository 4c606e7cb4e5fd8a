"""Which node measures what, and what is told of nodes and processes that die."""

from __future__ import annotations

from collections import Counter

import pytest

from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.lists import ListWork
from layerbench.cluster.nodes import Wanted
from layerbench.cluster.order import Order
from layerbench.cluster.scheduling import JOIN_S, Dispatcher, Ended, Task
from layerbench.errors import UsageError
from tests.support.fake_ray import (
    FAILED_S,
    NOTICED_S,
    NodeDiedError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
    fake_ray,
)

__all__ = ["fake_ray"]

GOOD = {"status": 0, "output": "{}"}


class Run:
    """A dispatcher with tasks ``t0``, ``t1``, ... for each column."""

    def __init__(self, ray, tasks: int = 4) -> None:
        self.ray = ray
        self.told: list[str] = []
        self.ended: list[tuple[str, Ended]] = []
        self.works: list[ListWork] = []

        def work_of(columns: Columns, column: Column) -> ListWork:
            work = ListWork(
                column,
                [Task(f"t{number}", Order(("sweep",), "")) for number in range(tasks)],
                lambda of, ended: self.ended.append((columns.title(of), ended)),
            )
            self.works.append(work)
            return work

        self.dispatcher = Dispatcher(ray, Wanted(), work_of, tell=self.told.append)
        self.dispatcher.begin()

    def all(self) -> None:
        """Run to the end."""
        for count, _ in enumerate(self.dispatcher.run()):
            assert count < 100, "it never ends"
        assert all(not work.left() for work in self.works)

    def nodes(self) -> Counter[str]:
        """How many tasks ended well on each node."""
        return Counter(end.node.id for _, end in self.ended if end.outcome is not None)

    def whys(self) -> dict[str, str]:
        """Of the tasks that have no outcome."""
        return {end.task.name: end.why for _, end in self.ended if end.outcome is None}

    def names(self) -> list[str]:
        return sorted(end.task.name for _, end in self.ended)


def test_tasks_are_shared_and_one_runs_on_a_device_at_a_time(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b")
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    fake_ray.ends = lambda _, node: (1.0 if node == "a" else 3.0, GOOD)
    begin = fake_ray.begin

    def counted(function):
        made = begin(function)
        if function.kind == "run":
            running[made.node] += 1
            most[made.node] = max(most[made.node], running[made.node])
            fake_ray.at(made.ends, lambda: running.subtract([made.node]))
        return made

    fake_ray.begin = counted
    run = Run(fake_ray, tasks=8)
    run.all()
    assert (run.nodes(), run.whys()) == (Counter(a=6, b=2), {})
    assert most == Counter(a=1, b=1)
    assert run.names() == sorted(f"t{number}" for number in range(8))


def test_what_a_dead_node_had_is_measured_elsewhere(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(7.0, lambda: fake_ray.kill("b"))
    run = Run(fake_ray)
    run.all()
    assert (run.nodes(), run.whys()) == (Counter(a=3, b=1), {})
    assert run.names() == ["t0", "t1", "t2", "t3"]
    assert len([line for line in run.told if "b (10.0.0.1, b) is gone" in line]) == 1
    # Nothing is sent to a node that is known to be dead, also while Ray takes it for alive.
    assert [node for _, node in fake_ray.begun].count("b") == 2
    assert fake_ray.asked == ["a", "b"]


def test_a_node_that_dies_while_idle_gets_nothing(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b")
    fake_ray.ends = lambda *_: (20.0, GOOD)
    run = Run(fake_ray, tasks=1)
    run.dispatcher._submit()
    fake_ray.kill("b")
    fake_ray.pass_time(10.0)
    run.dispatcher._look()
    assert [slot.node.id for slot in run.dispatcher.columns.all()[0].slots] == ["a"]


def test_a_worker_that_dies_on_a_living_node_is_tried_twice_then_told(fake_ray):
    fake_ray.add("a")
    crash = WorkerCrashedError("The worker died.\nIt was killed by signal 9.")
    fake_ray.ends = lambda name, _: (1.0, crash if name == "t1" else GOOD)
    run = Run(fake_ray)
    run.all()
    assert run.whys() == {"t1": "its worker process died: It was killed by signal 9."}
    assert [name for name, _ in fake_ray.begun].count("t1") == 2
    assert run.nodes() == Counter(a=3)
    assert run.told == []


def test_a_worker_that_dies_once_is_forgiven(fake_ray):
    fake_ray.add("a")
    answers = iter([WorkerCrashedError("died"), GOOD, GOOD])
    fake_ray.ends = lambda *_: (1.0, next(answers))
    run = Run(fake_ray, tasks=2)
    run.all()
    assert (run.whys(), run.nodes()) == ({}, Counter(a=2))


@pytest.mark.parametrize("death", [NodeDiedError, WorkerCrashedError])
def test_a_worker_that_dies_with_its_node_is_the_nodes_fault(fake_ray, death):
    """Ray tells of the worker first, and of the node only later."""
    fake_ray.death = death("it died")
    fake_ray.add("a")
    fake_ray.add("b")

    def ends(name, node):
        if node == "b":
            fake_ray.at(fake_ray.now + 0.9, lambda: fake_ray.kill("b"))
            return 0.8, WorkerCrashedError("died")
        return 5.0, GOOD

    fake_ray.ends = ends
    run = Run(fake_ray, tasks=3)
    run.all()
    assert (run.whys(), run.nodes()) == ({}, Counter(a=3))
    assert all(end.task.failures == 0 for _, end in run.ended)


def test_what_raises_on_a_node_is_tried_twice_then_told(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (1.0, RayTaskError("Traceback\nWorkerError: no memory"))
    run = Run(fake_ray, tasks=1)
    run.all()
    assert run.whys() == {"t0": "it failed on a (10.0.0.1, a): WorkerError: no memory"}
    assert len(fake_ray.begun) == 2


def test_a_task_whose_nodes_keep_dying_is_told(fake_ray):
    for id in "abcdefgh":
        fake_ray.add(id)

    def ends(name, node):
        if name == "t0":
            fake_ray.at(fake_ray.now + 1.0, lambda: fake_ray.kill(node))
        return 10.0, GOOD

    fake_ray.ends = ends
    run = Run(fake_ray, tasks=12)
    run.all()
    assert run.whys() == {"t0": "6 nodes died while they measured it"}
    assert run.names() == sorted(f"t{number}" for number in range(12))


def test_a_node_that_joins_takes_part(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(6.0, lambda: fake_ray.add("b"))
    run = Run(fake_ray, tasks=8)
    run.all()
    assert run.nodes()["b"] >= 2
    assert run.told == ["b (10.0.0.1, b) has joined"]
    assert fake_ray.asked == ["a", "b"]


def test_a_node_that_joins_and_cannot_measure_is_told_once(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(3.0, lambda: fake_ray.add("b", problem="has no layerbench"))
    run = Run(fake_ray)
    run.all()
    assert run.nodes() == Counter(a=4)
    assert run.told == ["b (10.0.0.1, b) has no layerbench: nothing is measured on it"]


def test_where_no_node_is_left_what_is_missing_is_told_after_a_while(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(7.0, lambda: fake_ray.kill("a"))
    run = Run(fake_ray, tasks=3)
    run.all()
    assert run.nodes() == Counter(a=1)
    assert run.whys() == dict.fromkeys(("t1", "t2"), "no node with amd-epyc-2c is left")
    assert 7.0 + JOIN_S < fake_ray.now < 7.0 + JOIN_S + 15.0


def test_a_node_that_comes_back_in_time_goes_on(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(7.0, lambda: fake_ray.kill("a"))
    fake_ray.at(7.0 + JOIN_S - 20.0, lambda: fake_ray.add("a2", answers_s=30.0))
    run = Run(fake_ray, tasks=3)
    run.all()
    assert (run.whys(), run.nodes()) == ({}, Counter(a=1, a2=2))


def test_an_interrupt_cancels_what_runs_everywhere(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b")
    fake_ray.ends = lambda *_: (50.0, GOOD)

    def interrupt():
        raise KeyboardInterrupt

    fake_ray.at(5.0, interrupt)
    run = Run(fake_ray)
    with pytest.raises(KeyboardInterrupt):
        run.all()
    assert sorted(fake_ray.cancelled) == ["t0", "t1"]
    assert run.ended == []
    assert fake_ray.now < 10.0


def test_leaving_the_loop_cancels_too(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b")
    fake_ray.ends = lambda _, node: (1.0 if node == "a" else 50.0, GOOD)
    run = Run(fake_ray)
    ends = run.dispatcher.run()
    next(ends)
    ends.close()
    assert fake_ray.cancelled == ["t1"]


def test_every_version_of_torch_has_all_tasks(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b", torch="2.11.0")
    fake_ray.add("c")
    run = Run(fake_ray, tasks=3)
    run.all()
    assert Counter(title for title, _ in run.ended) == {
        "amd-epyc-2c, torch 2.14.1": 3,
        "amd-epyc-2c, torch 2.11.0": 3,
    }
    assert run.nodes()["b"] == 3


def test_a_column_without_nodes_does_not_keep_others_waiting(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b", torch="2.11.0")
    fake_ray.at(1.2, lambda: fake_ray.kill("b"))
    run = Run(fake_ray)
    ends = run.dispatcher.run()
    while run.nodes()["a"] < 4:
        next(ends)
    assert fake_ray.now < 10.0
    for _ in ends:
        pass
    why = "no node with amd-epyc-2c, torch 2.11.0 is left"
    assert run.whys() == dict.fromkeys(("t0", "t1", "t2", "t3"), why)


def test_a_cluster_on_which_nothing_can_be_measured_is_told_at_once(fake_ray):
    fake_ray.add("a", problem="has no layerbench")
    with pytest.raises(UsageError, match=r"no node .* can measure: a \(.*has no layerbench"):
        Run(fake_ray)


@pytest.mark.parametrize("death", [NodeDiedError, TaskUnschedulableError, WorkerCrashedError])
def test_a_node_that_died_before_it_answers_is_as_if_it_had_never_been(fake_ray, death):
    """Ray takes it for alive for a while; with an error that is not of nodes, for less long."""
    fake_ray.death = death("it died")
    fake_ray.add("a")
    fake_ray.add("b", answers_s=10.0)
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.kill("b")
    if death is WorkerCrashedError:
        fake_ray.pass_time(NOTICED_S - FAILED_S)
    run = Run(fake_ray)
    run.all()
    assert (run.nodes(), run.told) == (Counter(a=4), [])


def test_a_node_that_dies_as_it_joins_is_asked_until_ray_tells_of_its_death(fake_ray):
    fake_ray.add("a")
    fake_ray.ends = lambda *_: (5.0, GOOD)
    fake_ray.at(2.5, lambda: (fake_ray.add("b"), fake_ray.kill("b")))
    run = Run(fake_ray)
    run.all()
    assert (run.nodes(), run.told) == (Counter(a=4), [])
    assert "b" in fake_ray.asked


def test_a_node_that_does_not_answer_is_told_and_the_others_measure(fake_ray):
    fake_ray.add("a")
    fake_ray.add("b", answers_s=1e6)
    run = Run(fake_ray)
    run.all()
    assert run.nodes() == Counter(a=4)
    assert run.told == [
        "waiting: b (10.0.0.1) has not yet said what it can measure on",
        "b (10.0.0.1, b) does not answer: Get timed out: nothing is measured on it",
    ]
