from __future__ import annotations

from layerbench.cluster.lists import ListWork
from layerbench.cluster.order import Order
from layerbench.cluster.scheduling import Ended, Task
from tests.support.clusters import column


def test_each_task_is_taken_once_and_first_where_it_was_given_back():
    heard: list[tuple[str, str]] = []
    tasks = [Task(name, Order((name,), "")) for name in "abc"]
    where = column()
    work = ListWork(where, tasks, lambda of, ended: heard.append((of.name, ended.task.name)))
    first, second = work.take(), work.take()
    assert (first, second, work.left()) == (tasks[0], tasks[1], [tasks[2]])
    work.give_back(first)
    assert work.left() == [tasks[0], tasks[2]]
    assert work.take() is first
    work.finish(Ended(first, None, "why"))
    assert (work.done, work.total, heard) == (1, 3, [("cpu", "a")])
    assert [work.take(), work.take()] == [tasks[2], None]


def test_a_task_that_ends_without_having_begun_is_not_left():
    tasks = [Task(name, Order((name,), "")) for name in "ab"]
    work = ListWork(column(), tasks, lambda *_: None)
    for task in work.left():
        work.finish(Ended(task, None, "no node is left"))
    assert (work.left(), work.take(), work.done) == ([], None, 2)
