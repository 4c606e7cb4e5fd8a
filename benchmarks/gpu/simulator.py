"""The simulated accelerator where there is no card: its rules, and whether it is meant."""

from __future__ import annotations

from typing import Any

NAME = "sim"

H200: dict[str, Any] = {
    "kernel_ns": 2000,
    "bytes_per_ns": 4000,
    "flops_per_ns": 50000,
    "launch_ns": 2000,
    "event_queue_ns": 1000,
}
"""Stated assumptions about a large GPU, no measurement: 2 µs a kernel, then 4 TB/s or 50 TFLOP/s,
2 µs of the host to launch one, 1 µs of the queue for an event."""

# Small enough that a batch runs out of memory at once.
LIMIT_BYTES = 32 << 20


def is_meant(device: str) -> bool:
    """Whether a device's name is that of the simulated accelerator."""
    return device.partition(":")[0] == NAME


def prepare(device: str, quick: bool) -> None:
    """Register the simulated accelerator in this process, if it is meant; the host is real.

    Args:
        device: its name.
        quick: little memory, and no waiting for a clock, which it has not. Else a kernel that was
            seen before is not computed again, so that large models are there in time.

    Raises:
        CannotBuildError: no compiler, or it failed.
    """
    if is_meant(device):
        from layerbench.instruments import warm_up
        from tests import simulated

        if quick:
            warm_up.LONGEST_S = 0.0
        memory = {"limit_bytes": LIMIT_BYTES} if quick else {"skip": True}
        simulated.load().rules(**H200, virtual_host=False, **memory)
