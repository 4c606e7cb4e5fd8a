"""Training steps of a user's own loop taken apart: known times, and a loop left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import layerbench
from layerbench.environment.devices.clocks import ManualClock
from layerbench.errors import UsageError
from layerbench.profilers import user_steps_record as reasons
from layerbench.profilers.user_steps import optimizers_of, profile_steps
from tests.instruments.test_step_timer import Takes
from tests.support.timed_training import ROWS, Batches, Slow, everywhere, net, phases, rows, slow


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks half a second long who else is busy."""
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)


def made(clock: ManualClock) -> tuple[nn.Sequential, Slow, DataLoader[torch.Tensor]]:
    model = net(clock)
    optimizer = slow(model, clock)
    return model, optimizer, DataLoader(Batches(clock))


PHASES = {"data": 7, "copy": 11, "forward": 60, "loss": 13, "backward": 6, "optimizer": 19}


def test_known_times() -> None:
    """With an evaluation and other work between the steps, which are part of none."""
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    with profile_steps(model, optimizer, skip=2, steps=6, clock=clock) as steps:
        for x in loader:
            clock.advance(11)
            output = model(x)
            clock.advance(13)
            output.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.step()
            clock.advance(1000)
            model.eval()
            for other in loader:
                model(other)
                break
            model.train()
            with torch.no_grad():
                model(x)
    record = steps.record
    assert phases(record) == PHASES
    assert rows(record) == ROWS
    assert record.step.n == 3
    assert record.plan.warmup == 3
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    assert (record.outside_s, record.overhead) == (0, 1)
    assert record.optimizer == "Slow"
    assert record.workload.mode == "train"
    assert record.absent == {}


def clear_first(model, optimizer, x, clock) -> None:
    optimizer.zero_grad()
    clock.advance(11)
    output = model(x)
    clock.advance(13)
    output.mean().backward()
    optimizer.step()


def clear_by_the_model_before_the_backward(model, optimizer, x, clock) -> None:
    clock.advance(11)
    output = model(x)
    clock.advance(13)
    optimizer.zero_grad()
    torch.autograd.backward([output.mean()])
    optimizer.step()


def closure(model, optimizer, x, clock) -> None:
    clock.advance(11)

    def run() -> None:
        output = model(x)
        clock.advance(13)
        optimizer.zero_grad()
        output.mean().backward()

    optimizer.step(run)


def scaled(model, optimizer, x, clock) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    clock.advance(11)
    output = model(x)
    clock.advance(13)
    scaler.scale(output.mean()).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    "run", [clear_first, clear_by_the_model_before_the_backward, closure, scaled]
)
def test_steps_of_many_kinds_have_the_same_phases(run: Callable[..., None]) -> None:
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    with profile_steps(model, optimizer, skip=0, steps=4, clock=clock) as steps:
        for x in loader:
            run(model, optimizer, x, clock)
            steps.step()
    assert phases(steps.record) == PHASES
    assert rows(steps.record) == ROWS


def test_micro_batches_are_told_apart() -> None:
    """A last step with fewer of them counts in no pair."""
    clock = ManualClock()
    model, optimizer, _ = made(clock)
    loader = DataLoader(Batches(clock, 13))
    with profile_steps(model, optimizer, skip=0, steps=10, clock=clock) as steps:
        for number, x in enumerate(loader, 1):
            clock.advance(11)
            output = model(x)
            clock.advance(13)
            output.mean().backward()
            clock.advance(500)
            if number % 2 == 0 or number == 13:
                optimizer.step()
                optimizer.zero_grad()
            steps.step()  # after each batch: a step without an update goes on
    record = steps.record
    assert record.workload.gradient_accumulation == 2
    assert record.images == 2
    # What lies between the last backward and the update is the optimizer's.
    twice = {name: 2 * time for name, time in PHASES.items()}
    assert phases(record) == {**twice, "optimizer": 19 + 500}
    assert [round(t.median * 1e9) for t in record.phases[2].micro_batches] == [60, 60]
    assert rows(record) == {p: (1, 2 * there, 2 * back) for p, (_, there, back) in ROWS.items()}
    assert any("another number of micro-batches" in note for note in record.notes)


def test_a_model_called_twice_before_its_backward() -> None:
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    with profile_steps(model, optimizer, skip=1, steps=4, clock=clock) as steps:
        for x in loader:
            one = model(x)
            clock.advance(13)
            (one + model(x)).mean().backward()
            optimizer.step()
            steps.step()
    record = steps.record
    assert rows(record) == {p: (2, 2 * there, 2 * back) for p, (_, there, back) in ROWS.items()}
    assert phases(record)["forward"] == 120
    assert phases(record)["loss"] == 13


def test_two_backwards_of_one_forward_are_added_up() -> None:
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    with profile_steps(model, optimizer, skip=0, steps=4, clock=clock) as steps:
        for x in loader:
            output = model(x)
            output.mean().backward(retain_graph=True)
            output.square().mean().backward()
            optimizer.step()
            steps.step()
    assert rows(steps.record) == {p: (n, there, 2 * back) for p, (n, there, back) in ROWS.items()}
    assert phases(steps.record)["backward"] == 12


class Reads(Batches):
    """Reads from a loader itself."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return next(iter(DataLoader(Batches(self.clock))))[0]


def in_another_thread(call: Callable[[], Any]) -> None:
    """As the backward of a device runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


@pytest.mark.parametrize("where", [lambda call: call(), in_another_thread])
def test_what_happens_inside_a_phase_is_a_part_of_it(where: Callable[..., Any]) -> None:
    """An optimizer that updates in the backward, and a data set that reads from another loader."""
    clock = ManualClock()
    model, optimizer, _ = made(clock)

    def update(_: torch.Tensor) -> None:
        where(optimizer.step)
        optimizer.zero_grad()

    model[0].weight.register_post_accumulate_grad_hook(update)
    with profile_steps(model, optimizer, skip=0, steps=4, clock=clock) as steps:
        for x in DataLoader(Reads(clock)):
            clock.advance(11)
            output = model(x)
            clock.advance(13)
            output.mean().backward()
            steps.step()
    record = steps.record
    rest = {name: time for name, time in PHASES.items() if name != "optimizer"}
    assert phases(record) == {**rest, "backward": 6 + 19}
    assert record.absent == {"optimizer": reasons.UPDATES_WITHIN}


def test_parts_that_the_loop_calls_are_given_as_one() -> None:
    clock = ManualClock()
    one, other = net(clock), nn.Sequential(nn.Linear(4, 4), Takes(clock, 5, 4))
    optimizers = [slow(part, clock) for part in (one, other)]
    both = nn.ModuleList([one, other])
    with profile_steps(both, optimizers, skip=0, steps=4, clock=clock) as steps:
        for x in DataLoader(Batches(clock)):
            clock.advance(11)
            other(one(x)).mean().backward()
            for optimizer in optimizers:
                optimizer.step()
            steps.step()
    found = rows(steps.record)
    assert phases(steps.record)["forward"] == 65
    assert {path: found[f"0.{path}".rstrip(".")] for path in ROWS} == ROWS
    assert found["1"] == (1, 5, 4)


def test_what_a_checkpoint_runs_again_is_told_apart() -> None:
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    inner = model[2]
    layers = list(inner)
    inner.forward = lambda x: checkpoint(lambda y: layers[1](layers[0](y)), x, use_reentrant=False)
    with profile_steps(model, optimizer, skip=0, steps=4, clock=clock) as steps:
        for x in loader:
            model(x).mean().backward()
            optimizer.step()
            steps.step()
    record = steps.record
    assert record.recomputation is not None
    assert round(record.recomputation.median * 1e9) == 20
    row = next(row for row in record.rows if row.path == "2.0")
    assert row.recomputation is not None
    assert round(row.recomputation.median * 1e9) == 20
    assert rows(record) == ROWS
    assert phases(record)["backward"] == 26


def test_without_a_loader_the_wait_holds_the_copy() -> None:
    clock = ManualClock()
    model, optimizer, _ = made(clock)
    with profile_steps(model, [optimizer], skip=0, steps=4, clock=clock) as steps:
        for _ in range(8):
            clock.advance(5)
            model(torch.ones(1, 4)).mean().backward()
            optimizer.step()
            steps.step()
            clock.advance(3)
            with torch.no_grad():
                model(torch.ones(1, 4))
            clock.advance(4)
    record = steps.record
    # From the evaluation on.
    assert phases(record)["data"] == 9
    assert record.absent == {"copy": reasons.NO_LOADER}
    assert "copy" not in phases(record)


def test_training_is_as_without_and_everything_comes_off() -> None:
    torch.manual_seed(0)
    clock = ManualClock()
    model, optimizer, loader = made(clock)
    twin, of_twin, _ = made(clock)
    twin.load_state_dict(model.state_dict())
    before = everywhere(model, optimizer)
    bare: list[bool] = []
    with profile_steps(model, optimizer, skip=2, steps=4, clock=clock) as steps:
        for number, x in enumerate(loader):
            bare.append(everywhere(model, optimizer) == before)
            for one, its in ((model, optimizer), (twin, of_twin)):
                one(x).square().mean().backward()
                its.step()
                its.zero_grad()
            steps.step()
            assert torch.equal(model[0].weight, twin[0].weight)
            if number == 9:
                break
    assert steps.is_over
    # Skipped: 0 and 1; looked at: 2; timed: 3 to 6.
    assert bare == [True] * 2 + [False] * 5 + [True] * 3


class Fails(nn.Module):
    """Raises in its forward as soon as it is said."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.said == ["forward"]:
            raise ValueError("forward")
        return x


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "update", "between", "data"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_whatever_raises_leaves_nothing_behind(where: str, number: int) -> None:
    """In the step that is looked at, in one with marks alone, and in one with its layers timed."""
    clock = ManualClock()
    raising: list[str] = []
    model = nn.Sequential(net(clock), Fails(raising))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = everywhere(model, optimizer)

    def perhaps(here: str) -> None:
        if raising == [here]:
            raise ValueError(here)

    def batches() -> Iterator[torch.Tensor]:
        for x in DataLoader(Batches(clock)):
            perhaps("data")
            yield x

    def train() -> None:
        with profile_steps(model, optimizer, skip=0, steps=4, clock=clock) as steps:
            for at, x in enumerate(batches()):
                raising.extend([where] * (at == number))
                perhaps("between")
                output = model(x)
                output.register_hook(lambda gradient: perhaps("backward"))
                perhaps("loss")
                output.square().mean().backward()
                optimizer.step(lambda: perhaps("update"))
                optimizer.zero_grad()
                steps.step()

    with pytest.raises(ValueError, match=where):
        train()
    assert everywhere(model, optimizer) == before


def test_a_step_that_raises_and_is_passed_over_does_not_count() -> None:
    """As of a batch that is too large for the memory."""
    clock = ManualClock()
    raising: list[str] = []
    model = nn.Sequential(net(clock), Fails(raising))
    optimizer = slow(model, clock)
    with profile_steps(model, optimizer, skip=0, steps=6, clock=clock) as steps:
        for at, x in enumerate(DataLoader(Batches(clock))):
            raising[:] = ["forward"] * (at in (0, 3))
            clock.advance(11)
            try:
                output = model(x)
            except ValueError:
                clock.advance(5000)
                continue
            clock.advance(13)
            output.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.step()
    record = steps.record
    assert phases(record) == PHASES
    assert rows(record)["0.1"] == (1, 10, 1)
    assert any(note.startswith("2 of the 6 steps do not count") for note in record.notes)


class Halved(nn.Module):
    """Knows no float32 where autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x)


def test_what_is_computed_in_is_seen_inside_the_model() -> None:
    model = Halved()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    with profile_steps(model, optimizer, skip=0, steps=2) as steps:
        for _ in range(3):
            model(torch.ones(2, 4)).float().sum().backward()
            optimizer.step()
            steps.step()
    assert steps.record.workload.precision == "amp-bf16"
    assert steps.record.optimizer == "momentum"
    assert steps.record.workload.shape == (2, 4)


def test_the_record_is_saved_and_read_and_shown(tmp_path) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    with layerbench.profile_steps(model, optimizer, skip=0, steps=2) as steps:
        for _ in range(3):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            steps.step()
    assert layerbench.read(steps.save(tmp_path / "step.json")) == steps.record
    assert "a training step" in str(steps)
    assert steps.to_dict()["optimizer"] == "adamw"


SHORT = "at least three steps"


@pytest.mark.parametrize(
    ("ran", "trains", "says"),
    [
        (0, True, "first 1 are skipped, and 0 have ended"),
        (1, True, "no forward of the model"),
        (2, True, SHORT),
        (3, True, SHORT),
        (9, False, "evaluation mode"),
    ],
)
def test_a_loop_that_is_too_short_says_so(ran: int, trains: bool, says: str) -> None:
    model = nn.Linear(4, 4).train(trains)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with profile_steps(model, optimizer, skip=1, steps=2) as steps:
        for _ in range(ran):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            steps.step()
    with pytest.raises(UsageError, match=says):
        _ = steps.record
    assert says in str(steps)


def test_another_optimizer_than_the_loops_is_found_out() -> None:
    model = nn.Linear(4, 4)
    other, optimizer = (torch.optim.SGD(model.parameters(), lr=1e-3) for _ in range(2))
    with profile_steps(model, other, skip=0, steps=2) as steps:
        for _ in range(4):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            steps.step()
    with pytest.raises(UsageError, match="give the optimizer that the loop uses"):
        _ = steps.record


def test_optimizers_are_taken_out_of_what_lies_around_them() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1e-3)

    class Around:
        def __init__(self, inner: object) -> None:
            self.optimizer = inner

    assert optimizers_of([Around(Around(optimizer)), optimizer]) == (optimizer,)
    for wrong in (None, [], "sgd", [optimizer, 3]):
        with pytest.raises(UsageError, match="optim"):
            optimizers_of(wrong)


@pytest.mark.parametrize(("arguments", "says"), [({"skip": -1}, "skip"), ({"steps": 1}, "steps")])
def test_what_cannot_be_meant(arguments: dict[str, int], says: str) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with pytest.raises(UsageError, match=says), profile_steps(model, optimizer, **arguments):
        raise AssertionError("the block must not run")


SGD = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1e-3)


@pytest.mark.parametrize("profiled", [lambda it: profile_steps(it, SGD), layerbench.time_layers])
def test_what_is_no_module(profiled: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="a list is no"), profiled([nn.Linear(1, 1)]):
        raise AssertionError("the block must not run")
