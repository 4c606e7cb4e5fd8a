"""Processes that train together on GPUs: who carries what, without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from layerbench.environment.devices.clocks import PerfCounter
from layerbench.errors import WorkerError
from layerbench.training.classification import distributed as ours
from layerbench.training.classification.distributed import AllReduceTimer, Ranks, joined
from layerbench.training.classification.trainer import Seen, Sums

GPU = torch.device("cuda", 1)
PAIR = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}


@pytest.fixture
def group(monkeypatch):
    """What PyTorch's process group is told, one word for each call."""
    told = []
    started = {}

    def start(backend, **options):
        started.update(options, backend=backend)

    def reduce(tensor):
        told.append(f"all_reduce on {tensor.device}")

    monkeypatch.setattr(distributed, "init_process_group", start)
    monkeypatch.setattr(distributed, "all_reduce", reduce)
    monkeypatch.setattr(distributed, "all_gather_object", lambda things, thing: None)
    monkeypatch.setattr(distributed, "is_initialized", lambda: "abort" not in told)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: told.append("leave"))
    monkeypatch.setattr(
        distributed.distributed_c10d,
        "_abort_process_group",
        lambda: told.append("abort"),
        raising=False,
    )
    return SimpleNamespace(told=told, started=started)


@pytest.fixture
def on_gpus(group, monkeypatch):
    """The environment of the second of two processes, each with a GPU."""
    for name, value in PAIR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ours, "_own_device", lambda device, local: GPU)
    return group


def test_nccl_carries_gradients_and_gloo_the_rest(on_gpus):
    with joined(None) as ranks:
        assert ranks.device == GPU
    assert on_gpus.started["backend"] == "cuda:nccl,cpu:gloo"
    assert on_gpus.started["device_id"] == GPU
    assert on_gpus.told == ["leave"]


def test_on_cpus_gloo_carries_everything(group):
    ours._start(torch.device("cpu"))
    assert group.started["backend"] == "gloo"
    assert "device_id" not in group.started


def test_what_waits_for_a_process_that_is_gone_is_given_up(on_gpus):
    """To leave a group whose kernels wait for it would wait as long."""
    with pytest.raises(WorkerError), joined(None):
        raise WorkerError("rank 0 ended")
    assert on_gpus.told == ["abort"]


def test_messages_between_processes_stay_on_the_host(group):
    ranks = Ranks(1, 2, 1, (), GPU)
    assert ranks.sums([1.0, 2.5]) == [1.0, 2.5]
    ranks.meet()
    assert ranks.one_after_the_first(lambda: "made") == "made"
    assert group.told == ["all_reduce on cpu"] * 3


def test_buffers_travel_once_every_process_is_here(group, monkeypatch):
    monkeypatch.setattr(distributed, "broadcast", lambda *_, src: group.told.append("broadcast"))
    Ranks(1, 2, 1, (), GPU).same_buffers(nn.BatchNorm1d(2))
    assert group.told == ["all_reduce on cpu", *["broadcast"] * 3]


def test_a_look_meets_the_others_before_it_waits_for_the_device():
    order = []
    trainer = SimpleNamespace(
        _clock=SimpleNamespace(
            synchronize=lambda: order.append("wait"), release=lambda: order.append("release")
        ),
        _reduced=SimpleNamespace(take=list),
        _ranks=SimpleNamespace(meet=lambda: order.append("meet"), sums=lambda _: [0.0]),
        _goes_on=False,
    )
    Seen(trainer, Sums()).look(1, 0)
    assert order == ["meet", "wait", "release"]


class Wrapped(DistributedDataParallel):
    """Notes which hooks it is given."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.hooks = []

    def register_comm_hook(self, state, hook):
        self.hooks.append(hook)


@pytest.mark.parametrize("asked", [False, True])
def test_the_way_of_gradients_stays_pytorchs_own_unless_it_is_timed(asked):
    model = Wrapped()
    timer = AllReduceTimer(model, Ranks(0, 2), PerfCounter(), asked=asked)
    timer.end_step()
    assert len(model.hooks) == asked
    assert timer.take() == ([0] if asked else [])
