"""Weights moved to another place in memory, so that where they lie does not decide a comparison.

Two copies of one model in one process differ for good: on one machine single layers of
MobileNet-V2 by 4 % (one standard deviation), its last layer by 8 %, since their weights lie on
other pages. Moved every few rounds, they differ by chance, and the chance can be seen (Curtsinger
& Berger, STABILIZER, 2013, do so with code and stack).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from layerbench.introspection.modules import named_buffers, named_parameters
from layerbench.introspection.tensors import is_plain


def can_move(module: nn.Module) -> bool:
    """Whether all weights are plain dense tensors in this process's own memory."""
    return all(
        type(tensor.data) is torch.Tensor
        and is_plain(tensor)
        and tensor.device.type == "cpu"
        and not tensor.is_inference()
        and not tensor.is_shared()  # type: ignore[no-untyped-call]
        for tensor in _weights(module)
    )


def move(module: nn.Module) -> None:
    """Give all weights of a module another place; values, and what shares memory, stay.

    Who holds a storage keeps the old one: a model that somebody else holds is moved within
    `brought_back`.
    """
    moved: dict[int, torch.UntypedStorage] = {}
    old = []
    for tensor in _weights(module):
        storage = tensor.untyped_storage()
        if storage._cdata not in moved:
            moved[storage._cdata] = storage.clone()  # type: ignore[no-untyped-call]
            old.append(storage)  # until all are copied: none takes the place of another
        _lay(tensor, moved[storage._cdata])


@contextmanager
def brought_back(module: nn.Module) -> Iterator[None]:
    """Bring the weights back where they lay, with the values that they then have."""
    homes = [(tensor, tensor.untyped_storage()) for tensor in _weights(module)]
    try:
        yield
    finally:
        for tensor, home in homes:
            now = tensor.untyped_storage()
            if now.data_ptr() != home.data_ptr() and now.nbytes() == home.nbytes():
                home.copy_(now)
                _lay(tensor, home)


def _lay(tensor: torch.Tensor, storage: torch.UntypedStorage) -> None:
    where = (tensor.storage_offset(), tensor.size(), tensor.stride())
    tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, *where)


def _weights(module: nn.Module) -> list[torch.Tensor]:
    return [tensor for _, tensor in (*named_parameters(module), *named_buffers(module))]
