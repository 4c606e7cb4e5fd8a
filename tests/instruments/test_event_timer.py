"""Device times by events, on a clock of their own whose events cost what the test says."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from layerbench.environment.devices import get
from layerbench.environment.devices.clocks import ManualClock
from layerbench.instruments import event_timer, queue_block
from layerbench.instruments.borders import Launches
from layerbench.instruments.calibration import EventCost
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.modules import module_facts
from layerbench.instruments.queue_block import LAUNCHING_WITHIN
from tests.models import Calls, Small

X = torch.zeros(2, 3)


class Queue(ManualClock):
    """A device and its clock: an event takes its time on the queue, and work as stated.

    The host's own time passes in `host_ns`.
    """

    kind = "cpu"
    torch_device = torch.device("cpu")

    def __init__(self, event_ns: int = 0, can_block: bool = True) -> None:
        super().__init__()
        self.event_ns = event_ns
        self.can_block = can_block
        self.events = 0
        self.blocked_s: list[float] = []
        self.host_ns = 0

    def clock(self) -> Queue:
        return self

    def block_queue(self, seconds: float) -> bool:
        self.blocked_s.append(seconds)
        return self.can_block

    def mark(self) -> int:
        self.events += 1
        self.now_ns += self.event_ns
        return self.now_ns

    def resolve_host(self, marks: Sequence[int]) -> list[int] | None:
        return list(marks)  # whatever: that there are any says that its marks are events

    def work(self, nanoseconds: int, x: torch.Tensor) -> torch.Tensor:
        """An operator that takes so long."""
        self.now_ns += nanoseconds
        return x + 1


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Its events cost 7 ns."""
    made = Queue(event_ns=7)
    monkeypatch.setattr(queue_block, "perf_counter_ns", lambda: made.host_ns)
    return made


class Works(nn.Module):
    """One operator of a known length."""

    def __init__(self, queue: Queue, nanoseconds: int) -> None:
        super().__init__()
        self.queue = queue
        self.nanoseconds = nanoseconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.queue.work(self.nanoseconds, x)


class Holds(nn.Module):
    """Runs its children in turn and an operator of its own before, between and after them."""

    def __init__(self, queue: Queue, own: int, *children: nn.Module) -> None:
        super().__init__()
        self.queue = queue
        self.own = own
        self.inner = nn.ModuleList(children)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for child in self.inner:
            x = child(self.queue.work(self.own, x))
        return self.queue.work(self.own, x)


def timer_of(model: nn.Module, queue: Queue) -> EventTimer:
    facts = module_facts(model)
    timed = frozenset(fact.path for fact in facts if fact.reachable)
    return EventTimer(model, [fact.path for fact in facts], timed, queue)


Table = dict[str, tuple[int, int, int]]


def table(model: nn.Module, forward: KernelForward) -> Table:
    """path -> (inclusive, self, calls)."""
    columns = (forward.inclusive_ns, forward.self_ns, forward.calls)
    paths = [fact.path for fact in module_facts(model)]
    return {path: tuple(int(c[i]) for c in columns) for i, path in enumerate(paths)}


def forwards(model: nn.Module, queue: Queue, count: int = 3) -> tuple[EventTimer, list[Table]]:
    timer = timer_of(model, queue)
    return timer, [table(model, timer.run(lambda: model(X))) for _ in range(count)]


def test_exact_table(queue: Queue) -> None:
    model = Holds(queue, 1, Works(queue, 10), Holds(queue, 2, Works(queue, 30)))
    timer, tables = forwards(model, queue)
    known = {
        "": (47, 3, 1),  # 1 + 10 + 1 + (2 + 30 + 2) + 1
        "inner": (0, 0, 0),
        "inner.0": (10, 10, 1),
        "inner.1": (34, 4, 1),
        "inner.1.inner": (0, 0, 0),
        "inner.1.inner.0": (30, 30, 1),
    }
    assert tables == [known] * 3
    assert timer.event_cost_ns == 7
    assert timer.notes() == ()


@pytest.mark.parametrize(("least_s", "resolution_ns"), [(3e-6, 15_000), (1e-6, 10_000)])
def test_what_is_shorter_than_five_events_is_not_told_from_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, least_s: float, resolution_ns: int
) -> None:
    """An event may take little of the queue, and two may yet be far apart."""
    monkeypatch.setattr(event_timer, "event_cost", lambda _: EventCost(2e-6, least_s))
    timer = timer_of(Works(queue, 5), queue)
    assert (timer.event_cost_ns, timer.resolution_ns) == (2_000, resolution_ns)


def test_one_event_at_each_end_of_a_piece_of_work(queue: Queue) -> None:
    leaves = nn.Sequential(Works(queue, 5), nn.Dropout(), nn.Flatten(), nn.Identity())
    model = nn.Sequential(Works(queue, 3), leaves, nn.Sequential(Works(queue, 4))).eval()
    timer = timer_of(model, queue)
    _ = timer.event_cost_ns
    counts = []
    for _ in range(2):
        before = queue.events
        timer.run(lambda: model(X))
        counts.append(queue.events - before)
    # Observed: around each of 9 modules. Then: the start, the ends of three works, the end.
    assert counts == [18, 5]


def test_rows_add_up_to_the_span_also_where_events_took_less_than_usual(queue: Queue) -> None:
    model = nn.Sequential(*(Works(queue, length) for length in (100, 0, 3, 50)))
    timer = timer_of(model, queue)
    _ = timer.event_cost_ns
    timer.run(lambda: model(X))
    queue.event_ns = 5  # the pieces of 0 and 3 ns come out shorter than an event
    forward = timer.run(lambda: model(X))
    assert forward.inclusive_ns.tolist() == [98 + 1 + 48, 98, 0, 1, 48]
    assert forward.span_ns == forward.self_ns.sum() == forward.inclusive_ns[0]
    assert forward.idle_ns == 0


def test_shared_and_recursive_modules_are_counted_once(queue: Queue) -> None:
    def again(self: nn.Module, x: torch.Tensor, depth: int) -> torch.Tensor:
        return self(queue.work(1, x), depth - 1) if depth else x

    shared = Works(queue, 6)
    model = Calls(lambda self, x: self.b(self.again(self.a(self.b(x)), 3)),
                  a=Calls(lambda self, x: self.inner(x), inner=shared), b=shared,
                  again=Calls(again))  # fmt: skip
    _, tables = forwards(model, queue)
    assert (
        tables == [{"": (21, 0, 1), "a": (6, 0, 1), "a.inner": (18, 18, 3), "again": (3, 3, 4)}] * 3
    )


def test_another_way_is_noticed_and_timed_with_two_events_a_module(queue: Queue) -> None:
    def run(self: Calls, x: torch.Tensor) -> torch.Tensor:
        return self.b(x) if self.turn in (1, 5) else self.b(self.a(queue.work(2, x)))

    model = Calls(run, a=Works(queue, 10), b=Works(queue, 20))
    timer = timer_of(model, queue)
    found = []
    for turn in range(7):
        model.turn = turn
        found.append(table(model, timer.run(lambda: model(X))))
    usual = {"": (32, 2, 1), "a": (10, 10, 1), "b": (20, 20, 1)}
    other = {"": (20, 0, 1), "a": (0, 0, 0), "b": (20, 20, 1)}
    assert found == [usual, other, usual, usual, usual, other, usual]
    assert timer.notes() == (
        "2 of 7 forwards for device times went another way than the one observed: there two "
        "events stand around each module",
    )
    timer.forget()
    assert timer.notes() == ()


def test_a_way_that_is_kept_from_the_second_forward_on_is_observed_anew(queue: Queue) -> None:
    def run(self: Calls, x: torch.Tensor) -> torch.Tensor:
        if not self.filled:
            x, self.filled = self.a(x), True
        return self.b(x)

    model = Calls(run, a=Works(queue, 10), b=Works(queue, 20), c=nn.Identity())
    model.filled = False
    timer = timer_of(model, queue)
    for _ in range(3):
        timer.run(lambda: model(X))
    timer.forget()
    assert timer.run(lambda: model(X)).inclusive_ns.tolist() == [20, 0, 20, 0]
    assert timer.notes() == ()


def test_a_module_that_raises_and_is_caught_keeps_its_time(queue: Queue) -> None:
    def fail(self: nn.Module, x: torch.Tensor) -> None:
        queue.work(3, x)
        raise ValueError("not today")

    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with pytest.raises(ValueError, match="not today"):
            self.bad(x)
        return self.good(x)

    model = Calls(run, bad=Calls(fail), good=Works(queue, 2))
    _, tables = forwards(model, queue)
    assert tables == [{"": (5, 0, 1), "bad": (3, 3, 1), "good": (2, 2, 1)}] * 3


def test_everything_comes_off_also_when_the_model_raises(queue: Queue) -> None:
    model = Calls(lambda self, x: self.a(x), a=Calls(lambda self, x: 1 / self.divisor))
    model.a.divisor = 1
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    timer = timer_of(model, queue)
    for divisor in (0, 1, 1, 0):
        model.a.divisor = divisor
        if divisor:
            timer.run(lambda: model(X))
            continue
        with pytest.raises(ZeroDivisionError):
            timer.run(lambda: model(X))
        assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
        before["a"]["divisor"] = divisor
        assert {path: dict(m.__dict__) for path, m in model.named_modules()} == before


WHOLE = torch.ones(1, 6)


@pytest.mark.parametrize(
    ("run", "launches"),
    [
        (lambda: WHOLE.view(-1).unsqueeze(0).detach().reshape(3, 2).t().expand(4, 2, 3), False),
        (lambda: WHOLE.contiguous().to(torch.float32), False),
        (lambda: nn.functional.dropout(WHOLE, training=False), False),
        (lambda: torch.empty_like(WHOLE), False),
        (lambda: WHOLE + 1, True),
        (WHOLE.relu_, True),
        (lambda: WHOLE.view(3, 2).t().contiguous(), True),
        (lambda: WHOLE.view(3, 2).t().reshape(-1), True),
        (lambda: WHOLE.to(torch.float64), True),
        (lambda: WHOLE.sum().item(), True),
        (lambda: WHOLE.split(3, dim=1), False),
        (WHOLE.to_sparse, True),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_what_launches_work(run, launches, inference) -> None:
    seen = Launches("cpu")
    with torch.inference_mode(inference), seen:
        run()
    assert seen.taken() is launches
    assert not seen.taken()


def test_work_on_another_device_launches_nothing() -> None:
    seen = Launches("cuda")
    with seen:
        _ = WHOLE + 1
    assert not seen.taken()


def test_kernels_that_no_operator_launches_belong_to_their_leaf(queue: Queue) -> None:
    """A module of the user's own may launch what PyTorch does not know of."""
    hidden = Calls(lambda self, x: queue.advance(40) or x)
    scripted = torch.jit.script(nn.Sequential(nn.Identity()))
    model = nn.Sequential(hidden, Works(queue, 2), scripted)
    timer, tables = forwards(model, queue)
    assert [t["0"] for t in tables] == [(40, 40, 1)] * 3
    before = queue.events
    timer.run(lambda: model(X))
    assert queue.events - before == 5  # start, hidden, works, scripted, end


def test_modules_called_in_other_threads_are_said(queue: Queue) -> None:
    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=self.a, args=(x,))
        thread.start()
        thread.join()
        return self.b(x)

    timer, tables = forwards(Calls(run, a=Works(queue, 9), b=Works(queue, 2)), queue)
    # The other thread's work falls into the time of the module that waits.
    assert tables == [{"": (11, 9, 1), "a": (0, 0, 0), "b": (2, 2, 1)}] * 3
    assert timer.notes() == ("called in other threads, whose work is not timed: a",)


def test_the_queue_is_blocked_for_as_long_as_the_host_takes_to_launch(queue: Queue) -> None:
    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        queue.host_ns += 3_000_000
        return self.a(x)

    model = Calls(run, a=Works(queue, 10))
    timer = timer_of(model, queue)
    _ = timer.event_cost_ns
    queue.blocked_s.clear()
    for _ in range(3):
        timer.run(lambda: model(X))
    assert queue.blocked_s == pytest.approx([0.0065, 0.0065])  # twice the 3 ms, and a margin
    assert timer.notes() == ()


def test_a_queue_that_cannot_be_blocked_is_said(queue: Queue) -> None:
    queue.can_block = False
    timer, tables = forwards(Works(queue, 10), queue)
    assert [t[""] for t in tables] == [(10 + 7, 10 + 7, 1)] * 3
    assert len(queue.blocked_s) == 2  # one try for the event's cost, one for the forwards
    assert timer.notes() == (LAUNCHING_WITHIN,)


def test_launching_that_outlasts_the_block_is_said_and_not_tried_for_ever(queue: Queue) -> None:
    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        queue.host_ns += self.takes_ns
        return self.a(x)

    model = Calls(run, a=Works(queue, 10))
    timer = timer_of(model, queue)
    for model.takes_ns in (1_000_000, 5_000_000, 5_000_000):
        timer.run(lambda: model(X))
    assert timer.notes() == (
        "1 of 3 forwards for device times took the host longer than the queue was blocked: some "
        "launching may be within them",
    )
    # As a forward does in which the host waits for the device, and so for the block.
    for model.takes_ns in (20_000_000, 50_000_000, 200_000_000, 200_000_000, 200_000_000):
        timer.run(lambda: model(X))
    assert timer.notes() == (
        "the host waits for the device in the forward, or takes too long to launch it: launching "
        "is within device times",
    )
    tried = len(queue.blocked_s)
    timer.run(lambda: model(X))
    assert len(queue.blocked_s) == tried


def test_rows_below_the_clocks_resolution(queue: Queue) -> None:
    model = nn.Sequential(
        Works(queue, 34),
        Works(queue, 35),
        nn.Identity(),
        nn.Sequential(Works(queue, 30), Works(queue, 60)),
    )
    timer = timer_of(model, queue)
    assert timer.resolution_ns == 35
    kept = [timer.run(lambda: model(X)) for _ in range(3)]
    paths = [fact.path for fact in module_facts(model)]
    # Pieces of 34 and 30 ns are too short; the last row is long enough for its two.
    below = [paths[index] for index in timer.below_resolution(kept)]
    assert below == ["0", "3.0"]
    assert timer.below_resolution([]) == ()


def test_a_real_model_by_the_hosts_clock() -> None:
    model = Small().eval()
    facts = module_facts(model)
    timer = EventTimer(model, [f.path for f in facts], frozenset(f.path for f in facts), get("cpu"))
    x = torch.rand(1, 3, 8, 8)
    expected = model(x)
    kept = [timer.run(lambda: model(x)) for _ in range(3)]
    for forward in kept:
        assert forward.self_ns.sum() == forward.span_ns > 0
        assert forward.calls.tolist() == kept[0].calls.tolist()
    assert torch.equal(model(x), expected)


def test_what_is_compiled_is_one_piece_and_is_not_compiled_anew(queue: Queue) -> None:
    compiled = []

    class Block(nn.Module):
        """PyTorch 2.4 compiles no `Sequential`."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).relu()

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
        compiled.append(graph)
        return graph.forward

    model = nn.Sequential(Block(), Works(queue, 5)).eval()
    model[0].compile(backend=backend)
    with torch.inference_mode():
        model(X)
        _, tables = forwards(model, queue)
        model(X)
    assert len(compiled) == 1
    assert [t["1"] for t in tables] == [(5, 5, 1)] * 3
    assert [t["0"][2] for t in tables] == [1] * 3
