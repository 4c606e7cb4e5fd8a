"""Operators made of others, under a mode and autocast as without the mode.

PyTorch takes such an operator apart above its dispatch modes, with autocast on for the parts. In
inference mode it hands the operator whole to a mode, whose handler runs with autocast off, however
it was: the parts would then get tensors of types that do not go together. So it is noted here
where autocast is on, and put on again for the parts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload

_KEYS = torch._C.DispatchKey
_AUTOCAST: dict[str, Any] = {
    device: torch._C._parse_dispatch_key(f"Autocast{device.upper()}")
    for device in ("cpu", "cuda", "xpu", "mps")
    # torch 2.4 has none on Apple's GPUs, and refuses to say whether it is on.
    if torch.amp.is_autocast_available(device)
}


_PUT = torch.set_autocast_enabled
_lock = threading.Lock()
_blocks: list[Any] = []
"""For each block that notes it now, in all threads, the function that it met."""


def autocast_type(device: str) -> torch.dtype | None:
    """What autocast computes in on a type of device; ``None`` where it is off or missing."""
    # PyTorch raises an error where it has none: torch 2.4 on Apple's GPUs, each on some devices.
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


class _Noted(threading.local):
    types: frozenset[str] = frozenset()


_noted = _Noted()
"""Device types with autocast on, in this thread, while it is noted."""


@contextmanager
def autocast_noted() -> Iterator[None]:
    """Note where autocast is on, for the duration of a ``with`` block around an operator mode.

    What `torch.autocast` does inside is noted, too, in each thread.

    Known limitations: the older functions for one device, such as `torch.set_autocast_cpu_enabled`,
    are not noted.
    """
    before, _noted.types = _noted.types, _types_on()
    with _lock:
        _blocks.append(_blocks[0] if _blocks else torch.set_autocast_enabled)
        torch.set_autocast_enabled = _put_and_note
    try:
        yield
    finally:
        with _lock:
            met = _blocks.pop()
            if not _blocks:
                torch.set_autocast_enabled = met
        _noted.types = before


def _put_and_note(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - it has two signatures
    (_blocks[0] if _blocks else _PUT)(*args, **kwargs)
    _noted.types = _types_on()


def _types_on() -> frozenset[str]:
    return frozenset(one for one in _AUTOCAST if autocast_type(one) is not None)


@contextmanager
def as_called(func: OpOverload | HigherOrderOperator) -> Iterator[None]:
    """Autocast in a mode's handler as where the operator was called, if it is made of others.

    An operator that autocast itself knows has its arguments cast already, and runs its parts
    without autocast.
    """
    types = _noted.types
    if not types or not is_composite(func):
        yield
        return
    if any(func.has_kernel_for_dispatch_key(_AUTOCAST[one]) for one in types):
        _noted.types = frozenset()
        try:
            yield
        finally:
            _noted.types = types
        return
    off = [one for one in types if not torch.is_autocast_enabled(one)]
    try:
        for one in off:
            _PUT(one, True)
        yield
    finally:
        for one in off:
            _PUT(one, False)


@cache
def is_composite(func: object) -> bool:
    """Whether an operator is made of others, which it runs in a mode's handler."""
    return isinstance(func, OpOverload) and func.has_kernel_for_dispatch_key(
        _KEYS.CompositeImplicitAutograd
    )
