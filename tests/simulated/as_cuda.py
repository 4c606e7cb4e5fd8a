"""`Cuda`, layerbench's class for NVIDIA's GPUs, on the simulated accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from layerbench.environment.devices import cuda
from tests.simulated import Kernel, load


@contextmanager
def as_cuda(index: int = 0) -> Iterator[cuda.Cuda]:
    """A GPU that is the simulated device ``index`` for the duration of a ``with`` block."""
    load()
    with patch.object(cuda, "cuda", _torch_cuda()):
        device = cuda.Cuda(index)
        device.torch_device = torch.device("sim", index)
        yield device


def _torch_cuda() -> Any:
    """What layerbench uses of `torch.cuda`, over `torch.accelerator`."""
    general: Any = torch.accelerator
    memory = {
        name: getattr(general, name)
        for name in (
            *("memory_allocated", "memory_reserved", "max_memory_allocated"),
            *("max_memory_reserved", "reset_peak_memory_stats", "empty_cache"),
        )
    }
    return SimpleNamespace(
        **memory,
        **{name: getattr(general, name) for name in ("is_available", "device_count")},
        **{name: getattr(general, name) for name in ("synchronize", "current_stream")},
        current_device=general.current_device_index,
        device=general.device_index,
        is_initialized=lambda: True,
        mem_get_info=general.get_memory_info,
        get_device_properties=_properties,
        Event=partial(torch.Event, device="sim"),
        _sleep=load().sleep,  # a cycle is a nanosecond
        Stream=partial(torch.Stream, device="sim"),
        stream=nullcontext,
        CUDAGraph=Graph,
        graph=Graph.capturing,
    )


class Graph:
    """A graph that has the kernels that were launched while it was captured.

    They also run then, which a GPU's do not.
    """

    def __init__(self) -> None:
        self._kernels: list[Kernel] = []

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Stands for ``torch.cuda.graph``."""
        first = load().kernel_count
        yield
        self._kernels = load().kernels(first)

    def replay(self) -> None:
        """Run the kernels again; values stay as they are."""
        load().replay(self._kernels)


def _properties(index: int) -> SimpleNamespace:
    total = torch.accelerator.get_memory_info(index)[1]
    return SimpleNamespace(
        name="Simulated GPU", total_memory=total, major=9, minor=0, multi_processor_count=1
    )
