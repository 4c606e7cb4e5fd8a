"""Leaves a device's caches without what a layer would find in them."""

from __future__ import annotations

import torch

from layerbench.environment.caches import last_level_bytes
from layerbench.environment.devices import Device

# Larger than the caches, as what they throw out first is not said.
_MARGIN = 1.25
# Where nobody says how large the caches are.
_USUAL_BYTES = 64 * 2**20
_MOST_BYTES = 512 * 2**20
# Of the free memory, what the buffer may take.
_SHARE_OF_FREE = 0.125


class CacheSweep:
    """Reads a buffer larger than the last-level cache; on an accelerator it writes one.

    Args:
        device: whose caches are swept.

    Attributes:
        bytes: of the buffer.
        cache_bytes: of the last-level caches; ``None`` where that is not known.
    """

    def __init__(self, device: Device) -> None:
        self.cache_bytes = _cache_bytes(device)
        wanted = round((self.cache_bytes or _USUAL_BYTES) * _MARGIN)
        room = round(device.memory().free_bytes * _SHARE_OF_FREE)
        self.bytes = max(4, min(wanted, _MOST_BYTES, room))
        self._on_host = device.kind == "cpu"
        self._wait = device.clock().synchronize
        self._buffer = torch.zeros(self.bytes // 4, device=device.torch_device)

    def run(self) -> None:
        """Sweep, and wait until it is done."""
        if self._on_host:
            self._buffer.sum()
        else:
            self._buffer.fill_(1.0)
            self._wait()


def _cache_bytes(device: Device) -> int | None:
    if device.kind == "cpu":
        return last_level_bytes()
    properties = getattr(getattr(torch, device.kind, None), "get_device_properties", None)
    if properties is None:
        return None
    size = getattr(properties(device.torch_device), "L2_cache_size", None)
    return size if isinstance(size, int) and size > 0 else None
