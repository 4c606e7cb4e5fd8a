"""Orders go to devices, one at a time on each, and their outcomes come back. Loads no torch.

Ray runs a task on the node that it is sent to, and tells when that node dies. Which node comes next
is decided here: a device measures one thing at a time, and only nodes of its column may take over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from layerbench.cluster import probe
from layerbench.cluster.columns import Column, Columns
from layerbench.cluster.nodes import (
    Prober,
    Slot,
    Wanted,
    alive,
    is_of_dead_node,
    last_line,
    on_node,
)
from layerbench.cluster.order import Order, Outcome
from layerbench.records.cluster_nodes import ClusterNode

LOOK_S = 2.0
WAIT_S = 0.2
# So long a column without a node is waited for: one that restarts joins again.
JOIN_S = 90.0
# A task whose nodes keep dying may be the reason, as one whose process keeps dying may.
MOST_NODES = 6
MOST_FAILURES = 2
TO_END_S = 10.0


@dataclass
class Task:
    """One order, on its way to an outcome.

    Attributes:
        name: for people; unique in its column.
        order: without the device, which the slot decides.
        dead_nodes, failures: how often its node died, and how often its worker process did.
    """

    name: str
    order: Order
    dead_nodes: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Ended:
    """A task's end.

    Attributes:
        outcome: ``None`` where there is none.
        why: there is none, as one sentence.
        node: that it ran on, or was to run on last.
    """

    task: Task
    outcome: Outcome | None
    why: str = ""
    node: ClusterNode | None = None


_Next = Literal["again", "asked"]
AGAIN: _Next = "again"
ASKED: _Next = "asked"


class Work(Protocol):
    """What is to be done on the devices of one column."""

    def take(self) -> Task | None:
        """The next task that can begin now; one that was given back comes first."""

    def give_back(self, task: Task) -> None:
        """It did not run."""

    def finish(self, ended: Ended) -> None:
        """It has ended."""

    @property
    def waits(self) -> bool:
        """Whether any has neither begun nor ended."""

    def left(self) -> list[Task]:
        """Those that have neither begun nor ended, as far as they are known."""


@dataclass
class _Running:
    """A task on a device.

    Attributes:
        crash: how its worker process died, while it is asked whether the node did; else empty.
    """

    task: Task
    column: Column
    slot: Slot
    crash: str = ""


class Dispatcher:
    """Runs the work of all columns.

    Args:
        ray: connected.
        wanted: the devices that are asked for.
        work_of: makes the work of a column, once.
        tell: hears, in one line, of nodes that come and go.
    """

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 - the module
        wanted: Wanted,
        work_of: Callable[[Columns, Column], Work],
        *,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        from layerbench.cluster import measuring

        self._ray = ray
        self._wanted = wanted
        self._work_of = work_of
        self._tell = tell
        self._prober = Prober(ray)
        self._measure = ray.remote(num_cpus=0, max_retries=0)(measuring.run)
        self._answer = ray.remote(num_cpus=0, max_retries=0)(probe.answer)
        self._nodes: dict[str, ClusterNode] = {}
        self._dead: set[str] = set()
        self._asked: dict[Any, Mapping[str, Any]] = {}
        self._running: dict[Any, _Running] = {}
        self._work: dict[int, tuple[Column, Work]] = {}
        self._looked = 0.0
        self._without_since: dict[int, float] = {}
        self.columns = Columns()

    def begin(self) -> None:
        """Ask every node what it has.

        Raises:
            UsageError: a device that is asked for is nowhere.
        """
        nodes = self._prober.ask_all(self._tell)
        self._wanted.check(nodes)
        # All of them first: what tells columns apart is known before their work is made.
        for node in nodes:
            self._add(node)
        self._make_work()
        self._looked = time.monotonic()

    def run(self) -> Iterator[Ended]:
        """Run until no work is left; gives each task's end as it comes.

        An interrupt, or leaving the loop, cancels what runs everywhere.
        """
        try:
            while True:
                self._look()
                self._submit()
                if not self._running and not any(work.waits for _, work in self._work.values()):
                    return
                yield from self._collect()
                yield from self._without_nodes()
        finally:
            self._cancel()

    # --- nodes -----------------------------------------------------------------------------

    def _add(self, node: ClusterNode) -> None:
        self._nodes[node.id] = node
        if node.problem:
            self._tell(f"{node.title} {node.problem}: nothing is measured on it")
            return
        for said, slot in self._wanted.slots(node):
            self.columns.add(said, slot)

    def _make_work(self) -> None:
        for column in self.columns.all():
            if id(column) not in self._work:
                self._work[id(column)] = (column, self._work_of(self.columns, column))

    def _look(self) -> None:
        """See which nodes are there, once in a while."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        there = alive(self._ray)
        for gone in self._nodes.keys() - there.keys():
            self._remove(self._nodes.pop(gone))
        asked = {facts["NodeID"] for facts in self._asked.values()}
        for new in there.keys() - self._nodes.keys() - asked - self._dead:
            self._asked[self._prober.ask(new)] = there[new]
        answered, _ = self._ray.wait(list(self._asked), timeout=0) if self._asked else ([], [])
        for answer in answered:
            node = self._prober.read(self._asked.pop(answer), answer)
            if node is not None and node.id in there.keys() - self._dead:
                self._add(node)
                self._make_work()
                if not node.problem:
                    self._tell(f"{node.title} has joined")

    def _remove(self, node: ClusterNode) -> None:
        if self.columns.remove(node.id):
            self._tell(f"{node.title} is gone: what it was measuring is measured elsewhere")

    # --- tasks -----------------------------------------------------------------------------

    def _submit(self) -> None:
        busy = {id(one.slot) for one in self._running.values()}
        for column, work in self._work.values():
            for slot in column.slots:
                if id(slot) in busy:
                    continue
                task = work.take()
                if task is None:
                    break
                order = replace(task.order, device=slot.device.place)
                strategy = on_node(slot.node.id)
                reference = self._measure.options(scheduling_strategy=strategy, name=task.name)
                self._running[reference.remote(order.packed())] = _Running(task, column, slot)

    def _collect(self) -> Iterator[Ended]:
        """The ends that have come in a moment."""
        if not self._running:
            time.sleep(WAIT_S)
            return
        ready, _ = self._ray.wait(list(self._running), timeout=WAIT_S)
        for reference in ready:
            running = self._running.pop(reference)
            work = self._work[id(running.column)][1]
            ended = self._ended(reference, running)
            if isinstance(ended, Ended):
                work.finish(ended)
                yield ended
            elif ended == AGAIN:
                work.give_back(running.task)

    def _ended(self, reference: Any, running: _Running) -> Ended | _Next:  # noqa: ANN401
        """How a task ended, or what comes next for it."""
        from ray import exceptions

        node = running.slot.node
        try:
            answer = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            return self._failed(running, f"it failed on {node.title}: {last_line(error)}")
        except exceptions.RayError as error:
            if running.crash or is_of_dead_node(error) or node.id not in alive(self._ray):
                return self._died(running)
            return self._crashed(running, f"its worker process died: {last_line(error)}")
        if running.crash:
            return self._failed(running, running.crash)
        return Ended(running.task, Outcome(**answer), node=node)

    def _crashed(self, running: _Running, how: str) -> _Next:
        """See whether the node still answers: it takes Ray a while to notice that one is gone."""
        strategy = on_node(running.slot.node.id)
        question = self._answer.options(scheduling_strategy=strategy).remote()
        self._running[question] = replace(running, crash=how)
        return ASKED

    def _failed(self, running: _Running, why: str) -> Ended | _Next:
        running.task.failures += 1
        if running.task.failures < MOST_FAILURES:
            return AGAIN
        return Ended(running.task, None, why, running.slot.node)

    def _died(self, running: _Running) -> Ended | _Next:
        node = running.slot.node
        # At once: the next task shall not go there.
        if self._nodes.pop(node.id, None) is not None:
            self._remove(node)
        self._dead.add(node.id)
        running.task.dead_nodes += 1
        if running.task.dead_nodes < MOST_NODES:
            return AGAIN
        return Ended(running.task, None, f"{MOST_NODES} nodes died while they measured it", node)

    def _without_nodes(self) -> Iterator[Ended]:
        """Tasks of columns that no node has been left of for too long."""
        busy = {id(one.column) for one in self._running.values()}
        for key, (column, work) in self._work.items():
            if column.slots or key in busy or self._asked:
                self._without_since.pop(key, None)
                continue
            since = self._without_since.setdefault(key, time.monotonic())
            if time.monotonic() - since < JOIN_S:
                continue
            for task in work.left():
                ended = Ended(task, None, f"no node with {self.columns.title(column)} is left")
                work.finish(ended)
                yield ended

    def _cancel(self) -> None:
        """End what runs, everywhere."""
        if not self._running:
            return
        for reference in self._running:
            self._ray.cancel(reference, force=False)
        self._ray.wait(list(self._running), num_returns=len(self._running), timeout=TO_END_S)
        self._running.clear()
