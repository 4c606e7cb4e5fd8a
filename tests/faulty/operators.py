"""Operators and tensors of kinds that are easily forgotten: sparse, packed, recurrent, fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from tests.faulty import Case

Built = tuple[nn.Module, tuple[Any, ...]]


class _Adjacency(nn.Module):
    """A graph layer: a sparse matrix of 4 stored elements, kept as a buffer."""

    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.register_buffer("a", torch.eye(4).to_sparse(layout=layout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(self.a, self.lin(x))


def _adjacency(layout: torch.layout) -> Built:
    return _Adjacency(layout), (torch.rand(4, 4),)


class _Sees(nn.Module):
    """Looks at a value first, so that shapes alone do not suffice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor | None:
        if float(x.sum()) < 0:
            return None
        output = self.inner(x)
        return output[0] if isinstance(output, tuple) else output


class _Packs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 3, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(pack_padded_sequence(x, [5, 3]))[0].data


def _encoder() -> Built:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    return nn.TransformerEncoder(layer, 1).eval(), (torch.rand(2, 6, 16), None, padding)


class _Views(nn.Module):
    """Weight and bias are parts of one flat tensor."""

    def __init__(self) -> None:
        super().__init__()
        flat = torch.rand(72)
        self.weight = nn.Parameter(flat[:64].view(8, 8))
        self.bias = nn.Parameter(flat[64:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class _Grouped(nn.Module):
    """Eight heads of the query share two of key and value."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)


def _quantized(module: nn.Module, kind: type[nn.Module], *args: Any) -> Built:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {kind}), args


_LSTM_TOKEN = 2 * 4 * 6 * (8 + 6)
_GRU_TOKEN = 2 * 2 * 3 * 3 * (4 + 3)
_ENCODER = 4 * 2 * 12 * 16 * 16 + 4 * 2 * 6 * 6 * 16 + 4 * 12 * 16 * 32

CASES = [
    Case("a sparse buffer", lambda: _adjacency(torch.sparse_coo), 15, 2 * 48 + 2 * 4 * 3),
    Case("a buffer of compressed rows", lambda: _adjacency(torch.sparse_csr), 15, 2 * 48 + 24),
    Case("a masked encoder, which nests its rows", _encoder, 2224, _ENCODER),
    Case("an lstm", lambda: (nn.LSTM(8, 6), (torch.rand(5, 3, 8),)), 384, 15 * _LSTM_TOKEN),
    Case(
        "an lstm after a look at a value",
        lambda: (_Sees(nn.LSTM(8, 6)), (torch.rand(5, 3, 8),)),
        384,
        15 * _LSTM_TOKEN,
    ),
    Case("a packed sequence", lambda: (_Packs(), (torch.rand(5, 2, 4),)), 162, 8 * _GRU_TOKEN),
    Case("parameters that are views", lambda: (_Views(), (torch.rand(4, 8),)), 72, 512),
    Case(
        "attention with grouped queries",
        lambda: (_Grouped(), (torch.rand(1, 8, 5, 4), torch.rand(1, 2, 7, 4))),
        0,
        4 * 8 * 5 * 7 * 4,
        trains=False,
        since=((2, 5), "the argument `enable_gqa`"),
    ),
    Case(
        "a bilinear layer",
        lambda: (nn.Bilinear(4, 3, 2), (torch.rand(5, 4), torch.rand(5, 3))),
        26,
        2 * 5 * 2 * 4 * 3 + 2 * 5 * 2 * 3,
    ),
    Case(
        "linear layers quantized",
        lambda: _quantized(nn.Linear(4, 5), nn.Linear, torch.rand(2, 4)),
        4 * 5 + 5,
        80,
        trains=False,
    ),
    Case(
        "an lstm quantized",
        lambda: _quantized(nn.LSTM(8, 6), nn.LSTM, torch.rand(5, 3, 8)),
        4 * 6 * (8 + 6 + 2),
        15 * _LSTM_TOKEN,
        trains=False,
    ),
]  # fmt: skip

CASES += [
    Case("an input without dimensions", lambda: (nn.ReLU(), (torch.tensor(1.0),)), 0, 0, False),
    Case("a nested tensor as input", lambda: (_Pads(), (_nested(),)), 20, 160, False),
    Case(
        "a nested tensor in a buffer", lambda: (_Added(_nested()), (torch.rand(2, 3, 4),)), 20, 192
    ),
    Case(
        "a buffer quantized by channels with zero points of floating point, which has no copy",
        lambda: (_Added(_by_channel()), (torch.rand(3, 4),)),
        20,
        96,
    ),
    Case(
        "a weight of a class of its own",
        lambda: (_Doubling(), (torch.rand(2, 4),)),
        28,
        2 * 2 * 4 * 4 + 2 * (2 * 2 * 4 * 2),
        since=((2, 8), "any dispatch mode beside a tensor of a class with functions"),
    ),
    Case("rows of different lengths", lambda: (_Jagged(), (torch.rand(5, 4),)), 20, 160),
    Case(
        "attention over rows of different lengths",
        lambda: (_JaggedAttention(), (torch.rand(5, 4),)),
        20,
        # Two heads of two; the rows of 2 and 3 meet only themselves.
        160 + 4 * 2 * 2 * (2 * 2 + 3 * 3),
    ),
    Case("a matrix product of the user's own", lambda: (_Own(), (torch.rand(2, 4),)), 16, 64),
]


def _nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.rand(3, 4), torch.rand(2, 4)])


def _by_channel() -> torch.Tensor:
    scales, zeros = torch.full((3,), 0.1), torch.zeros(3)
    return torch.quantize_per_channel(torch.rand(3, 4), scales, zeros, 0, torch.quint8)


class _Added(nn.Module):
    """Adds a buffer to its input."""

    def __init__(self, held: torch.Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("held", held)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = self.held
        dense = held.to_padded_tensor(0.0) if held.is_nested else held.dequantize()
        return self.fc(x + dense)


class _Pads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).to_padded_tensor(0.0)


class _Twice(torch.Tensor):
    """A product with it is made twice, and added up."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.mm:
            made = made + super().__torch_function__(func, types, args, kwargs or {})
        return made.as_subclass(torch.Tensor) if func is torch.mm else made


class _Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.w = nn.Parameter(torch.rand(4, 2).as_subclass(_Twice))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mm(self.fc(x), self.w)


class _Jagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(self.fc(torch.nested.as_nested_tensor([x[:2], x[2:]], layout=torch.jagged)))

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.values()


class _JaggedAttention(_Jagged):
    def of(self, rows: torch.Tensor) -> torch.Tensor:
        heads = rows.unflatten(-1, [2, 2]).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return mixed.transpose(1, 2).flatten(-2).values()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        return grad @ w.t(), x.t() @ grad


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.rand(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Product.apply(x, self.w)
