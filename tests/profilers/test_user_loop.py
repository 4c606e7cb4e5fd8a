from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment.devices.clocks import DeviceEvents, ManualClock
from layerbench.errors import UsageError
from layerbench.profilers import user_loop
from tests.faulty import modules
from tests.models import Calls, Composite, Small, Takes
from tests.support.sample_structures import ceilings


def test_exact_rows_in_the_users_own_loop() -> None:
    clock = ManualClock()
    model = Composite(clock, 1, Takes(clock, 10), Takes(clock, 20))
    with layerbench.time_layers(model, clock=clock) as layers:
        for _ in range(5):
            assert model(3) == 3
    rows = {row.path: row for row in layers.rows}
    assert layers.forwards == 5
    assert list(rows) == ["", "inner", "inner.0", "inner.1"]
    root, slow = rows[""], rows["inner.1"]
    assert root.inclusive
    assert root.self_
    assert slow.inclusive
    # Forward 0 is looked at closely, 2 and 4 time functions; 1 and 3 are the samples.
    assert root.inclusive.n == 2
    assert root.inclusive.median == pytest.approx(33e-9)
    assert root.self_.median == pytest.approx(3e-9)
    assert slow.inclusive.median == pytest.approx(20e-9)
    assert rows["inner"].calls == 0
    assert rows["inner"].inclusive is None


def test_rows_hold_every_module_and_the_functions() -> None:
    model = Small().eval()
    with torch.inference_mode(), layerbench.time_layers(model) as layers:
        for _ in range(4):
            model(torch.rand(2, 3, 16, 16))
    rows = {row.path: row for row in layers.rows}
    assert {p for p, r in rows.items() if r.kind == "module"} == set(dict(model.named_modules()))
    assert [p for p, r in rows.items() if r.kind == "function"] == [
        "blocks.0.add()",
        "blocks.1.add()",
        "adaptive_avg_pool2d()",
        "flatten()",
    ]
    assert rows["unused"].calls == 0
    assert rows["unused"].inclusive is None
    assert rows["stem"].input_shapes == ((2, 3, 16, 16),)
    assert rows["stem"].parameters == 3 * 4 * 9 + 4
    order = list(rows)
    assert order.index("adaptive_avg_pool2d()") < order.index("head")


def test_one_forward_is_enough_and_none_gives_no_rows() -> None:
    model = Small().eval()
    with layerbench.time_layers(model) as layers:
        assert layers.rows == ()
        model(torch.rand(1, 3, 8, 8))
    rows = layers.rows
    assert layers.rows is rows  # not made anew where no forward has come
    assert {row.kind for row in rows} == {"module", "function"}
    assert rows[0].inclusive
    assert rows[0].inclusive.n == 1


def test_results_are_the_models_own_and_gradients_flow() -> None:
    model = Small()
    x = torch.rand(1, 3, 8, 8)
    expected = model(x)
    with layerbench.time_layers(model):
        for _ in range(6):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        model(x).sum().backward()
    assert model.stem.weight.grad is not None


def test_a_forward_that_raises_is_no_sample() -> None:
    clock = ManualClock()

    def run(self: nn.Module, bad: bool) -> None:
        self.a(0)
        if bad:
            raise ValueError("bad batch")

    model = Calls(run, a=Takes(clock, 5))
    with layerbench.time_layers(model, clock=clock) as layers:
        for bad in (False, True, False, True, False, False):
            if bad:
                with pytest.raises(ValueError, match="bad batch"):
                    model(bad)
            else:
                model(bad)
    assert layers.forwards == 4
    row = next(row for row in layers.rows if row.path == "a")
    assert row.inclusive
    assert (row.inclusive.min, row.inclusive.max) == (pytest.approx(5e-9), pytest.approx(5e-9))


def test_hooks_that_come_and_go_inside_the_loop_run() -> None:
    clock = ManualClock()
    model = Composite(clock, 0, Takes(clock, 10), Takes(clock, 20))
    heard: list[int] = []
    with layerbench.time_layers(model, clock=clock) as layers:
        for number in range(7):
            if number == 3:
                handle = model.inner[0].register_forward_hook(lambda *_: heard.append(clock.now_ns))
            if number == 5:
                handle.remove()
            model(0)
    assert heard == [100, 130]  # forwards 3 and 4, each after 10 of its 30 ns
    row = next(row for row in layers.rows if row.path == "inner.0")
    assert row.inclusive
    assert row.inclusive.n == 4  # forwards 1, 3, 5, 6; 0, 2 and 4 are looked at closely
    assert row.inclusive.max == pytest.approx(10e-9)


def test_a_very_long_loop_keeps_samples_spread_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_loop, "DRAIN_AT", 30)
    monkeypatch.setattr(user_loop, "KEEP_AT_MOST", 20)
    clock = ManualClock()
    taking = Takes(clock, 0)
    model = Composite(clock, 0, taking)
    with layerbench.time_layers(model, clock=clock) as layers:
        for number in range(1000):
            taking.nanoseconds = number
            model(0)
    row = next(row for row in layers.rows if row.path == "inner.0")
    assert row.inclusive
    assert 10 <= row.inclusive.n <= 40
    assert row.inclusive.median == pytest.approx(500e-9, rel=0.2)


def test_the_block_can_be_entered_again() -> None:
    clock = ManualClock()
    model = Composite(clock, 0, Takes(clock, 10))
    layers = user_loop.LiveLayers(model, clock)
    for _ in range(4):
        with layers.attached():
            model(0)
        assert not any("_call_impl" in module.__dict__ for module in model.modules())
    assert layers.forwards == 4
    assert layers.rows[0].inclusive
    assert layers.rows[0].inclusive.n == 2


def test_everything_comes_off_when_the_loop_breaks() -> None:
    model = Small()
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    with pytest.raises(TypeError), layerbench.time_layers(model):
        model()
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before


def test_a_module_that_sleeps_is_found_with_its_time() -> None:
    nap_s = 0.02

    class Naps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(nap_s)
            return x

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Naps(), nn.ReLU())
    with layerbench.time_layers(model) as layers:
        for _ in range(6):
            model(torch.rand(1, 3, 8, 8))
    slowest = max(layers.rows[1:], key=lambda row: row.inclusive.median if row.inclusive else 0)
    assert slowest.path == "1"
    # A sleep may last longer than asked, on a busy machine, and never less.
    assert slowest.inclusive
    assert slowest.inclusive.min >= nap_s


class FakeEvent:
    """A device's event: its queue runs behind the host by what ``FakeDevice`` holds."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.at = 0

    def record(self, _queue: object, /) -> None:
        self.at = self.device.queue_ns
        self.device.records += 1

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.device.waits += 1

    def elapsed_time(self, end: FakeEvent, /) -> float:
        return (end.at - self.at) / 1e6


class FakeDevice:
    """A queue to which modules add work, and which nobody waits for but ``synchronize``."""

    def __init__(self) -> None:
        self.queue_ns = 0
        self.records = 0
        self.waits = 0
        self.made = 0
        self.clock = DeviceEvents(self.event, self.synchronize, lambda: None)

    def event(self) -> FakeEvent:
        self.made += 1
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.waits += 1


def test_a_device_is_waited_for_once_in_many_forwards() -> None:
    device = FakeDevice()

    def work(self: nn.Module, x: int) -> int:
        device.queue_ns += 1000
        return x

    model = Calls(lambda self, x: self.b(self.a(x)), a=Calls(work), b=Calls(work))
    with layerbench.time_layers(model, clock=device.clock) as layers:
        for _ in range(4):
            model(1)
        waited_in_loop = device.waits
        rows = {row.path: row for row in layers.rows}
    assert waited_in_loop <= 4  # once for the close look, once for each functions' forward
    assert rows["a"].inclusive
    assert rows["a"].inclusive.median == pytest.approx(1e-6)
    assert rows[""].inclusive
    assert rows[""].inclusive.median == pytest.approx(2e-6)
    # The host's time stands beside the device's, so that a launch-bound layer shows.
    assert rows["a"].host_inclusive is not None
    assert rows["a"].host_inclusive.median != rows["a"].inclusive.median


def test_a_loop_of_one_forward_has_its_times():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with layerbench.time_layers(model) as layers:
        model(torch.rand(2, 3))
    assert [(row.path, row.calls, row.inclusive is not None) for row in layers.rows] == [
        ("", 1, True),
        ("0", 1, True),
        ("1", 1, True),
    ]


def test_a_class_that_a_forward_changes_counts_in_the_next_forward():
    case = next(case for case in modules.CASES if case.name.startswith("a class that"))
    for pick in (lambda model: model, lambda model: model[0]):  # as a part, and as the whole
        model, (x,) = case.build()
        model = pick(model)
        plain = copy.deepcopy(model)
        expected = [plain(x) for _ in range(4)]
        with layerbench.time_layers(model) as layers:
            assert all(torch.equal(model(x), output) for output in expected)
        assert {row.path.removeprefix("0.") for row in layers.rows if row.calls == 2} == {"later"}


# --- the record -----------------------------------------------------------------------------


def test_the_record_is_that_of_a_profile(tmp_path) -> None:
    model = Small().eval()
    with torch.inference_mode(), layerbench.time_layers(model) as layers:
        assert str(layers).startswith("<LiveLayers: no forward of the model has ended yet: ")
        with pytest.raises(UsageError, match="no forward of the model has ended yet"):
            _ = layers.record
        for _ in range(5):
            model(torch.rand(2, 3, 16, 16))
        assert layers.record.whole.n == 2
        model(torch.rand(2, 3, 16, 16))
    record = layers.record
    assert record is layers.record
    assert record.layers == layers.rows
    assert record.layers[0].inclusive == record.whole
    assert (record.model_type, record.workload.shape) == ("Small", (2, 3, 16, 16))
    assert (record.workload.mode, record.plan.iterations) == ("eval", 3)
    assert record.reconciliation is None
    assert "loop of its user's own" in record.absent["untouched forward"]
    assert "Whole model, instrumented" in layerbench.reporters.render("txt", record)
    assert record.environment.machine.cores
    assert layerbench.read(layers.save(tmp_path / "loop")) == record
    assert str(layers) == str(record)
    assert sum(group.share for group in layers.by_type()) == pytest.approx(1)
    assert layers.top(1)[0].row in record.layers


def test_inputs_that_say_no_shape_are_the_models_own_affair() -> None:
    class Reads(nn.Module):
        def forward(self, numbers):
            return sum(numbers)

    model = Reads()
    with layerbench.time_layers(model) as layers:
        for _ in range(3):
            assert model(iter([1, 2, 3])) == 6
    assert layers.record.workload.shape == ()


# --- FLOPs and ceilings ---------------------------------------------------------------------


def train(model: nn.Module, steps: int) -> list[torch.Tensor]:
    """Losses of a training whose batches have other sizes from step to step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(0)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.rand(2 + step % 2, 3, 8, 8, generator=draw)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_flops_are_those_of_the_first_forward_and_training_is_as_without() -> None:
    model = Small()
    plain, begun = copy.deepcopy(model), []
    model.stem.register_forward_pre_hook(lambda *_: begun.append(1))
    with layerbench.time_layers(model) as layers:
        losses = train(model, 7)
    assert torch.equal(torch.stack(losses), torch.stack(train(plain, 7)))
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    assert len(begun) == layers.forwards == 7
    record = layers.record
    expected = {row.path: row.self_flops for row in layerbench.structure(plain, "2x3x8x8").rows}
    ran = {row.path: row for row in record.layers if row.kind == "module" and row.calls}
    assert {path: row.self_flops for path, row in ran.items()} == {p: expected[p] for p in ran}
    assert (ran["blocks.0.conv"].groups, ran["blocks.0.conv"].kernel_size) == (1, (3, 3))
    assert "flops" not in record.absent
    assert record.top(1, sort="flops")[0].flops == expected["blocks.0.conv"]
    assert user_loop.CHANGED not in record.notes  # forwards 2 and 4 had the batch of the first


def test_what_a_reader_must_know_of_flops_is_noted() -> None:
    model = Small().eval()
    with layerbench.time_layers(model) as layers:
        model(torch.rand(1, 3, 8, 8))
        assert user_loop.ONCE in layers.notes
        assert str(layers).splitlines()[2].startswith(user_loop.ONCE)
        model(torch.rand(1, 3, 8, 8))
        assert layers.notes == ()
        model(torch.rand(3, 3, 8, 8))
    assert layers.record.notes == (user_loop.CHANGED,)
    assert str(layers).splitlines()[2].startswith("inputs of other shapes followed")
    with layerbench.time_layers(model, flops=False) as layers:
        model(torch.rand(1, 3, 8, 8))
    assert layers.record.absent["flops"] == "not asked for"
    assert layers.record.layers[0].flops is None


def test_ceilings_are_measured_where_asked_when_the_block_ends(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("layerbench.profilers.ceilings._measured", {})
    monkeypatch.setattr(
        "layerbench.profilers.ceilings.measure_ceilings",
        lambda _, dtype: asked.append(dtype) or ceilings(),
    )
    model = nn.Sequential(nn.Linear(4, 4))
    with layerbench.time_layers(model) as layers:
        model(torch.rand(2, 4))
    assert layers.record.ceilings is None
    layers.measure_ceilings()
    assert layers.record.ceilings == ceilings()
    with layerbench.time_layers(model, ceilings=True) as layers:
        model(torch.rand(2, 4))
        assert layers.record.ceilings is None
    assert layers.record.ceilings == ceilings()
    assert asked == ["float32"]
    assert {spot.bound for spot in layers.top() if spot.row.path == "0"} == {"memory"}


def test_a_model_is_timed_as_it_is_when_it_first_runs() -> None:
    model = Small().eval()
    with layerbench.time_layers(model) as layers:
        model.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        for _ in range(3):
            model(torch.rand(1, 3, 8, 8))
    assert {"head.0", "head.1"} <= {row.path for row in layers.rows if row.inclusive}
