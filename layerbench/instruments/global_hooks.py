"""Hooks that PyTorch runs for every module of the process."""

from __future__ import annotations

from torch.nn.modules import module as _module

# Every hook for all modules is in one of these, whatever else PyTorch notes about it.
_TABLES = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
)


def has_any_global_hook() -> bool:
    """Whether there is one. PyTorch's own answer exists from version 2.8 on."""
    return any(getattr(_module, name) for name in _TABLES)
