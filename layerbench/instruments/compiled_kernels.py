"""Which kernel of compiled code each kernel of an accelerator is, and how long it ran.

In a device round a range of the profiler stands around each kernel's statements in the code that
Inductor wrote. What is launched within it is this kernel's: one kernel of Triton's, or as many as a
library takes for its function.

Where Inductor has captured a CUDA graph (mode ``reduce-overhead``), no code runs: the graph is
replayed as a whole. There a kernel of Triton's is known by its name, which Inductor gives to one
kernel of a graph alone. A library's kernels stand between those in the order of the code. Where
that does not tell whose they are, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerbench.environment.devices import Device
from layerbench.instruments.compilation import Compilation
from layerbench.instruments.kernel_timer import in_root, profiled
from layerbench.instruments.kernels import (
    NOWHERE,
    RANGE,
    ROOT,
    HostEvent,
    Kernel,
    KernelForward,
    added_up,
    events_of,
    places_of,
)
from layerbench.instruments.modules import Call


class CompiledKernelTimer:
    """Times the kernels of compiled code on an accelerator.

    Args:
        code: what was compiled.
        device: where it runs.
    """

    def __init__(self, code: Compilation, device: Device) -> None:
        self._code = code
        self._device = device
        self._by_name = self._unknown = 0

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:
        """Run one forward under the profiler and add the device's kernels up.

        Args:
            call: runs the compiled model.
            shapes: whether the shapes of the operators' tensors are noted.

        Returns:
            one index for each of `Compilation.numbers`, from 1 on; 0 has what lies between them.
        """
        with self._code.ranged():
            results = profiled(in_root(call, self._device), self._device, shapes=shapes)
        numbers = self._code.numbers()
        names = [self._code.kernel(number).name for number in numbers]
        host, kernels = events_of(results)
        seen = recognized(host, kernels, names)
        self._by_name, self._unknown = seen.by_name, seen.unknown
        return added_up([*host, *seen.ranges], seen.kernels, 1 + len(numbers))

    def times_ns(self, forward: KernelForward) -> dict[tuple[int, int], tuple[int, int]]:
        """Of a forward, by a kernel's number: calls, and nanoseconds that the device worked."""
        # More may have been compiled since.
        found = zip(self._code.numbers(), forward.calls[1:], forward.self_ns[1:], strict=False)
        return {number: (int(calls), int(time)) for number, calls, time in found if calls}

    def notes(self) -> list[str]:
        """One sentence where kernels were known by their names and their order alone."""
        if not self._by_name:
            return []
        unknown = f"; whose {self._unknown} of them are nobody knows: they count between kernels"
        return [
            f"{self._by_name} kernels of a forward are known by their names and their order alone, "
            "since nothing says which code launched them: a CUDA graph runs none"
            f"{unknown if self._unknown else ''}"
        ]


@dataclass(frozen=True)
class Recognized:
    """A forward's kernels, each with what launched it, as far as that is known.

    Attributes:
        kernels: in the order of their starts.
        ranges: stand for code that did not run where its kernels did.
        by_name: how many kernels no range had; ``unknown``: those that stay so.
    """

    kernels: Sequence[Kernel]
    ranges: Sequence[HostEvent]
    by_name: int
    unknown: int


def recognized(
    host: Sequence[HostEvent], kernels: Sequence[Kernel], names: Sequence[str]
) -> Recognized:
    """Give kernels that were launched in no range to those whose range has launched none.

    Args:
        host, kernels: of one forward.
        names: of what the code calls; the range of the first has the number 1.
    """
    indices = range(1, 1 + len(names))
    places = places_of(host, 1 + len(names))
    within = {kernel.launched_by: places.get(kernel.launched_by, NOWHERE) for kernel in kernels}
    have = {place.modules[-1] for place in within.values()}
    left = [index for index in indices if index not in have]
    operators = {event.number for event in host if "::" in event.name}
    in_order = sorted(kernels, key=lambda kernel: (kernel.start_ns, kernel.end_ns))
    loose = [
        at
        for at, kernel in enumerate(in_order)
        if left
        and kernel.launched_by not in operators
        and within[kernel.launched_by].modules[-1] == ROOT
    ]
    found = by_name([in_order[at].name for at in loose], [names[index - 1] for index in left])
    numbers = {event.name: event.number for event in reversed(host)}
    ranges: dict[str, HostEvent] = {}
    for at, call in zip(loose, found, strict=True):
        if call is not None:
            name = f"{RANGE}{left[call]}"
            if name not in numbers:  # the profiler's own are not negative
                numbers[name] = -left[call]
                ranges[name] = HostEvent(name, numbers[name], -1, 0, 0)
            in_order[at] = replace(in_order[at], launched_by=numbers[name])
    return Recognized(in_order, [*ranges.values()], len(loose), found.count(None))


def by_name(replayed: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """For each kernel that a graph replayed the position of the call that it is from.

    Args:
        replayed: the kernels' names in the order in which they ran.
        names: of what the code calls, in its order: a kernel of Inductor's own has the same name
            on the device, and a library's function has kernels of any name.

    Returns:
        positions in ``names``; ``None`` where names and order do not tell.

    Example:
        >>> by_name(["gemm", "triton_0", "a", "b"], ["extern_kernels.mm", "triton_0", "aten.sort"])
        [0, 1, 2, 2]
    """
    own = set(replayed) & set(names)
    ran = [at for at, name in enumerate(replayed) if name in own]
    called = [at for at, name in enumerate(names) if name in own]
    result: list[int | None] = [None] * len(replayed)
    if [replayed[at] for at in ran] != [names[at] for at in called]:
        return result
    kernels_to, calls_to = [*ran, len(replayed)], [*called, len(names)]
    edges = zip([-1, *ran], kernels_to, [-1, *called], calls_to, strict=True)
    for kernel, next_kernel, call, next_call in edges:
        if kernel >= 0:
            result[kernel] = call
        between = range(kernel + 1, next_kernel)
        calls: Sequence[int] = range(call + 1, next_call)
        if len(calls) == 1:
            calls = [calls[0]] * len(between)
        if len(calls) == len(between):
            result[kernel + 1 : next_kernel] = calls
    return result
