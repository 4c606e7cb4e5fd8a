"""What each module of a model computes in one forward: FLOPs, parameters, kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from layerbench.instruments.attach import Forward
from layerbench.instruments.autocast_seen import autocast_noted
from layerbench.instruments.compiled import compilation_off
from layerbench.instruments.flops import FlopCounter
from layerbench.instruments.modes import Observing
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import CallObserver, ModuleFacts, ObservedCalls
from layerbench.instruments.stored_weights import packed_of, stored_bytes
from layerbench.introspection.modules import named_modules, own_parameters
from layerbench.introspection.tensors import elements_of
from layerbench.records.bounds import Shape
from layerbench.records.samples import RowFacts, WorkFacts

Work = dict[str, tuple[int, WorkFacts]]
"""By path of each module that ran: how often it was called, and its work."""


class Kernel(NamedTuple):
    """The window of a convolution or a pooling, and the groups of its channels."""

    size: Shape | None
    groups: int | None

    @classmethod
    def of_all(cls, model: nn.Module) -> dict[str, Kernel]:
        """By path of each module that has a window."""
        kernels = {path: cls.of(module) for path, module in named_modules(model)}
        return {path: kernel for path, kernel in kernels.items() if kernel.size is not None}

    @classmethod
    def of(cls, module: nn.Module) -> Kernel:
        """A module's; `NO_KERNEL` where it has none."""
        # Attributes of the instance alone: a user's property may compute, or raise.
        size, groups = (vars(module).get(name) for name in ("kernel_size", "groups"))
        sizes = size if isinstance(size, tuple) else (size,)
        if not sizes or not all(type(side) is int and side >= 0 for side in sizes):
            return NO_KERNEL
        return cls(tuple(sizes), groups if type(groups) is int and groups > 0 else None)


NO_KERNEL = Kernel(None, None)


class Flops(NamedTuple):
    """FLOPs by path of the modules.

    Attributes:
        own: what a module ran itself; inclusive: with all that it called.
    """

    own: Mapping[str, int]
    inclusive: Mapping[str, int]

    @classmethod
    def by_module(cls, calls: ObservedCalls, counter: FlopCounter) -> Flops:
        """What was counted by call, by module."""
        tree = calls.calls
        by_call: Counter[int] = Counter()
        own: Counter[str] = Counter()
        for place, flops in counter.flops.items():
            call = tree.home("") if place is None else place
            by_call[call] += flops
            own[tree.paths[call]] += flops
        return cls(own, tree.sums(by_call))


class WorkObserver(CallObserver):
    """A `CallObserver` that counts, too, what each module computes.

    Args:
        model, facts, shapes: as of `CallObserver`.
        throughout: whether it counts, too, where compiled code would run, which then runs as it
            was written; else it counts no further from there on.
    """

    def __init__(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        *,
        shapes: bool = True,
        throughout: bool = False,
    ) -> None:
        running = RunningModule(model)
        super().__init__(model, facts, running, shapes=shapes)
        self._held = dict(named_modules(model))  # a forward may take modules away
        self._counter = FlopCounter(running)
        self._counting = Observing(self._counter)
        self._throughout = throughout

    def observe(
        self,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        within: bool = False,
    ) -> ObservedCalls:
        """As of `CallObserver`; once."""
        with self._throughout_on() if self._throughout else self._counting.on():
            return super().observe(forward, args, kwargs, within=within)

    @contextmanager
    def _throughout_on(self) -> Iterator[None]:
        # Off, as an older PyTorch, such as 2.4, compiles anew under a mode.
        with compilation_off(), autocast_noted(), self._counter:
            yield

    def work(self) -> Work:
        """What the forward that was observed computed; nothing if it went off meanwhile."""
        return {} if self._counting.unseen else counted_work(self._held, self._seen, self._counter)


def counted_work(held: Mapping[str, nn.Module], calls: ObservedCalls, counter: FlopCounter) -> Work:
    """The work of the modules that ran.

    Args:
        held: the modules by path.
        calls: of one forward.
        counter: of the same forward, by the same calls.
    """
    flops = Flops.by_module(calls, counter)
    return {
        path: (facts.calls, _facts(held[path], path, flops))
        for path, facts in calls.items()
        if path in held
    }


def with_work(row: RowFacts, work: Work) -> RowFacts:
    """The row with its work; without, where the counted forward called it otherwise."""
    calls, facts = work.get(row.path, (0, None))
    return row.model_copy(update={"work": facts}) if facts and calls == row.calls else row


def _facts(module: nn.Module, path: str, flops: Flops) -> WorkFacts:
    kernel = Kernel.of(module)
    return WorkFacts(
        own_parameters=sum(map(elements_of, (*own_parameters(module), *packed_of(module)))),
        own_parameter_bytes=stored_bytes(module),
        flops=flops.inclusive.get(path, 0),
        self_flops=flops.own.get(path, 0),
        kernel_size=kernel.size,
        groups=kernel.groups,
    )
