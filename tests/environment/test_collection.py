"""The collector is off meanwhile, and afterwards it has nothing to catch up with."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from layerbench.environment import collection
from layerbench.environment.collection import no_collection

MANY = 200_000


@pytest.fixture(autouse=True)
def nothing_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other tests of this process have made, and torch.compile has frozen."""
    gc.unfreeze()
    monkeypatch.setattr(collection, "_put_off", collection._PutOff())


@pytest.fixture
def collected() -> Iterator[list[int]]:
    """Generations that were collected since; the collector is on, as usual."""
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            generations.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        yield generations
    finally:
        gc.callbacks.remove(note)


def test_nothing_is_collected_meanwhile_nor_at_once_afterwards(collected: list[int]) -> None:
    with no_collection():
        kept = [[number] for number in range(MANY)]
        assert not collected
    kept.append([0])
    assert gc.isenabled()
    assert not collected


def test_garbage_made_meanwhile_goes_with_the_next_full_collection() -> None:
    class Linked:
        own: Linked

    def made() -> int:
        return sum(isinstance(one, Linked) for one in gc.get_objects())

    with no_collection():
        one = Linked()
        one.own = one
        del one
    assert made() == 1
    gc.collect()
    assert made() == 0


def test_what_a_user_has_frozen_stays_so() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with no_collection():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()


def test_what_is_frozen_is_not_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as looking at them."""
    counted: list[int] = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: len(counted.append(1) or counted))
    for _ in range(3):
        with no_collection():
            pass
    assert counted == [1]


def test_after_many_objects_the_collector_counts_again(
    collected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "PUT_OFF_AT_MOST", MANY // 2)
    with no_collection():
        kept = [[number] for number in range(MANY)]
    kept.extend([number] for number in range(1000))
    assert collected


def test_off_it_stays_off() -> None:
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
