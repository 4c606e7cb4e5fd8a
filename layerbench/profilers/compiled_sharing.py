"""From the times of compiled kernels to those of layers, by the parts that each kernel has.

A kernel's time goes to the layers in it (`layerbench.instruments.provenance`). What no kernel takes
is a row of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from layerbench.instruments.compilation import CompiledKernel
from layerbench.instruments.function_timer import FunctionFacts, FunctionForward
from layerbench.instruments.layer_timer import Folded
from layerbench.instruments.modules import CallFacts, ModuleFacts
from layerbench.instruments.provenance import Part
from layerbench.records import compilation as told
from layerbench.records.samples import KernelFacts, RowFacts, Samples

BETWEEN = "between_kernels"
"""The model's function row of what the compiled forward does besides its kernels."""

Number = tuple[int, int]
"""A graph's, and that of a kernel in it."""
Times = Mapping[Number, tuple[int, int]]
"""Of one forward: calls and nanoseconds of the kernels that ran."""
_ROOT = ""


class Sharing:
    """Which modules a kernel's time goes to.

    Args:
        modules: those with rows; the model itself is first.
        observed: calls of the model's modules in one forward of Python's.
        kernels: by their numbers.
    """

    def __init__(
        self,
        modules: Sequence[ModuleFacts],
        observed: Mapping[str, CallFacts],
        kernels: Callable[[Number], CompiledKernel],
    ) -> None:
        self.paths = [fact.path for fact in modules]
        self.kernel = kernels
        self.observed = observed
        self._index = {path: index for index, path in enumerate(self.paths)}
        calls = [observed[path].calls if path in observed else 0 for path in self.paths]
        self._calls = np.array(calls, dtype=np.int64)

    def added_up(self, times: Times, whole: int) -> Folded:
        """A forward's kernels by module; the model itself has what no module has."""
        own, inclusive = (np.zeros(len(self.paths), dtype=np.int64) for _ in range(2))
        for number, (_, taken) in times.items():
            for part, nanoseconds in _shared(taken, self.kernel(number).parts):
                inside = self.inside(part)
                own[inside[-1]] += nanoseconds
                for index in inside:
                    inclusive[index] += nanoseconds
        own[0] += whole - own.sum()
        inclusive[0] = whole
        return Folded(inclusive, own, self._calls)

    def inside(self, part: Part) -> list[int]:
        """Indices of the timed modules that a part of a kernel lies in, the innermost last."""
        inside = [self._index[path] for path in part.spot.modules if path in self._index]
        return [0, *(index for index in inside if index)]

    def spot(self, part: Part) -> tuple[str, str]:
        """The timed module that a part of a kernel lies in, and the function."""
        return self.paths[self.inside(part)[-1]], part.spot.function


@dataclass(frozen=True)
class SharedTimes:
    """What the forwards showed whose kernels were timed.

    Args:
        sharing: tells whose a kernel is.
        timed: the forwards.
        wholes: nanoseconds of each, kernels and what lies between them.
    """

    sharing: Sharing
    timed: Sequence[Times]
    wholes: Sequence[int]

    @cached_property
    def _numbers(self) -> list[Number]:
        """Of the kernels that ran, in the order of the code."""
        return sorted({number for times in self.timed for number in times})

    @cached_property
    def _sums(self) -> dict[Number, int]:
        """Nanoseconds of each kernel in all rounds."""
        return {
            number: sum(times.get(number, (0, 0))[1] for times in self.timed)
            for number in self._numbers
        }

    def kernels(self) -> tuple[KernelFacts, ...]:
        """What the rows of kernels are, in the order of the columns of `samples`."""
        return tuple(map(self._kernel_facts, self._numbers))

    def samples(self) -> Samples:
        """Nanoseconds of the kernels, shape (forwards, kernels)."""
        times = [[one.get(number, (0, 0))[1] for number in self._numbers] for one in self.timed]
        return np.array(times, dtype=np.int64).reshape(len(self.timed), len(self._numbers))

    def counts(self) -> dict[str, Any]:
        """Of `layerbench.records.compilation.Compilation` what only timed kernels tell."""
        whole = sum(self._sums.values())
        known = sum(
            taken
            * sum(part.share for part in self.sharing.kernel(number).parts if part.spot.modules)
            for number, taken in self._sums.items()
        )
        fused = sum(len(_layers_in(self.sharing.kernel(number))) > 1 for number in self._numbers)
        return {
            "kernels": sum(count for count, _ in self.timed[-1].values()) if self.timed else 0,
            "fused": fused,
            "attributed": round(min(known / whole, 1.0), 4) if whole else None,
        }

    def _kernel_facts(self, number: Number) -> KernelFacts:
        kernel = self.sharing.kernel(number)
        calls = [times[number][0] for times in self.timed if number in times]
        known = [part for part in kernel.parts if part.spot.modules]
        return KernelFacts(
            module=known[0].spot.module if known else _ROOT,
            function=known[0].spot.function if known else "",
            name=kernel.name,
            calls=int(np.bincount(calls).argmax()),
            layers=tuple(
                told.KernelPart(
                    module=part.spot.module,
                    function=part.spot.function,
                    share=round(part.share, 4),
                )
                for part in known
            ),
        )

    def functions(self, with_rows: frozenset[str]) -> list[FunctionForward]:
        """What modules of these paths did themselves, and what no kernel took."""
        spots = self._functions(with_rows | {_ROOT})
        return [
            FunctionForward(facts=tuple(spots.values()), times_ns=times, module_order=self._order)
            for times in self._function_times(list(spots))
        ]

    def _functions(self, with_rows: frozenset[str]) -> dict[tuple[str, str], FunctionFacts]:
        """The functions by module and name, in the order of their first calls."""
        sources: dict[tuple[str, str], set[str]] = {}
        order: dict[tuple[str, str], int] = {}
        for part in self._in_order():
            spot = self.sharing.spot(part)
            self._step_to(part, order, spot)
            sources.setdefault(spot, set()).update(part.sources)
        order[_ROOT, BETWEEN] = max([*order.values(), *self._order.values()], default=0) + 1
        return {
            spot: FunctionFacts(
                module=spot[0],
                name=spot[1],
                order=at,
                calls=len(sources.get(spot, ())) or 1,
                input_shapes=(),
                output_shapes=(),
            )
            for spot, at in sorted(order.items(), key=lambda item: item[1])
            if spot[0] in with_rows and spot[1]
        }

    def _step_to(
        self, part: Part, order: dict[tuple[str, str], int], spot: tuple[str, str]
    ) -> None:
        """Count a function behind the module that began last before it."""
        begun = [self._order[path] for path in part.spot.modules if path in self._order]
        latest = max([*begun, *order.values()], default=0)
        order.setdefault(spot, latest + 1)

    @cached_property
    def _order(self) -> dict[str, int]:
        """First calls of the modules, with room between them for functions."""
        room = 2 * len(self._numbers) * len(self.sharing.paths) + 2
        return {path: room * calls.order for path, calls in self.sharing.observed.items()}

    def _in_order(self) -> list[Part]:
        """The parts of all kernels in the order of the graphs' operators."""
        parts = [
            (number[0], part.order, part)
            for number in self._numbers
            for part in self.sharing.kernel(number).parts
        ]
        return [part for *_, part in sorted(parts, key=lambda one: one[:2])]

    def _function_times(self, spots: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
        every = []
        for times, whole in zip(self.timed, self.wholes, strict=True):
            sums: defaultdict[tuple[str, str], int] = defaultdict(int)
            for number, (_, taken) in times.items():
                for part, nanoseconds in _shared(taken, self.sharing.kernel(number).parts):
                    sums[self.sharing.spot(part)] += nanoseconds
            taken_by_all = sum(taken for _, taken in times.values())
            sums[_ROOT, BETWEEN] = whole - taken_by_all
            every.append(tuple(sums[spot] for spot in spots))
        return every

    # --- kernels and shares of rows --------------------------------------------------------

    def with_kernels(self, rows: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The modules' rows with their kernels, and how much of their time is shared."""
        inclusive: defaultdict[int, _Taken] = defaultdict(_Taken)
        own: defaultdict[int, _Taken] = defaultdict(_Taken)
        for number, taken in self._sums.items():
            parts = self.sharing.kernel(number).parts
            inside: defaultdict[int, float] = defaultdict(float)
            itself: defaultdict[int, float] = defaultdict(float)
            for part in parts:
                for index in set(self.sharing.inside(part)):
                    inside[index] += part.share
                itself[self.sharing.inside(part)[-1]] += part.share
            for sums, shares in ((inclusive, inside), (own, itself)):
                for index, share in shares.items():
                    sums[index].add(taken, share)
        return tuple(
            row.model_copy(
                update={
                    "kernels": inclusive[index].kernels,
                    # All that runs belongs to the model.
                    "shared": inclusive[index].shared if index else None,
                    "self_shared": own[index].shared,
                }
            )
            for index, row in enumerate(rows)
        )

    def with_shares(self, functions: tuple[RowFacts, ...]) -> tuple[RowFacts, ...]:
        """The functions' rows with their kernels, and how much of their time is shared."""
        sums: defaultdict[tuple[str, str], _Taken] = defaultdict(_Taken)
        for number, taken in self._sums.items():
            shares: defaultdict[tuple[str, str], float] = defaultdict(float)
            for part in self.sharing.kernel(number).parts:
                shares[self.sharing.spot(part)] += part.share
            for spot, share in shares.items():
                sums[spot].add(taken, share)
        return tuple(
            row.model_copy(
                update={"kernels": one.kernels, "shared": one.shared, "self_shared": one.shared}
            )
            for row in functions
            for one in [sums[row.module or _ROOT, row.type]]
        )


@dataclass
class _Taken:
    """What a row has of its kernels' time.

    Attributes:
        kernels: how many have a part of it.
        time, shared_time: nanoseconds in all rounds; of those in which other rows have parts.
    """

    kernels: int = 0
    time: float = 0.0
    shared_time: float = 0.0

    def add(self, taken: int, share: float) -> None:
        self.kernels += 1
        self.time += taken * share
        if share < _ALL:
            self.shared_time += taken * share

    @property
    def shared(self) -> float | None:
        part = round(self.shared_time / self.time, 4) if self.time else 0.0
        return part or None


# Shares are sums of fractions.
_ALL = 1 - 1e-9


def _layers_in(kernel: CompiledKernel) -> set[tuple[str, str]]:
    return {(part.spot.module, part.spot.function) for part in kernel.parts}


def _shared(taken: int, parts: Sequence[Part]) -> list[tuple[Part, int]]:
    """A kernel's time among its parts, in whole nanoseconds that add up to it."""
    shares, given, result = 0.0, 0, []
    for number, part in enumerate(parts, 1):
        shares += part.share
        until = taken if number == len(parts) else int(taken * min(shares, 1.0))
        result.append((part, until - given))
        given = until
    return result
