"""What a device reaches at best: the two roofs of a roofline.

The model is that of S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual
Performance Model for Multicore Architectures", Communications of the ACM 52(4), 2009: no kernel
does more FLOPs a second than the arithmetic units, and none more than its FLOPs a byte times the
memory's bandwidth. Both are measured here, since data sheets tell what no program reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.autorange import Autorange
from layerbench.records.timing import Ceilings
from layerbench.records.workload import DType
from layerbench.units import NANOSECOND

# A call shorter than this is launched, and its threads are woken, for a good part of its time.
LEAST_CALL_S = 0.01
SMALLEST_SIDE = 256
# Three such matrices of 8-byte numbers are 6 GiB; larger products are no faster.
LARGEST_SIDE = 16384
# Tiles of matrix units divide it, so that none is half empty.
SIDE_STEP = 64
GROWTH = 4
# One that is not timed, and two that show how long one takes.
_FIRST_ONES = 3

# Several times the last-level cache of what is common; a copy touches two of them. Accelerators
# have caches of up to 256 MB themselves (MI300X), and copy so fast that a launch would show.
BUFFER_BYTES = 256 * 2**20
ACCELERATOR_BUFFER_BYTES = 2 * 2**30
# Copies between two marks, at most, where one alone is shorter than `LEAST_CALL_S`.
MOST_COPIES = 16
# Of the free memory, for each of the two buffers.
MEMORY_SHARE = 8

# For each of the two: half of it is half a second in all, about.
BUDGET_S = 0.2
FEWEST_REPEATS = 5
MOST_REPEATS = 100
# For each of the two, on the host's clock. A device whose own clock tells the time is never so
# slow. Of one that is simulated, whose work the host does, sizes and repetitions follow from this.
LONGEST_S = 2.0


def measure_ceilings(device: Device, dtype: DType) -> Ceilings:
    """Measure a device's highest arithmetic rate and memory bandwidth; takes about half a second.

    Arithmetic: ``torch.mm`` of two square matrices, 2 n^3 FLOPs, as large as it takes for one call
    to last 10 ms. Bandwidth: copies of a buffer far larger than the last-level cache, as many in a
    row as last 10 ms, `MOST_COPIES` at most; the bytes read and the bytes written count. The
    fastest repetition counts: whatever disturbs one only makes it slower. Where the host is far
    slower than the device's clock, as beside a simulated device, all is smaller, so that it takes
    a few seconds (`LONGEST_S`).

    Limits: a layer whose tensors stay in a cache may lie above the bandwidth's roof, and on a
    machine with a last-level cache of some hundred MiB so may the copy. What a cache reads in
    before it writes is not counted. float32 convolutions on an NVIDIA GPU use TF32 unless told
    otherwise, products of matrices do not: such a layer may lie above the arithmetic roof.

    Args:
        device: is measured on the threads that PyTorch has now.
        dtype: number format of matrices and buffer.

    Raises:
        RuntimeError: out of memory (`memory_explained` makes a line of it).
    """
    conditions = ConditionsWatch(device.look)
    try:
        with torch.inference_mode():
            side, product_s, products = _fastest_product(device, dtype, conditions)
            copied = _fastest_copy(device, dtype, conditions)
    finally:
        device.forget_freed()  # gigabytes, which the allocator would keep
    on_cpu = device.kind == "cpu"
    return Ceilings(
        flops_per_s=2 * side**3 / product_s,
        bytes_per_s=copied.bytes_per_s,
        dtype=dtype,
        threads=torch.get_num_threads() if on_cpu else None,
        how=(
            f"FLOPs: fastest of {products} products of {side} x {side} matrices by torch.mm; "
            f"bytes: {copied.how}, read and written bytes counted"
        ),
        conditions=conditions.conditions(),
    )


def _fastest_product(
    device: Device, dtype: DType, conditions: ConditionsWatch
) -> tuple[int, float, int]:
    """The matrices' side, the seconds of the fastest product, and how many there were."""
    clock = device.clock()
    side = SMALLEST_SIDE
    while True:
        multiply = _product(device, dtype, side)
        multiply()  # the first call chooses a kernel and makes its workspace
        began = perf_counter()
        took_s = fastest_s(multiply, clock, budget_s=0, fewest=2)[0]
        most = _bearable(side, (perf_counter() - began) / 2)
        larger = min(_larger(side, took_s), most)
        if took_s >= LEAST_CALL_S or larger <= side:
            break
        side = larger
    return side, *fastest_s(multiply, clock, conditions=conditions)


def _product(device: Device, dtype: DType, side: int) -> Callable[[], object]:
    where, number = device.torch_device, getattr(torch, dtype)
    # A generator of its own leaves the user's random state alone. Not ones: a GPU that multiplies
    # equal numbers draws less power, and runs faster than any model lets it.
    draw = torch.Generator(where).manual_seed(0)
    left, right = (
        torch.rand((side, side), generator=draw, device=where, dtype=number) for _ in range(2)
    )
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _larger(side: int, took_s: float) -> int:
    """A side whose product lasts long enough; the time grows with its third power."""
    factor = (LEAST_CALL_S / took_s) ** (1 / 3) * 1.05 if took_s > 0 else GROWTH
    wanted = math.ceil(side * min(factor, GROWTH) / SIDE_STEP) * SIDE_STEP
    return min(wanted, LARGEST_SIDE)


def _bearable(side: int, host_s: float) -> int:
    """The largest side of which the host bears enough products, if one takes it so long."""
    most = side * (_bearable_s() / host_s) ** (1 / 3) if host_s > 0 else LARGEST_SIDE
    return int(min(most, LARGEST_SIDE)) // SIDE_STEP * SIDE_STEP


def _bearable_s() -> float:
    """What one repetition may take the host, if there are first ones and enough others."""
    return LONGEST_S / (FEWEST_REPEATS + _FIRST_ONES)


@dataclass(frozen=True)
class _Copied:
    """The fastest of several runs of copies.

    Attributes:
        buffer: its bytes.
        in_a_row: copies of a run.
        run_s: seconds of the fastest run.
        runs: how many there were.
    """

    buffer: int
    in_a_row: int
    run_s: float
    runs: int

    @property
    def bytes_per_s(self) -> float:
        """Bytes read and written."""
        return 2 * self.buffer * self.in_a_row / self.run_s

    @property
    def how(self) -> str:
        """In words."""
        runs = f"{self.runs} copies"
        if self.in_a_row > 1:
            runs = f"{self.runs} runs of {self.in_a_row} copies"
        return f"fastest of {runs} of a buffer of {self.buffer / 2**20:.0f} MiB"


def _fastest_copy(
    device: Device, dtype: DType, conditions: ConditionsWatch | None = None
) -> _Copied:
    most = BUFFER_BYTES if device.kind == "cpu" else ACCELERATOR_BUFFER_BYTES
    room = min(most, device.memory().free_bytes // MEMORY_SHARE)
    size, clock = min(room, BUFFER_BYTES), device.clock()
    copy, size = _copy(device, dtype, size)
    one_s, host_s = _one(copy, clock)
    if room > size and host_s * room / size <= _bearable_s():
        del copy
        copy, size = _copy(device, dtype, room)
        one_s, host_s = _one(copy, clock)
    # Events and the first launch are between the marks, too.
    in_a_row = min(MOST_COPIES, math.ceil(LEAST_CALL_S / one_s)) if one_s > 0 else MOST_COPIES
    if host_s > 0:
        in_a_row = max(1, min(in_a_row, int(_bearable_s() / host_s)))

    def copies() -> None:
        for _ in range(in_a_row):
            copy()

    return _Copied(size, in_a_row, *fastest_s(copies, clock, conditions=conditions))


def _copy(device: Device, dtype: DType, size: int) -> tuple[Callable[[], object], int]:
    """What copies a buffer of so many bytes, and how many they are in whole numbers."""
    number = getattr(torch, dtype)
    elements = max(1, size // number.itemsize)
    source = torch.ones(elements, device=device.torch_device, dtype=number)
    target = torch.empty_like(source)
    return (lambda: target.copy_(source)), elements * number.itemsize


def _one(copy: Callable[[], object], clock: Clock) -> tuple[float, float]:
    """Seconds of one copy: on the device's clock, and on the host's."""
    copy()  # the first one is given the pages it writes
    clock.synchronize()
    began = perf_counter()
    on_device_s = fastest_s(copy, clock, budget_s=0, fewest=1)[0]
    return on_device_s, perf_counter() - began


def fastest_s(
    work: Callable[[], object],
    clock: Clock,
    *,
    budget_s: float = BUDGET_S,
    fewest: int = FEWEST_REPEATS,
    conditions: ConditionsWatch | None = None,
) -> tuple[float, int]:
    """The shortest time of some work, in seconds, and how often it ran.

    Args:
        work: puts something into the device's queue, or does it.
        clock: the device's.
        budget_s: it is repeated until so much time has gone, but `MOST_REPEATS` times at most.
        fewest: it runs at least so often, unless that takes the host `LONGEST_S`.
        conditions: of the device, looked at after each time.
    """

    def timed() -> float:
        marks = [clock.mark()]
        work()
        marks.append(clock.mark())
        clock.synchronize()
        start, end = clock.resolve(marks)
        clock.release()
        if conditions is not None:
            conditions.take()
        return (end - start) * NANOSECOND

    clock.reserve(2)
    try:
        repeats = Autorange(fewest, MOST_REPEATS)
        times = repeats.repeat(
            timed, budget_s, seconds_of=lambda seconds: seconds, longest_s=LONGEST_S
        )
    finally:
        clock.synchronize()
        clock.release()
    return min(times), len(times)
