from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from layerbench.environment.devices.clocks import ManualClock
from layerbench.instruments.attach import attributes_replaced, mode_set
from layerbench.instruments.global_hooks import has_any_global_hook
from layerbench.instruments.layer_timer import (
    Folded,
    LayerTimer,
    TimedForward,
    fold,
    place_to_time,
    run_untouched,
    typical_calls,
)
from layerbench.instruments.modules import CallObserver, module_facts
from tests.models import Calls, Composite, Small, Takes


def timed(model: nn.Module, clock: ManualClock, *args: object) -> dict[str, tuple[int, int, int]]:
    """path -> (inclusive, self, calls) of one forward."""
    facts = module_facts(model)
    paths = [fact.path for fact in facts]
    timer = LayerTimer(model, paths, frozenset(f.path for f in facts if f.reachable), clock)
    forward: TimedForward = timer.run(lambda: model(*args), marks=2)
    folded = forward.device
    return {
        path: (int(folded.inclusive_ns[i]), int(folded.self_ns[i]), int(folded.calls[i]))
        for i, path in enumerate(paths)
    }


def test_exact_table() -> None:
    clock = ManualClock()
    model = Composite(clock, 1, Takes(clock, 10), Composite(clock, 2, Takes(clock, 30)))
    assert timed(model, clock, 0) == {
        "": (47, 3, 1),  # 1 + 10 + 1 + (2 + 30 + 2) + 1
        "inner": (0, 0, 0),
        "inner.0": (10, 10, 1),
        "inner.1": (34, 4, 1),
        "inner.1.inner": (0, 0, 0),
        "inner.1.inner.0": (30, 30, 1),
    }


def test_self_times_add_up_to_the_root() -> None:
    clock = ManualClock()
    leaves = [Takes(clock, n) for n in (7, 0, 13)]
    model = Composite(clock, 5, Composite(clock, 0, *leaves), leaves[0])
    table = timed(model, clock, 0)
    assert sum(own for _, own, _ in table.values()) == table[""][0] == 5 * 3 + 20 + 7


def test_a_module_called_twice_has_both_calls() -> None:
    clock = ManualClock()
    model = Calls(lambda self, x: self.a(self.a(x)), a=Takes(clock, 4))
    assert timed(model, clock, 0) == {"": (8, 0, 1), "a": (8, 8, 2)}


def test_a_shared_module_is_one_row_and_its_callers_lose_its_time() -> None:
    clock = ManualClock()
    shared = Takes(clock, 6)
    model = Composite(clock, 0, Composite(clock, 1, shared), Composite(clock, 2, shared))
    table = timed(model, clock, 0)
    assert table["inner.0.inner.0"] == (12, 12, 2)
    assert table["inner.1"] == (10, 4, 1)
    assert "inner.1.inner.0" not in table
    fact = {f.path: f for f in module_facts(model)}["inner.0.inner.0"]
    assert fact.aliases == ("inner.1.inner.0",)


def test_a_module_that_calls_itself_counts_its_time_once() -> None:
    clock = ManualClock()

    def run(self: nn.Module, depth: int) -> int:
        clock.advance(1)
        return self(depth - 1) if depth else 0

    model = Calls(lambda self, x: self.again(x), again=Calls(run))
    assert timed(model, clock, 3)["again"] == (4, 4, 4)


def test_a_module_that_raises_and_is_caught_keeps_its_time() -> None:
    clock = ManualClock()

    def fail(self: nn.Module, x: object) -> None:
        clock.advance(3)
        raise ValueError("not today")

    def run(self: nn.Module, x: object) -> None:
        with pytest.raises(ValueError, match="not today"):
            self.bad(x)
        self.good(x)

    model = Calls(run, bad=Calls(fail), good=Takes(clock, 2))
    assert timed(model, clock, 0) == {"": (5, 0, 1), "bad": (3, 3, 1), "good": (2, 2, 1)}


class Hears:
    """A hook that notes what it heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, module: nn.Module, *args: object) -> None:
        self.heard.append(type(module).__name__)


def test_hooks_run_and_their_modules_are_timed_by_forward() -> None:
    clock = ManualClock()
    model = Composite(clock, 0, Takes(clock, 3), Takes(clock, 4))
    hears = Hears()
    model.inner[0].register_forward_hook(hears)
    assert place_to_time(model.inner[0]) == "forward"
    assert place_to_time(model.inner[1]) == "_call_impl"
    table = timed(model, clock, 0)
    assert (table["inner.0"], table["inner.1"]) == ((3, 3, 1), (4, 4, 1))
    assert hears.heard == ["Takes"]


def test_global_hooks_run() -> None:
    clock = ManualClock()
    model = Composite(clock, 0, Takes(clock, 3))
    hears = Hears()
    handle = nn.modules.module.register_module_forward_hook(hears)
    try:
        assert timed(model, clock, 0)["inner.0"] == (3, 3, 1)
    finally:
        handle.remove()
    assert hears.heard == ["Takes", "Composite"]


def test_a_forward_called_by_name_is_timed_too() -> None:
    clock = ManualClock()
    model = Calls(lambda self, x: self.b(self.a.forward(x)), a=Takes(clock, 3), b=Takes(clock, 4))
    facts = module_facts(model)
    seen = CallObserver(model, facts).observe(model, (0,), {})
    assert (seen["a"].direct, seen["b"].direct) == (True, False)
    paths = [fact.path for fact in facts]
    direct = frozenset(path for path, call in seen.items() if call.direct)
    timer = LayerTimer(model, paths, frozenset(paths), clock, called_directly=direct)
    folded = timer.run(lambda: model(0), marks=2).device
    assert folded.inclusive_ns.tolist() == [7, 3, 4]


def test_a_module_with_a_call_of_its_own_is_timed_by_forward() -> None:
    class Custom(Takes):
        def __call__(self, x: object) -> object:
            return super().__call__(x)

    assert place_to_time(Custom(ManualClock(), 1)) == "forward"


def test_a_module_compiled_in_place_is_timed_around_its_compiled_call() -> None:
    clock = ManualClock()
    module = Takes(clock, 3)
    module._compiled_call_impl = lambda x: clock.advance(9) or x
    model = Calls(lambda self, x: self.a(x), a=module)
    assert timed(model, clock, 0)["a"] == (9, 9, 1)
    assert module._compiled_call_impl(5) == 5


def test_fold_of_nothing_and_of_equal_positions() -> None:
    assert fold([], 1).inclusive_ns.tolist() == [0]
    spans = [(1, 5, 5), (2, 5, 5), (0, 5, 5)]
    assert fold(spans, 3).self_ns.tolist() == [0, 0, 0]
    assert fold(spans, 3).calls.tolist() == [1, 1, 1]


def test_a_module_that_most_forwards_leave_out_has_calls_and_with_them_times() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    forwards = [
        TimedForward(Folded(nothing, nothing, np.array(calls)), None)
        for calls in ((1, 2, 0), (1, 0, 0), (1, 0, 0))
    ]
    assert typical_calls(forwards) == [1, 2, 0]


def test_untouched_is_taken_at_the_same_two_points() -> None:
    clock = ManualClock()
    model = Takes(clock, 11)
    assert run_untouched(lambda: model(0), clock) == (11, None)


def test_everything_comes_off_also_when_the_model_raises() -> None:
    clock = ManualClock()
    model = Calls(lambda self, x: self.a(x), a=Calls(lambda self, x: 1 / 0))
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    with pytest.raises(ZeroDivisionError):
        timed(model, clock, 0)
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before


def test_an_instance_forward_of_the_users_own_comes_back() -> None:
    module = nn.Identity()
    mine = lambda x: x + 1  # noqa: E731
    module.forward = mine  # type: ignore[method-assign]
    with attributes_replaced([(module, "forward", lambda x: x * 5)]):
        assert module(2) == 10
    assert module.forward is mine
    assert module(2) == 3


def test_modes_of_frozen_batch_norms_and_buffers_come_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).train()
    model[0].eval()
    with mode_set(model, training=True):
        assert not model[0].training  # frozen, as in its owner's loop
        model(torch.rand(2, 3, 4, 4))
    assert [m.training for m in model.modules()] == [True, False, True]
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert model[1].num_batches_tracked == 0
    with mode_set(model, training=False):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, False, True]


def test_nested_and_exotic_outputs_pass_through() -> None:
    clock = ManualClock()
    output = {"out": [torch.ones(2), (torch.zeros(3, 1), None)], "n": 4}
    model = Calls(lambda self, x: self.a(x), a=Calls(lambda self, x: output))
    seen = CallObserver(model, module_facts(model)).observe(model, (torch.ones(1, 2),), {})
    assert seen["a"].output_shapes == ((2,), (3, 1))
    assert seen["a"].input_shapes == ((1, 2),)
    paths = ["", "a"]
    timer = LayerTimer(model, paths, frozenset(paths), clock)
    with timer.attached():
        assert model(0) is output


def test_a_failing_layer_is_named_with_what_came_in() -> None:
    model = Small()
    observer = CallObserver(model, module_facts(model))
    with pytest.raises(RuntimeError) as caught:
        observer.observe(model, (torch.rand(1, 5, 8, 8),), {})
    explained = observer.explain(caught.value)
    assert "Conv2d at stem" in explained
    assert "[1, 5, 8, 8]" in explained
    assert "\n" not in explained


def test_scripted_modules_are_one_row() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    model = nn.Sequential(inner, nn.Flatten()).eval()
    facts = {fact.path: fact for fact in module_facts(model)}
    assert facts["0"].reachable
    assert not facts["0.0"].reachable
    x = torch.rand(1, 3, 4, 4)
    clock = ManualClock()
    table = timed(model, clock, x)
    assert table["0"][2] == 1
    assert table["0.0"][2] == 0
    assert model(x).shape == (1, 48)


@pytest.mark.parametrize(
    "register",
    [
        torch.nn.modules.module.register_module_forward_pre_hook,
        torch.nn.modules.module.register_module_forward_hook,
        torch.nn.modules.module.register_module_full_backward_pre_hook,
        torch.nn.modules.module.register_module_full_backward_hook,
    ],
)
def test_a_hook_for_all_modules_is_seen(register, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch before 2.8 has no answer of its own.
    monkeypatch.delattr(torch.nn.modules.module, "_has_any_global_hook", raising=False)
    assert not has_any_global_hook()
    handle = register(lambda *_: None)
    try:
        assert has_any_global_hook()
    finally:
        handle.remove()
    assert not has_any_global_hook()
