"""Models whose forward keeps something, or changes what it was given."""

from __future__ import annotations

import contextvars
import itertools
import queue
import random
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from tests.faulty import Case

Inputs = tuple[nn.Module, tuple[Any, ...]]
CASES: list[Case] = []


def case(
    name: str,
    *args: Any,
    trains: bool = True,
    flops: int | None = None,
    among: list[Case] = CASES,
) -> Any:
    """A class decorator: the class becomes a `Case`; ``args`` are its input, or make it."""

    def add(kind: type[nn.Module]) -> type[nn.Module]:
        def build() -> Inputs:
            torch.manual_seed(0)
            model = kind()
            return model, tuple(a() if callable(a) else a for a in args) or (torch.rand(2, 4),)

        among.append(Case(name, build, flops=flops, trains=trains))
        return kind

    return add


class Base(nn.Module):
    """One layer, 4 to 4."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)


# --- attributes and containers ----------------------------------------------------------------


@case("a table of positions made in the first forward", flops=64)
class _Positions(Base):
    positions: torch.Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.positions = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.positions is None:
            self.positions = torch.arange(4, device=x.device, dtype=x.dtype)
        return self.fc(x + self.positions)


@case("a value that is looked at, and a kept table", flops=64)
class _Looks(_Positions):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out if out.sum().item() > 0 else -out


@case("a table made in the forward, that training saves for backward", flops=64)
class _Table(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "table"):
            self.table = torch.ones(4, device=x.device)
        return self.fc(x) * self.table


class _Cache:
    """As language models keep keys and values."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.seen = 0

    def update(self, key: torch.Tensor) -> torch.Tensor:
        self.keys.append(key)
        self.seen += 1
        return torch.stack(self.keys).sum(0)


@case("a cache of keys that grows with each forward", trains=False)
class _KeysKept(Base):
    def __init__(self) -> None:
        super().__init__()
        self.cache = _Cache()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cache.update(self.fc(x).detach())


class _Slots:
    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0


@case("an object with slots, one of them empty at first")
class _InSlots(Base):
    def __init__(self) -> None:
        super().__init__()
        self.state = _Slots()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state.count += 1
        self.state.last = x.detach().mean()
        return self.fc(x) + self.state.last


class _Marked(torch.Tensor):
    __slots__ = ("uses",)


@case("slots of a module and of a tensor")
class _OwnSlots(Base):
    __slots__ = ("calls", "last")

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("scale", torch.ones(4).as_subclass(_Marked))
        self.scale.uses = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x.detach()
        uses = getattr(self.scale, "uses", [])  # what stands in for it has none
        uses.append(x.shape)
        return self.fc(x) * self.scale


@case("a module that is a list, too")
class _IsList(Base, list[Any]):
    __hash__ = nn.Module.__hash__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.append(x.detach())
        return self.fc(x)


class _Pair(NamedTuple):
    first: torch.Tensor
    steps: list[int]


@dataclass
class _Statistics:
    count: int = 0
    seen: list[torch.Tensor] = field(default_factory=list)
    by_shape: dict[Any, Any] = field(default_factory=dict)


@case("containers of every kind")
class _Containers(Base):
    def __init__(self) -> None:
        super().__init__()
        self.last: deque[torch.Tensor] = deque([torch.zeros(())], maxlen=2)
        self.by_size: defaultdict[int, list[torch.Tensor]] = defaultdict(list)
        self.ordered = OrderedDict(a=1, b=2)
        self.names = {"a"}
        self.pair = _Pair(torch.zeros(2), [])
        self.statistics = _Statistics()
        self.bytes = bytearray(b"ab")
        self.nested = {"a": [{"b": (torch.zeros(1), [])}]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.fc(x)
        kept = out.detach()
        self.last.append(kept)
        self.by_size[len(x)].append(kept)
        self.ordered.move_to_end("a")
        self.names.add(str(tuple(x.shape)))
        self.pair.steps.append(1)
        self.statistics.count += 1
        self.statistics.seen.append(kept)
        self.statistics.by_shape[tuple(x.shape)] = kept
        self.bytes += b"c"
        self.nested["a"][0]["b"][1].append(kept)
        return out


@case("numpy arrays, generators of its own, iterators")
class _Draws(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mean = np.zeros(4)
        self.rng = np.random.default_rng(0)
        self.old_rng = np.random.RandomState(0)
        self.random = random.Random(0)
        self.generator = torch.Generator().manual_seed(0)
        self.count = itertools.count()
        self.rest = iter([1.0] * 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean += 1
        scale = self.rng.random() + self.old_rng.rand() + self.random.random() + next(self.rest)
        noise = torch.rand(4, generator=self.generator).to(x.device)
        return self.fc(x) * scale + noise + next(self.count)


@case("draws from the process's generators")
class _DrawsOutside(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(()) + random.random() + np.random.rand()
        return self.fc(x) * noise.item()


@case("weak references and what only one thread sees")
class _Weak(Base):
    def __init__(self) -> None:
        super().__init__()
        self.owner = weakref.ref(self)
        self.by_layer: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self.local = threading.local()
        self.local.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.local.calls += 1
        owner = self.owner()
        assert owner is self
        owner.by_layer[self.fc] = x.detach()
        return self.fc(x)

    def __deepcopy__(self, memo: object) -> nn.Module:
        return type(self)()


@case("a property and a __setattr__ of its own")
class _Properties(Base):
    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_inside"] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "last":
            self._inside[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def last(self) -> Any:
        return self._inside.get("last", 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.fc(x) + self.last
        self.last = out.detach().mean()
        return out


@case("attributes of the class")
class _OfTheClass(Base):
    calls = 0
    tables: ClassVar[dict[Any, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        if x.shape[1] not in self.tables:
            self.tables[x.shape[1]] = torch.ones(x.shape[1], device=x.device)
        return self.fc(x) * self.tables[x.shape[1]]


# --- outside of the model ---------------------------------------------------------------------


@lru_cache
def _rotary(size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Keyed by a name that says nothing of what the tensor is."""
    angles = torch.arange(size, device=device) * 1.0
    return angles.cos(), angles.sin()


@case("a cached function's tables")
class _Cached(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = _rotary(x.shape[1], x.device.type)
        return self.fc(x) * cos + sin


_TABLES: dict[int, torch.Tensor] = {}
_table: torch.Tensor | None = None


@case("tables in globals, keyed by length")
class _Globals(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global _table  # noqa: PLW0603 - what is tried
        if x.shape[1] not in _TABLES:
            _TABLES[x.shape[1]] = x.new_ones(x.shape[1])
        if _table is None:
            _table = x.new_ones(())
        return self.fc(x) * _TABLES[x.shape[1]] * _table


def _closing() -> Any:
    seen: dict[str, torch.Tensor] = {}

    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        del module, args
        first = seen.setdefault("first", output.detach())
        return output + first

    return hook


@case("a hook that keeps activations in what it closes over")
class _Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.fc.register_forward_hook(_closing())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


@case("a default argument as a cache")
class _Default(Base):
    def forward(self, x: torch.Tensor, cache: Any = {}) -> torch.Tensor:  # noqa: B006
        if "ones" not in cache:
            cache["ones"] = x.new_ones(4)
        return self.fc(x) + cache["ones"]


# --- tensors ----------------------------------------------------------------------------------


@case("a counter and a codebook in buffers, in eval mode")
class _Codebook(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("codes", torch.rand(3, 4))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.codes.mul_(0.9).add_(x.detach().mean(0) * 0.1)
        return self.fc(x) @ self.codes.detach().clone().t()


@case("weights clamped in the forward, through .data")
class _Clamped(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fc.weight.data.clamp_(-0.1, 0.1)
        self.fc.bias.data = torch.zeros_like(self.fc.bias.data)
        return self.fc(x)


@case("weights tied anew in each forward")
class _Tied(Base):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.head.weight = self.fc.weight
        return self.head(self.fc(x))


@case("a buffer, a layer and a hook that come with the first forward")
class _Grows(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "scale"):
            self.register_buffer("scale", torch.ones(4, device=x.device))
            self.extra = nn.Linear(4, 4).to(x.device)
            self.fc.register_forward_hook(lambda module, args, out: out * 2)
        return self.extra(self.fc(x) * self.scale)


@case("layers in a plain list, and a flag that the forward sets")
class _Listed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.BatchNorm1d(4), nn.Dropout(0.5)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.train(not self.training)
        self.fc.bias.requires_grad_(not self.fc.bias.requires_grad)
        out = self.fc(x)
        for layer in self.layers:
            out = layer(out)
        return out


@case("gradients taken in the forward", flops=None)
class _Forces(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = torch.tanh(self.fc(x)).sum()
            return self.fc(torch.autograd.grad(energy, x)[0])


@case("a backward in the forward, on an input that is made to require gradients")
class _Adapts(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x.requires_grad_(True)
            self.fc(x).square().sum().backward()
            assert x.grad is not None
            step = x.grad.clone()
        return self.fc(x.detach() + step.detach())


@case("gradients that are there already", lambda: torch.rand(2, 4, requires_grad=True))
class _HasGradients(Base):
    def __init__(self) -> None:
        super().__init__()
        self.fc(torch.rand(2, 4)).sum().backward()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


@case("an input with a history", lambda: nn.Linear(4, 4)(torch.rand(2, 4)))
class _AfterAnother(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


# --- more that a forward may write --------------------------------------------------------------


@case("attributes of tensors and functions, a queue, a buffer that grows")
class _Marks(Base):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: queue.Queue[int] = queue.Queue()
        self.register_buffer("history", torch.zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fc.weight.uses = getattr(self.fc.weight, "uses", 0) + 1
        type(self).forward.last = x
        self.waiting.put(1)
        self.history.resize_(self.history.numel() + 1).fill_(1)
        return self.fc(x)


_context: contextvars.ContextVar[torch.Tensor | None] = contextvars.ContextVar("table")


@case("a context variable, an optimizer inside, an average of the weights")
class _Trains(Base):
    def __init__(self) -> None:
        super().__init__()
        self.optimizer = torch.optim.Adam(self.fc.parameters())
        self.average = [one.detach().clone() for one in self.fc.parameters()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if _context.get(None) is None:
            _context.set(torch.ones(4, device=x.device))
        with torch.enable_grad():
            self.optimizer.zero_grad()
            self.fc(x.detach()).sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, one in zip(self.average, self.fc.parameters(), strict=True):
                average.lerp_(one, 0.1)
        return self.fc(x) * _context.get()
