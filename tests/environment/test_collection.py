"""The collector is off meanwhile, and afterwards looks at what was made meanwhile alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from layerbench.environment.collection import no_collection

MANY = 200_000


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


class Linked:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self


def test_nothing_is_collected_meanwhile_and_the_youngest_afterwards(collected: list[int]) -> None:
    with no_collection():
        kept = [[number] for number in range(MANY)]
        assert not collected
    kept.append([0])
    assert gc.isenabled()
    assert collected == [0]


def test_garbage_made_meanwhile_is_freed() -> None:
    with no_collection():
        made = weakref.ref(Linked())
        with no_collection():
            pass
        assert made() is not None
    assert made() is None


def test_off_it_stays_off(collected: list[int]) -> None:
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
        assert not collected
    finally:
        gc.enable()
