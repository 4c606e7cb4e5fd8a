"""What torch.profiler sees of the simulated accelerator."""

from __future__ import annotations

import torch
from torch import nn

from layerbench.environment import devices
from layerbench.instruments.kernel_timer import profiled, sees_kernels
from layerbench.instruments.kernels import Kernel, events_of
from tests.simulated import Simulator
from tests.simulated.process import on_sim


def launchers(host: list, kernels: list[Kernel]) -> list[str]:  # type: ignore[type-arg]
    """For each kernel the operator that launched it."""
    names = {event.number: event.name for event in host}
    return [names[kernel.launched_by] for kernel in kernels]


@on_sim
def test_the_profiler_sees_kernels_there(sim: Simulator) -> None:
    assert sees_kernels(devices.get("sim:0"))
    assert sees_kernels(devices.get("sim:1"))
    assert not sees_kernels(devices.get("cpu"))


@on_sim
def test_each_kernel_has_its_time_and_its_operator(sim: Simulator) -> None:
    layer = nn.Linear(4, 3).to("sim")
    numbers = torch.ones(2, 4, device="sim")
    sim.rules(named_ns={"aten::addmm": 12_345, "aten::relu": 678})
    results = profiled(lambda: layer(numbers).relu(), devices.get("sim:0"))
    host, kernels = events_of(results)
    assert [(one.name, one.end_ns - one.start_ns) for one in kernels] == [
        ("aten::addmm", 12_345),
        ("aten::relu", 678),
    ]
    assert kernels[1].start_ns == kernels[0].end_ns
    assert launchers(host, kernels) == ["aten::addmm", "aten::relu"]


@on_sim
def test_no_kernel_is_lost(sim: Simulator) -> None:
    numbers = torch.ones(2, device="sim:1")
    for count in (1, 3_000, 2):
        sim.rules(kernel_ns=17)
        results = profiled(
            lambda n=count: [numbers.add_(1) for _ in range(n)], devices.get("sim:1")
        )
        host, kernels = events_of(results)
        assert [one.end_ns - one.start_ns for one in kernels] == [17] * count
        assert launchers(host, kernels) == ["aten::add"] * count  # within `aten::add_`


@on_sim
def test_kernels_of_the_backward_have_their_operators(sim: Simulator) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).to("sim")
    images = torch.ones(2, 3, 5, 5, device="sim")
    results = profiled(lambda: model(images).sum().backward(), devices.get("sim:0"))
    host, kernels = events_of(results)
    names = launchers(host, kernels)
    assert "aten::convolution_backward_overrideable" in names
    assert "aten::native_batch_norm_backward" in names
    assert [one.name for one in kernels] == [one.name for one in sim.kernels()][-len(kernels) :]
