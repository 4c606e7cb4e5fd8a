"""`profile_steps` on the simulated accelerator."""

from __future__ import annotations

import torch
from torch import nn

import layerbench
from layerbench.profilers.user_steps_record import BY_EVENTS
from tests.simulated import Simulator
from tests.simulated.process import on_sim

KERNEL_NS = 50_000


@on_sim
def test_phases_and_layers_hold_what_the_device_worked(sim: Simulator) -> None:
    """Between events in the queue, where the host takes no time of the device's."""
    sim.rules(kernel_ns=KERNEL_NS)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).to("sim")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images = torch.ones(2, 4, device="sim")
    with layerbench.profile_steps(model, optimizer, skip=1, steps=4) as steps:
        for _ in range(6):
            output = model(images)
            loss = output.square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.step()
    record = steps.record

    def kernels(seconds: float) -> float:
        return round(seconds * 1e9) / KERNEL_NS

    found = {phase.name: kernels(phase.time.median) for phase in record.phases}
    # A product twice, and what lies between; a square and a mean; an update of each parameter.
    assert (found["forward"], found["loss"], found["optimizer"]) == (3, 2, 4)
    rows = {
        row.path: (kernels(row.forward.median), kernels(row.backward.median))
        for row in record.rows
        if row.forward is not None and row.backward is not None
    }
    # Of the first layer's backward no gradient of the images.
    assert rows == {"": (3, 6), "0": (1, 2), "1": (1, 1), "2": (1, 3)}
    assert found["backward"] == 6 + kernels(record.outside_s)
    assert record.environment.device.kind == "sim"
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    assert record.memory is not None
    assert record.memory.resident == 4 * (2 * 16 + 2 * 4 + 2 * 4)
    assert record.absent["kernels"] == BY_EVENTS
