"""Times on the simulated accelerator are what its rules say, to the nanosecond."""

from __future__ import annotations

import pytest
import torch

from layerbench.environment import devices
from layerbench.instruments.kernel_timer import profiled
from layerbench.instruments.kernels import events_of
from tests.simulated import Simulator
from tests.simulated.process import on_sim


def event(device: str = "sim") -> torch.Event:
    """Recorded now, on the present queue of the present device."""
    made = torch.Event(device=device, enable_timing=True)
    made.record()
    return made


def apart(first: torch.Event, second: torch.Event) -> int:
    """Nanoseconds, exact up to 8 ms: events tell milliseconds in single precision."""
    second.synchronize()
    return round(first.elapsed_time(second) * 1e6)


@on_sim
def test_a_kernel_takes_the_time_of_its_rule(sim: Simulator) -> None:
    sim.rules(kernel_ns=2_000, named_ns={"aten::relu": 7_123})
    numbers = torch.ones(4, device="sim")
    start = event()
    numbers.add(1)
    between = event()
    numbers.relu()
    end = event()
    assert (apart(start, between), apart(between, end)) == (2_000, 7_123)


@on_sim
def test_views_are_no_kernels(sim: Simulator) -> None:
    numbers = torch.ones(4, 6, device="sim")
    before = sim.kernel_count
    numbers.view(24)[3:].unsqueeze(0).expand(5, -1).t().reshape(105)
    assert sim.kernel_count == before + 1  # the reshape copies


@on_sim
@pytest.mark.parametrize(
    ("bytes_per_ns", "flops_per_ns", "expected"),
    [
        (4, 0, 500 + 4 * (10 * 20 + 20 * 30 + 10 * 30) // 4),
        (0, 8, 500 + 2 * 10 * 20 * 30 // 8),
        (4, 8, 500 + 2 * 10 * 20 * 30 // 8),
    ],
    ids=["by bytes", "by FLOPs", "by the longer of the two"],
)
def test_the_roofs(sim: Simulator, bytes_per_ns: float, flops_per_ns: float, expected: int) -> None:
    left, right = torch.ones(10, 20, device="sim"), torch.ones(20, 30, device="sim")
    sim.rules(kernel_ns=500, bytes_per_ns=bytes_per_ns, flops_per_ns=flops_per_ns)
    start = event()
    left.mm(right)
    assert apart(start, event()) == expected
    _, kernels = events_of(profiled(lambda: left.mm(right), devices.get("sim:0")))
    assert [(one.name, one.end_ns - one.start_ns) for one in kernels] == [("aten::mm", expected)]


@on_sim
def test_flops_of_a_convolution_and_its_gradients(sim: Simulator) -> None:
    layer = torch.nn.Conv2d(4, 6, 3, groups=2, bias=False).to("sim")
    images = torch.ones(2, 4, 8, 8, device="sim", requires_grad=True)
    sim.rules(kernel_ns=0, flops_per_ns=1)
    layer(images).sum().backward()
    length = {kernel.name: kernel.length_ns for kernel in sim.kernels()}
    work = 2 * (4 // 2 * 3 * 3) * (2 * 6 * 6 * 6)
    assert length["aten::convolution"] == work
    assert length["aten::convolution_backward"] == 2 * work


@on_sim
@pytest.mark.parametrize(
    ("launch_ns", "kernel_ns", "span"),
    [(5_000, 1_000, 9 * 5_000 + 1_000), (1_000, 5_000, 10 * 5_000)],
    ids=["bound by launches", "bound by the device"],
)
def test_a_chain_of_kernels(sim: Simulator, launch_ns: int, kernel_ns: int, span: int) -> None:
    numbers = torch.ones(4, device="sim")
    sim.rules(launch_ns=launch_ns, kernel_ns=kernel_ns)
    for _ in range(10):
        numbers.add_(1)
    first, *_, last = sim.kernels()
    assert last.start_ns + last.length_ns - first.start_ns == span


@on_sim
def test_behind_a_blocked_queue_kernels_follow_each_other(sim: Simulator) -> None:
    numbers = torch.ones(4, device="sim")
    sim.rules(launch_ns=5_000, kernel_ns=1_000)
    sim.sleep(1_000_000)
    start = event()
    for _ in range(10):
        numbers.add_(1)
    assert apart(start, event()) == 10 * 1_000


@on_sim
def test_an_event_costs_what_its_rules_say(sim: Simulator) -> None:
    sim.rules(event_host_ns=1_200, event_queue_ns=1_000)
    before = sim.now_ns()
    events = [event() for _ in range(11)]
    assert sim.now_ns() - before == 11 * 1_200
    assert apart(events[0], events[-1]) == 10 * 1_200  # the queue waits for the host
    sim.sleep(1_000_000)
    events = [event() for _ in range(11)]
    assert apart(events[0], events[-1]) == 10 * 1_000
    assert sim.event_count == 22


@on_sim
def test_an_event_that_has_not_happened_has_no_time(sim: Simulator) -> None:
    start = event()
    sim.sleep(1_000)
    end = event()
    assert not end.query()
    with pytest.raises(RuntimeError, match="completed"):
        start.elapsed_time(end)
    before = sim.now_ns()
    torch.accelerator.synchronize()
    assert end.query()
    assert sim.now_ns() - before == 1_000


@on_sim
def test_the_second_device_has_a_queue_of_its_own(sim: Simulator) -> None:
    numbers = torch.ones(4, device="sim:1")
    sim.rules(kernel_ns=3_000)
    stream = torch.accelerator.current_stream(1)
    start, end = (torch.Event(device="sim:1", enable_timing=True) for _ in range(2))
    elsewhere = event("sim:0")
    start.record(stream)
    numbers.add_(1)
    end.record(stream)
    assert apart(start, end) == 3_000
    assert [kernel.device for kernel in sim.kernels()] == [1]
    assert apart(elsewhere, event("sim:0")) == 3_000  # the host had waited for the other device
    assert torch.accelerator.current_device_index() == 0


@on_sim
def test_streams_run_beside_each_other_until_one_waits(sim: Simulator) -> None:
    sim.rules(kernel_ns=1_000)
    side = torch.Stream(device="sim")
    sim.sleep(2_000)
    with side:
        sim.sleep(5_000)
        done = event()
        sim.sleep(1_000)
    torch.accelerator.current_stream().wait_event(done)
    sim.sleep(10)
    starts = [(kernel.stream, kernel.start_ns - sim.now_ns()) for kernel in sim.kernels()]
    own, other = 0, side.stream_id
    assert starts == [(own, 0), (other, 0), (other, 5_000), (own, 5_000)]


@on_sim
def test_the_host_waits_for_what_it_reads(sim: Simulator) -> None:
    numbers = torch.ones(4, device="sim")
    mask = numbers > 0
    sim.rules(kernel_ns=1_000)
    reads = (lambda: numbers.add(1).sum().item(), numbers.cpu, numbers.nonzero)
    for read in (*reads, lambda: numbers[mask]):
        before, kernels = sim.now_ns(), sim.kernel_count
        read()
        assert sim.now_ns() - before == 1_000 * (sim.kernel_count - kernels) > 0


@on_sim
def test_the_host_waits_for_nothing_else(sim: Simulator) -> None:
    numbers = torch.ones(4, device="sim")
    mask, places = numbers > 0, numbers.long()
    pinned = torch.ones(4).pin_memory()
    torch.accelerator.synchronize()
    sim.rules(kernel_ns=1_000)
    before = sim.now_ns()
    numbers.add(1).masked_fill(mask, 2)[places].softmax(0)
    pinned.to("sim", non_blocking=True)
    assert sim.now_ns() == before


@on_sim
def test_with_the_real_host_kernels_keep_their_length(sim: Simulator) -> None:
    sim.rules(kernel_ns=50_000, virtual_host=False)
    before = sim.now_ns()
    # As long as the host may be kept from its core before the last kernel is queued.
    sim.sleep(200_000_000)
    start = event()
    torch.ones(4, device="sim").add_(1).mul_(2)
    end = event()
    torch.accelerator.synchronize()
    assert apart(start, end) == 3 * 50_000
    assert sim.now_ns() - before >= 200_000_000


@on_sim
def test_ten_minutes_pass_at_once(sim: Simulator) -> None:
    numbers = torch.ones(4, device="sim")
    sim.rules(kernel_ns=600_000_000_000)
    before = sim.now_ns()
    numbers.add_(1)
    torch.accelerator.synchronize()
    assert sim.now_ns() - before == 600_000_000_000
