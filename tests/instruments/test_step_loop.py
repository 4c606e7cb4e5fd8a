"""The time of a step of somebody's loop, by what happened in it."""

from __future__ import annotations

import pytest

from layerbench.instruments.step_loop import Happening, phases_of

FULL = {"f": "forward", "b": "backward", "u": "update", "c": "clear", "d": "fetch"}
FULL |= {"e": "evaluation", "o": "other"}


def step(order: str) -> list[Happening]:
    """One after the other, each of 10, with 1 before each."""
    return [Happening(FULL[one], 11 * at + 1, 11 * at + 11) for at, one in enumerate(order)]


@pytest.mark.parametrize(
    ("order", "micro_batches"),
    [
        ("fbu", 1),
        ("ffbbu", 1),
        ("fbfbu", 2),
        ("fbfbfbuc", 3),
        # An adversary's update and the generator's, each after forwards of both.
        ("cffbucffbu", 1),
        ("fbufbu", 1),
        ("fbfbuffbu", 2),
    ],
)
def test_micro_batches_are_what_one_update_is_made_of(order: str, micro_batches: int) -> None:
    happenings = step(order)
    found = phases_of(happenings, 0, happenings[-1].end)
    assert len(found.micro_batches_ns) == micro_batches
    # In the order of the phases: forward, then backward.
    assert found.phases_ns[2] == 10 * order.count("f")
    assert found.phases_ns[4] == 10 * order.count("b")
    assert sum(found.phases_ns) + found.between_ns == 11 * len(order)


@pytest.mark.parametrize("clears", [False, True])
@pytest.mark.parametrize("fetches", [False, True])
def test_what_an_update_does_between_its_closures_is_the_optimizers(
    clears: bool, fetches: bool
) -> None:
    """As LBFGS, which chooses a direction there."""
    closure = ["clear", "forward", "backward"] if clears else ["forward", "backward"]
    happenings = [Happening("fetch", 0, 7)] if fetches else []
    at = 20
    for kind in [*closure, *closure]:
        happenings.append(Happening(kind, at, at + 10))
        at += 10 if kind != "backward" else 110  # a hundred after each closure
    happenings.append(Happening("update", 20, at))
    found = phases_of(happenings, 0, at)
    data, copy = (7, 13) if fetches else (20, 0)
    assert found.phases_ns == (data, copy, 20, 0, 20, 200 + 20 * clears)
    assert found.between_ns == 0
    assert len(found.micro_batches_ns) == 1


@pytest.mark.parametrize(
    ("order", "data", "copy"),
    [
        ("dfbu", 10, 1),
        ("ddfbu", 21, 1),
        # A teacher, or labels that the model gives itself.
        ("defbu", 10, 2),
        ("ddecefbu", 21, 4),
        # A validation, whose loader ends, before or after a batch is fetched.
        ("dedeodfbu", 10, 1),
        ("ddedeofbu", 0, 0),
        ("dededfbu", 10, 1),
        ("fbudede", 0, 0),
    ],
)
def test_a_batch_that_is_evaluated_first_was_waited_for_all_the_same(
    order: str, data: int, copy: int
) -> None:
    happenings = step(order)
    found = phases_of(happenings, 0, happenings[-1].end)
    assert found.phases_ns[:2] == (data, copy)
    assert sum(found.phases_ns) + found.between_ns == 11 * len(order)
