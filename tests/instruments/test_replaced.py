"""Functions replaced by several at a time, who go in any order."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations
from types import SimpleNamespace

import pytest
import torch

from layerbench.environment.devices.clocks import ManualClock
from layerbench.instruments.replaced import Function, Layer, function_replaced
from layerbench.profilers.user_steps import profile_steps
from tests.support.timed_training import everywhere, net, slow


class Owner:
    def say(self) -> str:
        return "own"


class Heir(Owner):
    """Has the function from another class: its own ``__dict__`` comes back without it."""


def adding(mark: str) -> Function:
    def made(layer: Layer) -> Function:
        return lambda *given: f"{layer.beneath(*given)} {mark}"

    return made


@pytest.mark.parametrize("owner", [Owner, Heir, Heir(), SimpleNamespace(say=lambda: "own")])
@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_each_goes_when_it_wants(owner, order) -> None:
    before = {**vars(owner)}
    given = (Owner(),) if isinstance(owner, type) else ()
    stacks = [ExitStack() for _ in order]
    for mark, stack in zip("abc", stacks, strict=True):
        stack.enter_context(function_replaced(owner, "say", adding(mark)))
    there = "abc"
    for number in order:
        assert owner.say(*given) == " ".join(["own", *there])
        stacks[number].close()
        there = there.replace("abc"[number], "")
    assert {**vars(owner)} == before


def test_what_somebody_else_puts_over_it_stays_and_is_not_lost() -> None:
    owner = SimpleNamespace(say=lambda: "own")
    with function_replaced(owner, "say", adding("a")):
        ours = owner.say
        owner.say = theirs = lambda: f"{ours()} theirs"
        with function_replaced(owner, "say", adding("b")):
            assert owner.say() == "own a theirs b"
    assert owner.say is theirs


@pytest.mark.parametrize("first", [0, 1])
def test_two_models_in_one_loop_end_in_any_order(first: int) -> None:
    """As a generator and its adversary, each with an optimizer of its own."""
    clock = ManualClock()
    pairs = [(model, slow(model, clock)) for model in (net(clock), net(clock))]
    before = [everywhere(*pair) for pair in pairs]
    with ExitStack() as stack:
        seen = [
            stack.enter_context(profile_steps(*pair, skip=0, steps=2, clock=clock))
            for pair in pairs
        ]
        for _ in range(3):
            for model, optimizer in pairs:
                model(torch.ones(1, 4)).mean().backward()
                optimizer.step()
            for number in (first, 1 - first):
                seen[number].step()
    assert [everywhere(*pair) for pair in pairs] == before
    assert all(steps.record.step.n == 1 for steps in seen)
