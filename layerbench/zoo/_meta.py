"""Build models without memory: large tensors get shapes only, small ones keep their values.

``torch.device("meta")`` would put every tensor on the meta device, and a constructor that works
its widths out with tensors (torchvision's RegNets) then fails where it reads one. Weights come
from few functions, so only what those return goes to the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_WEIGHTS_AND_INPUTS = frozenset(
    {
        torch.empty,
        torch.empty_strided,
        torch.full,
        torch.ones,
        torch.rand,
        torch.randn,
        torch.zeros,
    }
)


class _ShapesOnly(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        del types
        options = dict(kwargs or {})
        if func in _WEIGHTS_AND_INPUTS:
            options["device"] = "meta"
            options.pop("generator", None)
            options.pop("pin_memory", None)
        return func(*args, **options)


@contextmanager
def no_memory() -> Iterator[None]:
    """Inside, weights and random inputs are created on the meta device."""
    with _ShapesOnly():
        yield
