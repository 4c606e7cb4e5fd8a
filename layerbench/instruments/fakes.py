"""Tensors without memory in the place of a model's own, and of its inputs'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from layerbench import zoo
from layerbench.instruments.attach import tensors_replaced
from layerbench.instruments.functions import GUARDED
from layerbench.modules import modules
from layerbench.nested import map_tensors
from layerbench.workload import Workload
from layerbench.zoo import Built


def shapes_of_model(workload: Workload) -> Built | None:
    """A model without memory, if fake tensors show of it what real ones would.

    ``None`` where its constructor needs values, and where it holds attention's fused kernel, which
    returns no attention weights on real tensors and empty ones on fake tensors.
    """
    try:
        built = zoo.build_shapes(workload)
    except Exception:
        return None  # a real build says what is wrong, if anything is
    fused = any(isinstance(module, GUARDED) for module in modules(built.module))
    return None if fused else built


def fake_tensors() -> AbstractContextManager[object]:
    """The mode in which tensors have shape, type and device but no memory; it refuses fallbacks."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)


@contextmanager
def without_memory(
    built: Built, device: str, mode: AbstractContextManager[object] | None = None
) -> Iterator[Built]:
    """Run the block on tensors that say they are on a device; the model has its own afterwards.

    Args:
        built: a model and its inputs, of any tensors.
        device: such as ``cpu``, ``cuda`` or ``meta``.
        mode: stays on for the block; `fake_tensors` if ``None``.
    """

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    with mode or fake_tensors(), tensors_replaced(built.module, fake):
        args, kwargs = map_tensors((built.args, built.kwargs), fake)
        yield Built(built.module, args, kwargs)
