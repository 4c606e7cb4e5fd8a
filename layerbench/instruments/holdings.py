"""Sums over the tensors of each module and those below it, a shared tensor counted once in each.

A model with many modules has as many sums to make, and to go through the tensors of each module
anew would take as long as the tree is deep. Each tensor is counted where it lies, and taken off
again where two branches that have it meet; adding up from below then gives all sums at once
(subtree sums of distinct colours, as in suffix-tree document counting: Hui, CPM 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from layerbench.instruments.stored_weights import holders, is_holder, packed_in
from layerbench.introspection.modules import join

Table = Literal["_parameters", "_buffers"]
Size = Callable[[torch.Tensor], int]


class Holdings:
    """Which module holds which tensors.

    Args:
        model: is not changed.
        table: parameters, with what a library has packed, or buffers.

    Attributes:
        paths: of the modules, by first name, each before those below it.
    """

    def __init__(self, model: nn.Module, table: Table) -> None:
        self._table = table
        self.paths: list[str] = []
        self._above: list[int] = []
        self._depth: list[int] = []
        self._modules: list[nn.Module] = []
        # A module met again: where, and which.
        self._again: list[tuple[int, nn.Module]] = []
        self._packed: dict[int, list[torch.Tensor]] = {}
        self._visit(model)
        self._tensors: dict[int, torch.Tensor] = {}
        self._at: dict[int, list[int]] = {}
        self._find_tensors()

    def _visit(self, model: nn.Module) -> None:
        seen: set[int] = set()
        waiting: list[tuple[str, nn.Module, int]] = [("", model, -1)]
        while waiting:
            path, module, above = waiting.pop()
            if id(module) in seen:
                self._again.append((above, module))
                continue
            seen.add(id(module))
            number = len(self.paths)
            self.paths.append(path)
            self._above.append(above)
            self._depth.append(self._depth[above] + 1 if above >= 0 else 0)
            self._modules.append(module)
            waiting.extend(
                (join(path, name), child, number)
                for name, child in reversed(list(module._modules.items()))
                if child is not None
            )

    def _find_tensors(self) -> None:
        for number, module in enumerate(self._modules):
            for tensor in self._own(module):
                self._note(tensor, number)
        inside: dict[int, list[torch.Tensor]] = {}
        for number, module in self._again:
            if id(module) not in inside:
                inside[id(module)] = self._all(module)
            for tensor in inside[id(module)]:
                self._note(tensor, number)

    def _note(self, tensor: torch.Tensor, number: int) -> None:
        self._tensors[id(tensor)] = tensor
        self._at.setdefault(id(tensor), []).append(number)

    def _own(self, module: nn.Module) -> list[torch.Tensor]:
        held: Any = getattr(module, self._table)
        return [*(tensor for _, tensor in held.items() if tensor is not None), *self._in(module)]

    def _in(self, module: nn.Module) -> list[torch.Tensor]:
        """What is packed in a module: copies, of which each is taken once."""
        if self._table != "_parameters":
            return []
        if id(module) not in self._packed:
            self._packed[id(module)] = packed_in(module)
        return self._packed[id(module)]

    def _all(self, module: nn.Module) -> list[torch.Tensor]:
        tensors: dict[int, torch.Tensor] = {}
        seen: set[int] = set()
        waiting = [module]
        while waiting:
            inner = waiting.pop()
            if id(inner) not in seen:
                seen.add(id(inner))
                tensors.update((id(tensor), tensor) for tensor in self._own(inner))
                waiting.extend(m for _, m in inner._modules.items() if m is not None)
        return list(tensors.values())

    def own(self, size: Size) -> list[int]:
        """For each module the sum over the tensors that it, or what is made for that, holds."""
        return [
            0
            if is_holder(module)
            else sum(
                size(tensor)
                for tensor in {
                    id(t): t for one in (module, *holders(module)) for t in self._own(one)
                }.values()
            )
            for module in self._modules
        ]

    def sums(self, size: Size) -> list[int]:
        """For each module the sum over the tensors in it and below it, each counted once."""
        counted = [0] * len(self.paths)
        for key, numbers in self._at.items():
            value = size(self._tensors[key])
            places = sorted(set(numbers))
            for number in places:
                counted[number] += value
            for one, other in pairwise(places):
                counted[self._meeting(one, other)] -= value
        return self._from_below(counted)

    def shared(self, size: Size) -> list[int]:
        """For each module the sum over those tensors in it that also lie outside it."""
        whole = [0] * len(self.paths)
        for key, numbers in self._at.items():
            # In an order in which each module comes before those below it, all between lie there.
            whole[self._meeting(min(numbers), max(numbers))] += size(self._tensors[key])
        inside = self._from_below(whole)
        return [total - own for total, own in zip(self.sums(size), inside, strict=True)]

    def _meeting(self, one: int, other: int) -> int:
        """The innermost module that both lie in, or are."""
        while one != other:
            if self._depth[one] < self._depth[other]:
                one, other = other, one
            one = self._above[one]
        return one

    def _from_below(self, values: Sequence[int]) -> list[int]:
        sums = list(values)
        for number in range(len(sums) - 1, 0, -1):
            sums[self._above[number]] += sums[number]
        return sums
