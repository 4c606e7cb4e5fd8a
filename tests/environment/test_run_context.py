"""What surrounds a run: memory that is looked at before, and what an earlier run left behind."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from layerbench.environment import cgroups, devices
from layerbench.environment.devices import MemoryInfo
from layerbench.environment.run_context import check_input_fits, free_unused
from layerbench.errors import NotEnoughMemory
from layerbench.records.workload import Workload

# 12 MiB of float32.
WORKLOAD = Workload(model="m", input="16x3x256x256", shape=(16, 3, 256, 256), batch=16)
MIB = 2**20


def accelerator(free: int) -> SimpleNamespace:
    memory = MemoryInfo(total_bytes=free, free_bytes=free)
    return SimpleNamespace(kind="cuda", memory=lambda: memory)


def test_an_input_has_to_fit_on_the_host_where_it_is_made(monkeypatch):
    monkeypatch.setattr(cgroups, "host_memory", lambda: (64 * MIB, 8 * MIB))
    with pytest.raises(NotEnoughMemory) as told:
        check_input_fits(WORKLOAD, accelerator(1024 * MIB))
    assert str(told.value) == (
        "the input 16x3x256x256 alone needs 12.0 MiB, and 8.00 MiB are free on the host, where "
        "inputs are made: take a smaller shape or batch"
    )
    monkeypatch.setattr(cgroups, "host_memory", lambda: (64 * MIB, 12 * MIB))
    check_input_fits(WORKLOAD, accelerator(1024 * MIB))


def test_an_input_has_to_fit_on_the_device(monkeypatch):
    monkeypatch.setattr(cgroups, "host_memory", lambda: (64 * MIB, 64 * MIB))
    with pytest.raises(NotEnoughMemory, match=r"8\.00 MiB are free on cuda"):
        check_input_fits(WORKLOAD, accelerator(8 * MIB))


def test_what_ran_before_is_collected_before_the_allocator_forgets_it():
    class Model:
        def __init__(self) -> None:
            self.itself = self

    there = weakref.ref(Model())
    seen = []
    device = SimpleNamespace(kind="sim", forget_freed=lambda: seen.append(there()))
    gc.disable()
    try:
        free_unused(device)
    finally:
        gc.enable()
    assert seen == [None]


def test_on_a_cpu_there_is_nothing_to_give_back(monkeypatch):
    monkeypatch.setattr(gc, "collect", pytest.fail)
    free_unused(devices.get("cpu"))
