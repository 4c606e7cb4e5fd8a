"""Models whose numbers are not all float32, and constructors that read a value while they build.

Each function is also given by name, as ``tests/faulty/formats.py:spectral``: it returns a model and
its input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.faulty import Case

Given = tuple[nn.Module, torch.Tensor]


class _Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,i->bi", torch.fft.fft(x), self.w).real


class _FineHead(nn.Module):
    """A float64 head on a float32 body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 4).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).double())


class _Quantized(nn.Module):
    """Weights of 8 bits with a scale of 16."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(-9, 9, (4, 4), dtype=torch.int8)
        self.w = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", torch.ones(4, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.w.to(x.dtype).t()) * self.scale


class _Rates(nn.Module):
    """Reads its rates while it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.rates = (torch.ones(3) * 0.1).tolist()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.rates[0]


class _Positions(nn.Module):
    """Multiplies what has no memory with what has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("w", torch.ones(4) * torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x * self.w)


_tables: dict[int, torch.Tensor] = {}


class _Kept(nn.Module):
    """Has a table from a cache of its file, and reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table = _tables.setdefault(4, torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x + self.table) * float(self.table.sum())


class _KeepsBodyInEval(nn.Module):
    """Its ``train``, ``eval`` and ``to`` return nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.body.eval()

    def eval(self) -> None:  # type: ignore[override]
        super().eval()

    def to(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        super().to(*args, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def spectral() -> Given:
    """Complex weights."""
    return _Spectral(), torch.rand(2, 8)


def complex_linear() -> Given:
    """Complex weights, input and output."""
    return nn.Linear(4, 4, dtype=torch.cfloat), torch.rand(2, 4, dtype=torch.cfloat)


def bfloat16() -> Given:
    """All in bfloat16."""
    return nn.Linear(64, 64).bfloat16(), torch.rand(4, 64).bfloat16()


def fine_head() -> Given:
    """float32 and float64."""
    return _FineHead(), torch.rand(2, 8)


def quantized() -> Given:
    """int8 and float16, float32 input."""
    return _Quantized(), torch.rand(2, 4)


def dynamic() -> Given:
    """What ``quantize_dynamic`` makes, which needs values."""
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    return model, torch.rand(2, 4)


def rates() -> Given:
    """A constructor that reads a value."""
    return _Rates(), torch.rand(1, 4)


def positions() -> Given:
    """A constructor that mixes what is large with what is counted."""
    return _Positions(), torch.rand(1, 4)


def kept() -> Given:
    """A constructor that keeps a tensor in its file."""
    return _Kept(), torch.rand(1, 4)


def image() -> Given:
    """torchvision's own kind of tensor as the input."""
    from torchvision import tv_tensors

    return nn.Conv2d(3, 2, 3), tv_tensors.Image(torch.rand(1, 3, 8, 8))


def returns_nothing() -> Given:
    """A ``train`` that returns nothing."""
    return _KeepsBodyInEval(), torch.rand(2, 4)


def _case(build: Callable[[], Given], parameters: int, flops: int, trains: bool = True) -> Case:
    def fresh() -> tuple[nn.Module, tuple[torch.Tensor]]:
        module, x = build()
        return module, (x,)

    return Case((build.__doc__ or "").rstrip("."), fresh, parameters, flops, trains)


CASES = [
    _case(spectral, 8, 0),
    _case(complex_linear, 20, 64),
    _case(bfloat16, 4160, 32768),
    _case(fine_head, 108, 384),
    _case(quantized, 16, 64, trains=False),
    _case(rates, 20, 32),
    _case(kept, 20, 32),
    _case(image, 56, 3888),
    _case(returns_nothing, 30, 96),
]
