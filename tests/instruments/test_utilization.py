"""How busy the machine is while something runs."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from layerbench.environment import devices
from layerbench.environment.devices.cpu import Cpu
from layerbench.instruments import utilization
from layerbench.instruments.utilization import UsageSampler
from layerbench.records.detection_run import UsageSample
from layerbench.records.memory import AllocatorFigures


def sampling() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "layerbench usage"]


def busy_until_seen(sampler: UsageSampler) -> None:
    """On a machine that others use, this loop may get little of a core for a while."""
    ends = time.perf_counter() + 60
    while time.perf_counter() < ends:
        samples = sampler.usage().samples
        if len(samples) > 1 and max(sample.process_cpu for sample in samples) > 0.3:
            break
        sum(range(100_000))


def test_a_busy_loop_is_seen():
    with UsageSampler(devices.get("cpu"), interval_s=0.3) as sampler:
        assert len(sampling()) == 1
        busy_until_seen(sampler)
    found = sampler.usage()
    assert sampling() == []
    assert found.samples
    assert max(sample.process_cpu for sample in found.samples) > 0.3
    times = [sample.at_s for sample in found.samples]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1]
    for sample in found.samples:
        assert 0 <= sample.process_cpu <= found.cores
        assert 0 <= sample.system_cpu <= 1
        assert sample.resident > 2**20
        assert (sample.device, sample.allocated, sample.reserved) == (None, None, None)
    assert (found.interval_s, found.no_device) == (0.3, "")


def test_sleep_is_not_busy():
    with UsageSampler(devices.get("cpu"), interval_s=0.05) as sampler:
        time.sleep(0.3)
    samples = sampler.usage().samples
    assert sum(sample.process_cpu for sample in samples) < 0.9 * len(samples)


def test_looking_ends_when_the_body_raises():
    def broken():
        assert len(sampling()) == 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), UsageSampler(devices.get("cpu")):
        broken()
    assert sampling() == []


def test_a_block_too_short_for_a_look():
    with UsageSampler(devices.get("cpu"), interval_s=60) as sampler:
        pass
    assert len(sampler.usage().samples) == 1
    assert sampler.usage().interval_s == 60


def test_many_looks_are_thinned_out_evenly(monkeypatch):
    monkeypatch.setattr(utilization, "MOST_KEPT", 4)
    sampler = UsageSampler(devices.get("cpu"), interval_s=0.25)
    with sampler:
        sampler._samples = looks = [sampler._look() for _ in range(10)]
    found = sampler.usage()
    assert found.samples == tuple(looks[::3])
    assert found.interval_s == pytest.approx(0.75)


def test_a_look_that_fails_is_left_out_and_the_others_go_on(monkeypatch):
    sampler = UsageSampler(devices.get("cpu"), interval_s=0.02)
    look, calls = sampler._look, []

    def sometimes():
        calls.append(1)
        if len(calls) % 2:
            raise OSError("gone")
        return look()

    monkeypatch.setattr(sampler, "_look", sometimes)
    with sampler:
        while len(calls) < 4:
            time.sleep(0.01)
    assert 2 <= len(sampler.usage().samples) <= len(calls) // 2 + 1


# --- an accelerator, without one


class Counting(Cpu):
    """A device whose allocator counts."""

    def held(self):
        return AllocatorFigures(allocated=3, reserved=8)


def test_both_of_an_allocators_figures_are_looked_at():
    with UsageSampler(Counting()) as sampler:
        pass
    (look,) = sampler.usage().samples
    assert (look.allocated, look.reserved) == (3, 8)
    assert UsageSample.model_validate_json(look.model_dump_json()) == look


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError("nvidia-ml-py does not seem to be installed"), True),
        (RuntimeError("Not Supported"), False),  # a slice of a GPU (MIG)
    ],
)
def test_a_package_is_only_advised_where_it_is_missing(monkeypatch, error, advice):
    def refuse(_):
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    gpu = SimpleNamespace(kind="cuda", torch_device=torch.device("cuda"))
    said = UsageSampler(gpu).usage().no_device
    assert str(error) in said
    assert ("pip install nvidia-ml-py" in said) == advice
