"""Functions replaced by several at a time, who go in any order."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations
from types import SimpleNamespace

import pytest

from layerbench.instruments.replaced import Function, Layer, function_replaced


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
