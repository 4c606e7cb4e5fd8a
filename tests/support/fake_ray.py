"""What the dispatcher needs of Ray, in virtual time: nodes that come and go, tasks that end."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import layerbench
from layerbench.cluster import scheduling
from tests.support.clusters import CPU

# Between a node's end and the moments at which its tasks fail, and at which Ray tells of it.
FAILED_S = 1.0
NOTICED_S = 3.0
Ends = Callable[[str, str], tuple[float, Any]]
"""Of a task's name and its node: after how many seconds it ends, and its answer or error."""


class RayError(Exception): ...


class RayTaskError(RayError): ...


class NodeDiedError(RayError): ...


class TaskUnschedulableError(RayError): ...


class WorkerCrashedError(RayError): ...


KINDS = (RayError, RayTaskError, NodeDiedError, TaskUnschedulableError, WorkerCrashedError)


@dataclass(eq=False)
class Reference:
    """A task that was begun.

    Attributes:
        name: of the task, or of the function.
        node: that it was sent to.
        ends: when it does.
        answer: of the task, or the error that it ended with.
    """

    name: str
    node: str
    ends: float
    answer: Any
    cancelled: bool = False


@dataclass
class _Function:
    ray: FakeRay
    kind: str
    node: str = ""
    name: str = ""

    def options(self, *, scheduling_strategy: Any, name: str = "") -> _Function:
        return _Function(self.ray, self.kind, scheduling_strategy.node_id, name or self.kind)

    def remote(self, *_: Any) -> Reference:
        return self.ray.begin(self)


@dataclass
class FakeRay:
    """A cluster.

    Args:
        ends: of measurements.

    Attributes:
        now: seconds.
        events: what happens when; each is done once.
        begun: every measurement by name and node.
        cancelled: names of tasks that were.
        asked: nodes that were asked what they have.
        death: how a task of a node that died ends.
    """

    ends: Ends = lambda *_: (1.0, {"status": 0, "output": "{}"})
    now: float = 0.0
    events: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    begun: list[tuple[str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    death: Exception = field(default_factory=lambda: NodeDiedError("the node died"))

    def __post_init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._dead: dict[str, float] = {}
        self._flying: list[Reference] = []
        self.cloudpickle = types.SimpleNamespace(register_pickle_by_value=lambda _: None)

    # --- the cluster -----------------------------------------------------------------------

    def add(
        self, id: str, torch: str = "2.14.1", problem: str = "", answers_s: float = 0.5
    ) -> None:
        """A node joins."""
        packages = {"torch": torch}
        described = {"layerbench": layerbench.__version__, "python": "3.11", "packages": packages}
        described["devices"] = [CPU.model_dump()]
        self._nodes[id] = {
            "described": {"problem": problem} if problem else described,
            "answers_s": answers_s,
        }

    def kill(self, id: str) -> None:
        """A node dies, and what runs on it."""
        self._dead[id] = self.now
        for one in self._flying:
            if one.node == id and one.ends > self.now:
                one.ends, one.answer = self.now + FAILED_S, self.death

    def at(self, seconds: float, event: Callable[[], object]) -> None:
        """Something happens later."""
        self.events.append((seconds, event))

    def pass_time(self, seconds: float) -> None:
        """Let events happen."""
        until = self.now + seconds
        for event in sorted(self.events, key=lambda one: one[0]):
            if event[0] <= until:
                self.events.remove(event)
                self.now = max(self.now, event[0])
                event[1]()
        self.now = until

    def begin(self, function: _Function) -> Reference:
        """A task is sent to a node."""
        node = function.node
        if function.kind == "run":
            self.begun.append((function.name, node))
            seconds, answer = self.ends(function.name, node)
        elif function.kind == "describe":
            self.asked.append(node)
            seconds, answer = self._nodes[node]["answers_s"], self._nodes[node]["described"]
        else:
            seconds, answer = 0.1, True
        if node in self._dead:
            seconds, answer = FAILED_S, self.death
        made = Reference(function.name, node, self.now + seconds, answer)
        self._flying.append(made)
        return made

    # --- Ray's own -------------------------------------------------------------------------

    def remote(self, **settings: Any) -> Callable[[Callable[..., Any]], _Function]:
        assert settings == {"num_cpus": 0, "max_retries": 0}
        return lambda function: _Function(self, function.__name__)

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": id,
                "Alive": self._dead.get(id, self.now) + NOTICED_S > self.now,
                "NodeManagerAddress": "10.0.0.1",
                "NodeManagerHostname": id,
                "Resources": {"CPU": 1.0},
            }
            for id in self._nodes
        ]

    def wait(
        self, references: Sequence[Reference], *, timeout: float, num_returns: int = 1
    ) -> tuple[list[Reference], list[Reference]]:
        def ready() -> list[Reference]:
            return [one for one in references if one.ends <= self.now]

        waited = 0.0
        while len(ready()) < num_returns and waited < timeout:
            step = min(0.1, timeout - waited)
            self.pass_time(step)
            waited += step
        return ready()[:num_returns], [one for one in references if one not in ready()]

    def get(self, reference: Reference, timeout: float = 1e9) -> Any:
        self.pass_time(max(0.0, min(reference.ends - self.now, timeout)))
        if reference.ends > self.now:
            raise RayError("Get timed out")
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def cancel(self, reference: Reference, *, force: bool) -> None:
        assert not force
        self.cancelled.append(reference.name)
        reference.ends, reference.answer = self.now, RayError("cancelled")


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """A cluster without nodes, in whose time the dispatcher lives."""
    made = FakeRay()
    modules = {name: types.ModuleType(name) for name in ("ray", "ray.exceptions", "ray.util")}
    for kind in KINDS:
        setattr(modules["ray.exceptions"], kind.__name__, kind)
    modules["ray"].exceptions = modules["ray.exceptions"]  # type: ignore[attr-defined]
    name = "ray.util.scheduling_strategies"
    modules[name] = types.ModuleType(name)
    modules[name].NodeAffinitySchedulingStrategy = types.SimpleNamespace  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    time = types.SimpleNamespace(monotonic=lambda: made.now, sleep=made.pass_time)
    monkeypatch.setattr(scheduling, "time", time)
    return made
