"""What a traced run needs on a device: allocated, reserved and in all, each with an interval."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from layerbench.instruments.memory_attribution import peak_bytes
from layerbench.profilers.memory.on_card import OnDevice, on_device
from layerbench.profilers.memory.replay import Replays
from layerbench.profilers.memory.run_for_gpu import RunForGpu
from layerbench.records.card import Card
from layerbench.records.memory import Interval

Verdict = Literal["yes", "no", "unclear"]


class Figures:
    """Bytes that a run needs on a device.

    Attributes:
        device: the run there.
        replays: of its trace.
    """

    def __init__(self, device: OnDevice) -> None:
        self.device = device
        self.replays = Replays(device.trace, device.capacity, device.smaller, device.doubt)
        self._least, self._most = self.replays.reserved_bounds()

    @cached_property
    def reserved(self) -> Interval:
        """Of what PyTorch's allocator takes from the device, at its peak."""
        return Interval(low=max(self._least, self.peak.low), high=self._most)

    @property
    def total(self) -> Interval:
        """With the context."""
        context = self.device.context
        return Interval(low=self.reserved.low + context.low, high=self._most + context.high)

    @property
    def sizes(self) -> list[int]:
        """Of the block that each allocation got."""
        return self.replays.figure.sizes

    @cached_property
    def peak(self) -> Interval:
        """Of what is handed out at once."""
        different = {id(one): one for one in self.replays.levels}.values()
        peaks = [peak_bytes(self.device.trace, one.sizes) for one in different]
        return Interval(low=min(peaks), high=max(peaks))

    @property
    def peak_bytes(self) -> int:
        """The most that was handed out at once."""
        return peak_bytes(self.device.trace, self.sizes)

    @property
    def reserved_bytes(self) -> int:
        """Of PyTorch's allocator at its peak."""
        return self.replays.figure.reserved

    @property
    def total_bytes(self) -> int:
        """With the context."""
        return self.reserved_bytes + self.device.context.bytes

    def verdict(self, memory_bytes: int) -> Verdict:
        """Whether it fits into a device's memory.

        Yes where the upper bound does, or where it goes on with smaller workspaces; no where the
        lower bound does not, or where even the figure's run ends for want of memory.
        """
        if self.needed(memory_bytes) <= memory_bytes:
            return "yes"
        ends = not self.replays.figure.fits
        return "no" if self.total.low > memory_bytes or ends else "unclear"

    def needed(self, memory_bytes: int) -> int:
        """Bytes that are to be had if it is to fit for certain; grows with the batch."""
        high = self._most + self.device.context.high
        if high <= memory_bytes:
            return high
        room = memory_bytes - self.device.context.high
        goes_on = self.device.memory_bytes is not None and self.replays.fits(room)
        return memory_bytes if goes_on else max(high, memory_bytes + 1)


def figures(
    run: RunForGpu, card: Card | None, memory_bytes: int | None = None, *, bounds: bool = True
) -> Figures:
    """What a run needs on a card, or on a GPU that is not named.

    Args:
        run: traced.
        card: ``None`` where none is named.
        memory_bytes: of the device, where it is not what the card's data sheet says.
        bounds: of a card's workspaces, too, and not the figures alone.
    """
    return Figures(on_device(run, card, memory_bytes, bounds=bounds))
