"""Modules whose inside or attributes are not those of a plain one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from tests.faulty import Case

Built = tuple[nn.Module, tuple[Any, ...]]


def case(name: str, parameters: int | None, flops: int | None, *, trains: bool = True) -> Any:
    """A decorator: the function that follows builds a `Case` of this name."""

    def add(build: Callable[[], Built]) -> Callable[[], Built]:
        CASES.append(Case(name, build, parameters, flops, trains))
        return build

    return add


CASES: list[Case] = []


@case("weight norm on a convolution", 116, 7776)
def _() -> Built:
    return nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()), (torch.rand(1, 3, 8, 8),)


@case("spectral norm on a linear layer in a block", 2 * 20, 2 * 64 + 2 * 4 * 4 + 2 * 4)
def _() -> Built:
    """In each forward the largest singular value is a product of vector, matrix and vector."""
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), spectral_norm(nn.Linear(4, 4)))
    return block.eval(), (torch.rand(2, 4),)


@case("orthogonal recurrent weights", 2 * (4 * 4) + 2 * 4, None)
def _() -> Built:
    return orthogonal(nn.RNN(4, 4), "weight_hh_l0"), (torch.rand(3, 2, 4),)


@case("weight norm on the projection of an attention", 296, 2 * 2 * 5 * (8 * 32 + 2 * 5 * 8))
def _() -> Built:
    """The attention asks for its weights more often where it looks whether it can run fused."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    weight_norm(attention.out_proj)
    x = torch.rand(2, 5, 8)
    return attention, (x, x, x)


class _FallsBack(nn.Module):
    """Tries one layer, and takes another where that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            output: torch.Tensor = self.first(x)
        except RuntimeError:
            output = self.second(x)
        return output


@case("a layer that fails, and another takes its place", 36, 64)
def _() -> Built:
    return _FallsBack(), (torch.rand(2, 4),)


class _Expanded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((1,), 2.0).expand(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale


@case("a buffer whose elements share their memory", 20, 64)
def _() -> Built:
    return _Expanded(), (torch.rand(2, 4),)


class _Sealed(nn.Module):
    """Refuses every attribute, its mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.__dict__["sealed"] = True

    def __setattr__(self, name: str, value: object) -> None:
        if self.__dict__.get("sealed"):
            raise AttributeError(f"{name} cannot be set")
        super().__setattr__(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(x)
        return output


@case("a module that refuses attributes", 20, 64)
def _() -> Built:
    return _Sealed(), (torch.rand(2, 4),)


class OfOneMode(nn.Module):
    """Fails half-way where its mode is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def train(self, mode: bool = True) -> OfOneMode:
        super().train(mode)
        raise NotImplementedError("has one mode")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(x)
        return output


@case("a module whose mode cannot be changed", 20, 64)
def _() -> Built:
    return OfOneMode(), (torch.rand(2, 4),)


class _Adapted(nn.Linear):
    def __init__(self) -> None:
        super().__init__(8, 8)
        down, up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.adapters = nn.ModuleDict({"default": nn.Sequential(down, up)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.adapters["default"](x)


@case("linear layers with adapters in them", 2 * (72 + 32), 2 * (2 * 2 * 64 + 2 * 2 * 32))
def _() -> Built:
    return nn.Sequential(_Adapted(), nn.ReLU(), _Adapted()), (torch.rand(2, 8),)


def _scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def _traced(module: nn.Module, *args: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, args)


@case("a scripted layer", 20, 64)
def _() -> Built:
    return nn.Sequential(_scripted(nn.Linear(4, 4)), nn.ReLU()), (torch.rand(2, 4),)


@case("scripted as a whole", 28, 64)
def _() -> Built:
    return _scripted(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))), (torch.rand(2, 4),)


@case("a traced part with a normalization", 28, 64)
def _() -> Built:
    part = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return nn.Sequential(_traced(part.eval(), torch.rand(2, 4)), nn.ReLU()), (torch.rand(2, 4),)


@case("a scripted layer that shares its weight with another", 24, 128)
def _() -> Built:
    scripted, other = _scripted(nn.Linear(4, 4)), nn.Linear(4, 4)
    other.weight = scripted.weight
    return nn.Sequential(scripted, other), (torch.rand(2, 4),)


@case("a frozen part, which has no mode and no parameters", 20, 128)
def _() -> Built:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4)).eval()))
    return nn.Sequential(part, nn.Linear(4, 4)), (torch.rand(2, 4),)


class _Hiding(nn.Module):
    """Its attributes have the names of nn.Module's methods."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.real, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        for name in names:
            setattr(self, name, [self.real])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.real(x))


@case("attributes named modules, children, parameters and buffers", 28, 64)
def _() -> Built:
    return _Hiding(("modules", "children", "parameters", "buffers")), (torch.rand(2, 4),)


@case("attributes named as all methods that walk or change a module", 28, 64)
def _() -> Built:
    walking = ("named_modules", "named_children", "named_parameters", "named_buffers", "apply")
    changing = ("train", "eval", "to", "float", "type", "zero_grad", "state_dict", "compile")
    return nn.Sequential(_Hiding((*walking, *changing))), (torch.rand(2, 4),)


class _Listed(nn.Module):
    """A class attribute and a property hide methods."""

    children = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.real = nn.Linear(4, 4)

    @property
    def modules(self) -> list[str]:
        return ["real"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.real(x)


@case("a class attribute named children, a property named modules", 20, 64)
def _() -> Built:
    return _Listed(), (torch.rand(2, 4),)


class _Cyclic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.part.owner = self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)


@case("a layer that has the whole model as a submodule", 20, 64)
def _() -> Built:
    return _Cyclic(), (torch.rand(2, 4),)


@case("lazy layers that have not run", 4 * 3 * 9 + 4 + 8 + 2 * 144 + 2, 2 * 2 * (36 * 4 * 27 + 288))
def _() -> Built:
    lazy = (nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    return nn.Sequential(*lazy), (torch.rand(2, 3, 8, 8),)


@case("an exported module", 20, 64)
def _() -> Built:
    x = torch.rand(2, 4)
    return torch.export.export(nn.Sequential(nn.Linear(4, 4)).eval(), (x,)).module(), (x,)


@case("a graph module in another", 20, 64)
def _() -> Built:
    part = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.Dropout()))
    return nn.Sequential(part, nn.ReLU()), (torch.rand(2, 4),)


@dataclass
class _Batch:
    x: torch.Tensor
    names: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True, slots=True)
class _Logits:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class _Typed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, batch: _Batch) -> _Logits:
        return _Logits(self.fc(batch.x))


@case("a dataclass in and a frozen one out", 15, 48)
def _() -> Built:
    return _Typed(), (_Batch(torch.rand(2, 4)),)


@case("a distribution out", 15, None)
def _() -> Built:
    return _Distributes(), (torch.rand(2, 4),)


class _Distributes(_Typed):
    def forward(self, x: torch.Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Categorical(logits=self.fc(x), validate_args=False)


class _Equal(nn.Module):
    """Equal to any other of its kind, and so without a hash."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equal)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)


@case("modules that are equal, empty and without a hash", 40, 128)
def _() -> Built:
    return nn.Sequential(_Equal(), _Equal()), (torch.rand(2, 4),)


class _Lists(nn.Module):
    """TorchScript runs lists of modules itself: they have no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.named = nn.ModuleDict({"last": nn.Linear(4, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        for layer in self.named.values():
            x = layer(x)
        return x


@case("a scripted list of layers", 50, 160)
def _() -> Built:
    return nn.Sequential(torch.jit.script(_Lists()), nn.ReLU()), (torch.rand(2, 4),)


class _Once(nn.Module):
    """Runs a layer once, takes it away, and puts another in its place under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.start = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if hasattr(self, "start"):
            x = self.start(x)
            del self.start
            self.other = nn.Linear(4, 4).to(x.device)
        return x


@case("a layer that the first forward takes away", 40, 128)
def _() -> Built:
    return _Once(), (torch.rand(2, 4),)


class _Interprets(nn.Module):
    """Keeps an interpreter of a graph, which keeps the values of its last run."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4)))
        self.interpreter = torch.fx.Interpreter(graph, garbage_collect_values=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.interpreter.run(self.body(x))


@case("an interpreter of a graph, which keeps its values", 20, 128)
def _() -> Built:
    return _Interprets(), (torch.rand(2, 4),)


class _Switched(nn.Module):
    """What its forward is, it says at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.is_wide = nn.Linear(4, 8), nn.Linear(8, 4), True

    @property
    def forward(self) -> Any:
        return self.wide.forward if self.is_wide else self._narrow

    def _narrow(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(x)


class _Switches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = _Switched()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner.is_wide = True
        x = self.inner(x)
        self.inner.is_wide = False
        return self.inner(x)


@case("a property that says what the forward is", 76, 2 * 2 * 2 * 4 * 8)
def _() -> Built:
    return _Switches(), (torch.rand(2, 4),)


class _Opens(nn.Module):
    """Is of another class once it has run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.later = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nn.Module.__setattr__(self, "__class__", _Opened)
        return self.first(x)


class _Opened(_Opens):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.later(self.later(x))


@case("a class that the first forward changes", 40, 64)
def _() -> Built:
    return nn.Sequential(_Opens()), (torch.rand(2, 4),)
