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

import torch

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


def measure_ceilings(device: Device, dtype: DType) -> Ceilings:
    """Measure a device's highest arithmetic rate and memory bandwidth; takes about half a second.

    Arithmetic: ``torch.mm`` of two square matrices, 2 n^3 FLOPs, as large as it takes for one call
    to last 10 ms. Bandwidth: copies of a buffer far larger than the last-level cache, as many in a
    row as last 10 ms, `MOST_COPIES` at most; the bytes read and the bytes written count. The
    fastest repetition counts: whatever disturbs one only makes it slower.

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
    try:
        with torch.inference_mode():
            side, product_s, products = _fastest_product(device, dtype)
            copied = _fastest_copy(device, dtype)
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
    )


def _fastest_product(device: Device, dtype: DType) -> tuple[int, float, int]:
    """The matrices' side, the seconds of the fastest product, and how many there were."""
    clock = device.clock()
    side = SMALLEST_SIDE
    while True:
        multiply = _product(device, dtype, side)
        multiply()  # the first call chooses a kernel and makes its workspace
        took_s = fastest_s(multiply, clock, budget_s=0, fewest=2)[0]
        if took_s >= LEAST_CALL_S or side >= LARGEST_SIDE:
            break
        side = _larger(side, took_s)
    return side, *fastest_s(multiply, clock)


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


def _fastest_copy(device: Device, dtype: DType) -> _Copied:
    number = getattr(torch, dtype)
    most = BUFFER_BYTES if device.kind == "cpu" else ACCELERATOR_BUFFER_BYTES
    room = min(most, device.memory().free_bytes // MEMORY_SHARE)
    elements = max(1, room // number.itemsize)
    source = torch.ones(elements, device=device.torch_device, dtype=number)
    target = torch.empty_like(source)

    def copy() -> object:
        return target.copy_(source)

    copy()  # the first one is given the pages it writes
    clock = device.clock()
    one_s = fastest_s(copy, clock, budget_s=0, fewest=1)[0]
    # Events and the first launch are between the marks, too.
    in_a_row = min(MOST_COPIES, math.ceil(LEAST_CALL_S / one_s)) if one_s > 0 else MOST_COPIES

    def copies() -> None:
        for _ in range(in_a_row):
            copy()

    return _Copied(elements * number.itemsize, in_a_row, *fastest_s(copies, clock))


def fastest_s(
    work: Callable[[], object],
    clock: Clock,
    *,
    budget_s: float = BUDGET_S,
    fewest: int = FEWEST_REPEATS,
) -> tuple[float, int]:
    """The shortest time of some work, in seconds, and how often it ran.

    Args:
        work: puts something into the device's queue, or does it.
        clock: the device's.
        budget_s: it is repeated until so much time has gone, but `MOST_REPEATS` times at most.
        fewest: it runs at least so often.
    """

    def timed() -> float:
        marks = [clock.mark()]
        work()
        marks.append(clock.mark())
        clock.synchronize()
        start, end = clock.resolve(marks)
        clock.release()
        return (end - start) * NANOSECOND

    clock.reserve(2)
    try:
        repeats = Autorange(fewest, MOST_REPEATS)
        times = repeats.repeat(timed, budget_s, seconds_of=lambda seconds: seconds)
    finally:
        clock.synchronize()
        clock.release()
    return min(times), len(times)
