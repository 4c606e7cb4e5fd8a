"""Modules called from other places than the one where they lie.

All arithmetic is that of square linear layers of one width, so that what is right can be counted:
``WORK`` is one such layer's FLOPs in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.faulty import Case

WIDTH, BATCH = 4, 2
WORK = 2 * BATCH * WIDTH * WIDTH
LAYER = WIDTH * WIDTH + WIDTH

MODELS: list[Case] = []
Build = Callable[[], nn.Module]


def case(name: str, layers: int, calls: int) -> Callable[[Build], Build]:
    """A decorator: the model that follows has so many linear layers, and calls of them."""

    def add(build: Build) -> Build:
        made: Callable[[], tuple[nn.Module, tuple[Any, ...]]] = lambda: (  # noqa: E731
            build(),
            (torch.rand(BATCH, WIDTH),),
        )
        MODELS.append(Case(name, made, layers * LAYER, calls * WORK))
        return build

    return add


def built(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model of a case, and its inputs."""
    return next(case for case in MODELS if case.name == name).build()


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


class Block(nn.Module):
    """Runs its own layer and then another module, which it may share."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.own, self.shared = linear(), shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(self.own(x))


class Borrowing(nn.Module):
    """Runs its own layer and then modules that lie elsewhere: it keeps them in a plain list."""

    def __init__(self, *others: nn.Module) -> None:
        super().__init__()
        self.own, self.others = linear(), list(others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.own(x)
        for other in self.others:
            x = other(x)
        return x


@case("a layer that three blocks share", 4, 6)
def three_blocks() -> nn.Module:
    shared = linear()
    return nn.Sequential(*(Block(shared) for _ in range(3)))


@case("a composite module that two blocks share, in lists", 6, 8)
def shared_in_lists() -> nn.Module:
    shared = nn.Sequential(linear(), linear())

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([linear(), shared, linear()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.parts:
                x = part(x)
            return x

    return nn.Sequential(Holder(), Holder())


class _Projecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = linear()
        self.a = Borrowing(self.projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)


@case("a block that runs a layer which is not in it", 2, 2)
def borrowed() -> nn.Module:
    return _Projecting()


@case("a block that runs a layer which the model runs, too", 2, 3)
def partly_borrowed() -> nn.Module:
    class Net(_Projecting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.projection(self.a(x))

    return Net()


@case("blocks that call the next one", 4, 4)
def linked() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks = [Borrowing()]
            for _ in range(3):
                blocks.insert(0, Borrowing(blocks[0]))
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    return Net()


class Recursive(nn.Module):
    """Calls itself until it has gone deep enough."""

    def __init__(self) -> None:
        super().__init__()
        self.own = linear()

    def forward(self, x: torch.Tensor, depth: int = 3) -> torch.Tensor:
        x = self.own(x)
        return self(x, depth - 1) if depth > 1 else x


@case("a block that calls itself", 2, 4)
def recursive() -> nn.Module:
    return nn.Sequential(linear(), Recursive())


@case("a block that calls the module it lies in", 2, 3)
def calls_what_holds_it() -> nn.Module:
    class Inner(nn.Module):
        def __init__(self, outer: nn.Module) -> None:
            super().__init__()
            self.own, self.outer = linear(), [outer]

        def forward(self, x: torch.Tensor, again: bool) -> torch.Tensor:
            x = self.own(x)
            return self.outer[0](x, again=False) if again else x

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner(self)

        def forward(self, x: torch.Tensor, again: bool = True) -> torch.Tensor:
            return self.inner(x, again)

    return nn.Sequential(linear(), Outer())


@case("one block in a loop", 3, 9)
def looped() -> nn.Module:
    """As in ALBERT and the Universal Transformer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = Block(linear()), linear()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                x = self.layer(x)
            return self.head(x)

    return Net()


@case("two inputs through one branch", 3, 5)
def siamese() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.head = Block(linear()), linear()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.branch(x) + self.branch(x + 1))

    return Net()


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = linear()
        self.downs = nn.ModuleList(Block(linear()) for _ in range(2))
        self.ups = nn.ModuleList(Block(linear()) for _ in range(2))
        self.spare = nn.ModuleList([linear()])
        self.stem = linear()


@case("lists of modules that run one after the other", 11, 10)
def u_net() -> nn.Module:
    class Net(_UNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for module in (*self.downs, *reversed(self.ups)):
                x = module(x)
            return self.head(x)

    return Net()


@case("lists of modules that run in turn", 11, 10)
def interleaved() -> nn.Module:
    class Net(_UNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for down, up in zip(self.downs, self.ups, strict=True):
                x = up(down(x))
            return self.head(x)

    return Net()


@case("blocks whose forward is called by name", 5, 4)
def by_name() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.routes = nn.ModuleDict({"left": Block(linear()), "right": Block(linear())})
            self.unused = linear()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.routes["left"].forward(self.routes["right"].forward(x))

    return Net()


# Attributes, modes and hooks are restored alike for all of these: a few stand for them.
CASES = [
    case
    for case in MODELS
    if case.name
    in (
        "a layer that three blocks share",
        "a block that calls the module it lies in",
        "blocks whose forward is called by name",
    )
]
