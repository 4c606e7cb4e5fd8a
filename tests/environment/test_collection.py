"""The collector is off meanwhile, and afterwards looks at what was made meanwhile alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from layerbench.environment.collection import no_collection
from layerbench.environment.devices import accelerator
from layerbench.environment.run_context import garbage_collection_off

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


@pytest.mark.parametrize("in_use", [False, True])
def test_garbage_that_may_hold_an_accelerators_memory_is_collected_where_the_collector_is_off(
    monkeypatch: pytest.MonkeyPatch, in_use: bool
) -> None:
    monkeypatch.setattr(accelerator, "_kinds", lambda: ["xpu"])
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(is_initialized=lambda: in_use))
    held = weakref.ref(Linked())
    gc.disable()
    try:
        with garbage_collection_off():
            assert (held() is None) is in_use
    finally:
        gc.enable()
