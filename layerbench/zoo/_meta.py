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
from torch.nn import init
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
# What initializes weights. A tensor without memory stays as it is, and PyTorch works that out in
# Python, in a third of the time that a large model takes to build.
_FILLS = frozenset(
    {
        torch.Tensor.add_,
        torch.Tensor.clamp_,
        torch.Tensor.erfinv_,
        torch.Tensor.fill_,
        torch.Tensor.mul_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        torch.Tensor.zero_,
        init.constant_,
        init.kaiming_uniform_,
        init.normal_,
        init.uniform_,
    }
)
_NUMBERS = (int, float, str, torch.Generator, type(None))


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
        if func in _FILLS and _fills_nothing(*args, **options):
            return args[0] if args else options["tensor"]
        return func(*args, **options)


def _fills_nothing(tensor: torch.Tensor, *others: object, **options: object) -> bool:
    """Whether numbers are put into a plain tensor that has no memory to hold them."""
    return (
        tensor.is_meta
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and all(isinstance(other, _NUMBERS) for other in (*others, *options.values()))
    )


@contextmanager
def no_memory() -> Iterator[None]:
    """Inside, weights and random inputs are created on the meta device."""
    with _ShapesOnly():
        yield
