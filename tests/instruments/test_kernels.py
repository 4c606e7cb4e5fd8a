"""Kernels are given to modules and operators; times add up exactly."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from layerbench.environment import devices
from layerbench.instruments.kernel_timer import (
    KernelTimer,
    in_root,
    kernel_activity,
    profiled,
    sees_kernels,
)
from layerbench.instruments.kernels import (
    FunctionCalls,
    HostEvent,
    Kernel,
    KernelKey,
    added_up,
    busy_ns,
    events_of,
    short_name,
)
from tests.simulated import Simulator
from tests.simulated.process import on_sim

# A model (0) that calls a block (1), which calls a layer (2) and adds; then the model pools.
HOST = [
    HostEvent("layerbench:0", 1, 7, 0, 100),
    HostEvent("layerbench:1", 2, 7, 10, 60),
    HostEvent("layerbench:2", 3, 7, 12, 40),
    HostEvent("aten::conv2d", 4, 7, 13, 39),
    HostEvent("aten::convolution", 5, 7, 14, 38),
    HostEvent("aten::add_", 6, 7, 45, 55, shapes=((1, 2), (1, 2))),
    HostEvent("aten::mean", 8, 7, 70, 90),
    HostEvent("aten::mean", 9, 7, 91, 95),
]
KERNELS = [
    Kernel("gemm", 5, 1000, 1500),
    Kernel("bias", 5, 1510, 1600),
    Kernel("add", 6, 1600, 1650),
    Kernel("reduce", 8, 1700, 1720),
    Kernel("reduce", 9, 1720, 1727),
]


def test_each_kernel_belongs_to_the_innermost_module_and_its_outermost_operator() -> None:
    forward = added_up(HOST, KERNELS, modules=3)
    assert forward.self_ns.tolist() == [27, 50, 590]
    assert forward.inclusive_ns.tolist() == [667, 640, 590]
    assert forward.counts.tolist() == [5, 3, 2]
    assert forward.calls.tolist() == [1, 1, 1]
    assert forward.kernels == {
        KernelKey(2, "conv2d", "gemm"): (1, 500),
        KernelKey(2, "conv2d", "bias"): (1, 90),
        KernelKey(1, "add_", "add"): (1, 50),
        KernelKey(0, "mean", "reduce"): (2, 27),
    }
    assert forward.functions == {
        (2, "conv2d"): FunctionCalls(1, ()),
        (1, "add_"): FunctionCalls(1, ((1, 2), (1, 2))),
        (0, "mean"): FunctionCalls(2, ()),
    }


def test_modules_and_functions_are_counted_in_the_order_of_their_first_calls() -> None:
    forward = added_up(HOST, KERNELS, modules=3)
    order = sorted(forward.order, key=forward.order.__getitem__)
    assert order == [(0, ""), (1, ""), (2, ""), (2, "conv2d"), (1, "add_"), (0, "mean")]


def test_rows_and_idle_time_add_up_to_the_span() -> None:
    forward = added_up(HOST, KERNELS, modules=3)
    assert forward.span_ns == 727
    assert forward.idle_ns == 60
    assert int(forward.self_ns.sum()) + forward.idle_ns == forward.span_ns


def test_a_kernel_that_nobody_is_known_to_have_launched_is_the_models() -> None:
    forward = added_up(HOST, [Kernel("memset", 0, 0, 5), Kernel("copy", 999, 5, 7)], modules=3)
    assert forward.self_ns.tolist() == [7, 0, 0]


def test_no_kernels_are_no_time() -> None:
    forward = added_up(HOST, [], modules=3)
    assert (forward.span_ns, forward.idle_ns) == (0, 0)
    assert forward.calls.tolist() == [1, 1, 1]


def test_operators_of_other_threads_are_not_put_into_this_ones_ranges() -> None:
    host = [*HOST, HostEvent("aten::mul", 20, 8, 15, 20)]
    forward = added_up(host, [Kernel("mul", 20, 0, 5)], modules=3)
    assert forward.self_ns.tolist() == [5, 0, 0]


def test_a_module_that_calls_itself_has_the_inner_kernels_once() -> None:
    host = [
        HostEvent("layerbench:0", 1, 7, 0, 100),
        HostEvent("layerbench:1", 2, 7, 10, 60),
        HostEvent("layerbench:1", 3, 7, 12, 40),
        HostEvent("aten::relu", 4, 7, 13, 20),
    ]
    forward = added_up(host, [Kernel("relu", 4, 0, 9)], modules=2)
    assert forward.inclusive_ns.tolist() == [9, 9]
    assert forward.calls.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("kernels", "times"),
    [
        ([(0, 10), (4, 16), (20, 25)], [10, 6, 5]),  # one reaches into the next; a gap
        ([(0, 100), (10, 20), (30, 40)], [100, 0, 0]),  # within the first one
        ([(0, 10), (0, 30), (0, 20)], [10, 20, 0]),  # together; the earlier in the list first
        ([(5, 5), (5, 6)], [0, 1]),  # without length
        ([(0, 10), (2, 30), (3, 12), (40, 41)], [10, 20, 0, 1]),
    ],
)
def test_time_that_kernels_share_is_handed_out_once(
    kernels: list[tuple[int, int]], times: list[int]
) -> None:
    assert busy_ns([Kernel("k", 1, start, end) for start, end in kernels]) == times


def test_time_handed_out_is_the_union_of_the_intervals() -> None:
    draw = random.Random(0)
    for _ in range(200):
        intervals = sorted(
            (start, start + draw.randrange(12))
            for start in (draw.randrange(60) for _ in range(draw.randrange(1, 15)))
        )
        covered = {at for start, end in intervals for at in range(start, end)}
        times = busy_ns([Kernel("k", 1, start, end) for start, end in intervals])
        assert sum(times) == len(covered)
        assert all(0 <= t <= end - start for t, (start, end) in zip(times, intervals, strict=True))


def test_an_operators_name_is_its_authors() -> None:
    names = ("aten::add_", "torchvision::nms", "mine")
    assert [short_name(name) for name in names] == ["add_", "nms", "mine"]
    # The number differs from model to model of one process: rows would find no counterpart.
    assert short_name("Torch-Compiled Region: 1/0") == "compiled"


class Twice(nn.Module):
    """Calls a layer twice and adds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x)).relu() + 1


def test_the_profilers_operators_stand_within_the_ranges_of_their_modules() -> None:
    """On a CPU operators stand in for kernels: each one that no other operator contains."""
    model, x = Twice(), torch.rand(2, 4)
    timer = KernelTimer(model, ["", "layer"], frozenset({"", "layer"}), devices.get("cpu"))
    before = model.layer.__dict__.copy()
    results = None
    with timer.ranges():
        results = profiled(in_root(lambda: model(x), devices.get("cpu")), devices.get("cpu"))
    assert model.layer.__dict__ == before
    host, kernels = events_of(results)
    assert kernels == []
    standing_in = [
        Kernel(event.name, event.number, event.start_ns, event.end_ns)
        for event in host
        if event.name in ("aten::linear", "aten::relu", "aten::add")
    ]
    forward = added_up(host, standing_in, modules=2)
    assert forward.calls.tolist() == [1, 2]
    assert forward.counts.tolist() == [4, 2]
    assert list(forward.functions) == [(1, "linear"), (0, "relu"), (0, "add")]
    assert int(forward.self_ns.sum()) + forward.idle_ns == forward.span_ns


def test_a_forward_that_fails_leaves_the_model_as_it_was() -> None:
    model = Twice()
    timer = KernelTimer(model, ["", "layer"], frozenset({"", "layer"}), devices.get("cpu"))
    before = model.layer.__dict__.copy()
    with pytest.raises(RuntimeError):
        timer.run(lambda: model(torch.rand(2, 5)))
    assert model.layer.__dict__ == before
    assert timer.run(lambda: model(torch.rand(2, 4))).calls.tolist() == [1, 2]


class Event:
    """What the profiler gives of one event, as far as it is asked for."""

    def __init__(self, name: str, kind: str | None, device: str = "CUDA", linked: int = 0) -> None:
        self._name, self._device, self._linked = name, device, linked
        if kind is not None:
            self.activity_type = lambda: kind

    def name(self) -> str:
        return self._name

    def device_type(self) -> DeviceType:
        return getattr(DeviceType, self._device)

    def linked_correlation_id(self) -> int:
        return self._linked

    def is_user_annotation(self) -> bool:
        return self._name.startswith("mine")

    def shapes(self) -> list[list[int]]:
        return []

    def _one(self) -> int:
        return 1

    start_ns = duration_ns = correlation_id = start_thread_id = sequence_nr = device_index = _one


@pytest.mark.parametrize("told", [True, False], ids=["newer", "older"])
def test_only_what_a_device_worked_for_is_a_kernel(told: bool) -> None:
    """The kinds of CUDA's events; an older PyTorch tells no kind."""
    seen = [
        ("sgemm", "kernel", "CUDA", 7),
        ("Memcpy HtoD (Pageable -> Device)", "gpu_memcpy", "CUDA", 8),
        ("Memset (Device)", "gpu_memset", "CUDA", 0),
        ("layerbench:3", "gpu_user_annotation", "CUDA", 0),
        ("mine", "gpu_user_annotation", "CUDA", 0),
        ("Stream Wait Event", "cuda_sync", "CUDA", 0),
        ("cudaLaunchKernel", "cuda_runtime", "CPU", 7),
        ("cudaDeviceSynchronize", "cuda_runtime", "CPU", 0),
        ("aten::mm", "cpu_op", "CPU", 0),
        ("layerbench:3", "cpu_op", "CPU", 0),
    ]
    events = [Event(name, kind if told else None, *rest) for name, kind, *rest in seen]
    host, kernels = events_of(SimpleNamespace(events=lambda: events))
    assert [kernel.name.split()[0] for kernel in kernels] == ["sgemm", "Memcpy", "Memset"]
    assert [kernel.launched_by for kernel in kernels] == [7, 8, 0]
    assert [event.name for event in host] == ["aten::mm", "layerbench:3"]


def test_kernels_of_several_devices_are_told() -> None:
    kernels = [Kernel("a", 5, 0, 5, device=0), Kernel("b", 6, 5, 7, device=1)]
    assert added_up(HOST, kernels, modules=3).devices == 2
    assert added_up(HOST, kernels[:1], modules=3).devices == 1


def test_a_cpu_has_no_kernels() -> None:
    assert kernel_activity(devices.get("cpu")) is None
    assert not sees_kernels(devices.get("cpu"))


@on_sim
def test_a_profiler_of_somebody_else_loses_nothing(sim: Simulator) -> None:
    device = devices.get("sim:0")
    assert sees_kernels(device)
    with profile(activities=[ProfilerActivity.CPU]) as theirs:
        torch.ones(3).exp()
        assert not sees_kernels(device)
        torch.ones(3).cos()
    assert {"aten::exp", "aten::cos"} <= {event.name for event in theirs.events()}
    assert sees_kernels(device)
