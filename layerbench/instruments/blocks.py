"""Which modules a reader of the paper would call blocks, read from the module tree alone.

The rule in plain words, and what it gives for each family, stands in docs/blocks.md.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerbench.instruments.calls import NOWHERE, CallTree
from layerbench.instruments.modules import ObservedCalls
from layerbench.introspection.modules import (
    children,
    join,
    modules,
    named_children,
    submodules_first,
)
from layerbench.records.tree import ancestors, parent

# AlexNet's five convolutions are a network, a detector's tower of four is one part of it.
OPEN_FROM_LAYERS = 5
# A depthwise and a pointwise convolution in a class of their own are a unit where the network is
# a row of them, and a layer where they lie in a larger unit, unless their author says block.
UNIT_LAYERS = 2
LARGE_UNIT_LAYERS = 3

_CHAINS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LAYERS_WITH_WEIGHTS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention, nn.RNNBase)
# The author's own word for it; a version or a dimension may follow: SwinTransformerBlockV2.
# A StageBlock is a stage.
_NAMED_BLOCK = re.compile(r"^(?!.*stage).*(block|bottleneck|residual)(_?v?\d+d?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class BlockView:
    """The block view of a module tree; paths are those of `nn.Module.named_modules`.

    Attributes:
        blocks: the modules that are rows of the view.
        opened: the modules shown through what is in them instead; the root ``""`` always is.
            The functions an opened module runs itself belong to the view too.
        inside: modules that run within the calls of blocks they do not lie in, with these blocks:
            neither they nor their functions are rows of the view.
    """

    blocks: frozenset[str]
    opened: frozenset[str]
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def seen_running(self, ran: Collection[str]) -> BlockView:
        """The view after a forward showed which modules run, and in whose calls."""
        view = self._without_empty_rows(ran)
        return view._without_overlap(ran.calls) if isinstance(ran, ObservedCalls) else view

    def _without_empty_rows(self, ran: Collection[str]) -> BlockView:
        """Blocks that are never called themselves, though modules in them are, opened.

        RAFT's correlation block is run through other methods: it would be an empty row that hides
        them.
        """
        children = _children_with_what_ran(ran)
        blocks, opened = set(self.blocks), set(self.opened)
        pending = sorted(blocks)
        while pending:
            path = pending.pop()
            if path in ran or path not in children:
                continue
            blocks.remove(path)
            opened.add(path)
            blocks.update(children[path])
            pending.extend(children[path])
        return BlockView(frozenset(blocks), frozenset(opened))

    def _without_overlap(self, calls: CallTree) -> BlockView:
        """Without the modules that run within the call of a block.

        That time is the outer block's; a block that also runs elsewhere would count some of it
        twice.
        """
        blocks = set(self.blocks)
        inside: dict[str, tuple[str, ...]] = {}
        while True:
            outer = _outer_blocks(calls, blocks, self.opened - inside.keys())
            if not outer:
                return BlockView(frozenset(blocks), self.opened, inside)
            # What is inside a block that is inside another may come to stand by itself.
            sure = {path for path, around in outer.items() if not around.keys() <= outer.keys()}
            for path in sure or {next(reversed(outer))}:
                inside[path] = tuple(outer[path])
            blocks -= inside.keys()


def _children_with_what_ran(ran: Collection[str]) -> dict[str, list[str]]:
    """For each module its children that ran, or in which something did."""
    children: dict[str, list[str]] = {}
    seen: set[str] = set()
    for path in ran:
        for inner in (path, *ancestors(path)):
            if not inner or inner in seen:
                break
            seen.add(inner)
            children.setdefault(parent(inner), []).append(inner)
    return children


def _outer_blocks(
    calls: CallTree, blocks: Collection[str], opened: Collection[str]
) -> dict[str, dict[str, None]]:
    """For each block, or opened module, that runs in a block's call: the outermost such blocks."""
    outermost: list[str | None] = []
    outer: dict[str, dict[str, None]] = {}
    for path, above in zip(calls.paths, calls.parents, strict=True):
        around = outermost[above] if above != NOWHERE else None
        if around is not None and around != path and path and (path in blocks or path in opened):
            outer.setdefault(path, {})[around] = None
        outermost.append(path if around is None and path in blocks else around)
    return outer


def find_blocks(model: nn.Module) -> BlockView:
    """Divide the tree into blocks and the modules opened to show them.

    Nothing runs. Every module without children lies in exactly one block, or is one; a
    module that goes by several names counts where `nn.Module.named_modules` finds it first.
    A model that is a single layer has no block: its root is all there is.
    """
    tree = _Tree(model)
    blocks: list[str] = []
    opened: list[str] = []
    seen: set[int] = set()

    def visit(module: nn.Module, path: str, *, is_open: bool, alone: bool) -> None:
        if not is_open:
            blocks.append(path)
            seen.update(map(id, modules(module)))
            return
        seen.add(id(module))
        opened.append(path)
        inside = list(named_children(module))
        # A wrapper around the whole network must not make the view a single row.
        alone = alone and len(inside) == 1
        for name, child in inside:
            if id(child) not in seen:
                open_child = tree.opens(child) or (alone and tree.can_open(child))
                child_path = join(path, name)
                visit(child, child_path, is_open=open_child, alone=alone)

    visit(model, "", is_open=True, alone=True)
    return BlockView(frozenset(blocks), frozenset(opened))


class _Tree:
    """What the rule asks about the modules of one model, worked out once."""

    def __init__(self, model: nn.Module) -> None:
        self._root = model
        self._layers = self._count_layers(model)
        self._unit_types = self._find_unit_types()
        self._with_unit: dict[int, bool] = {}

    def opens(self, module: nn.Module) -> bool:
        """Whether a module reached from an opened one is opened itself."""
        if not self.can_open(module):
            return False
        return (
            _never_runs(module)
            or _is_chain_of_one(module)
            or self._holds_unit(module)
            or (not self._is_unit(module) and self._holds_long_chain(module))
        )

    def can_open(self, module: nn.Module) -> bool:
        """Whether there is anything to show inside, and the author does not call it a block.

        A layer with weights is one, also where it has submodules: those that make its weight
        (`torch.nn.utils.parametrize`), or add to it. The inside of a scripted module is not seen.
        """
        is_whole = isinstance(module, (*_LAYERS_WITH_WEIGHTS, torch.jit.ScriptModule))
        return _has_children(module) and not is_whole and not _is_named_block(module)

    def _holds_unit(self, module: nn.Module) -> bool:
        """Whether a unit lies in ``module``, and not inside a named block there."""
        if id(module) not in self._with_unit:
            self._with_unit[id(module)] = any(
                self._is_unit(child) or (self.can_open(child) and self._holds_unit(child))
                for child in children(module)
            )
        return self._with_unit[id(module)]

    def _holds_long_chain(self, module: nn.Module) -> bool:
        """Whether ``module`` is, or holds outside units, a plain Sequential of many layers."""
        if type(module) is nn.Sequential and self._layers[id(module)] >= OPEN_FROM_LAYERS:
            return True
        return any(
            self.can_open(child) and not self._is_unit(child) and self._holds_long_chain(child)
            for child in children(module)
        )

    def _is_unit(self, module: nn.Module) -> bool:
        return type(module) in self._unit_types

    def _count_layers(self, model: nn.Module) -> dict[int, int]:
        """Layers with weights in each module, itself included; attention counts as one layer."""
        layers: dict[int, int] = {}
        for module in submodules_first(model):
            inner = sum(layers.get(id(child), 0) for child in children(module))
            layers[id(module)] = 1 if has_weights(module) else inner
        return layers

    def _find_unit_types(self) -> frozenset[type[nn.Module]]:
        """Classes whose instances are the units that the network repeats."""
        layers: Counter[type[nn.Module]] = Counter()
        in_line: Counter[type[nn.Module]] = Counter()
        neighbours: set[type[nn.Module]] = set()
        pending = [self._root]
        while pending:
            parent = pending.pop()
            in_chain = parent is self._root or isinstance(parent, _CHAINS)
            composites = [child for child in children(parent) if _has_children(child)]
            alike = Counter(type(child) for child in composites if _runs_itself(child))
            for kind, count in alike.items():
                if in_chain or count > 1:
                    in_line[kind] += count
                if in_chain and count > 1:
                    neighbours.add(kind)
            for child in composites:
                layers[type(child)] = max(layers[type(child)], self._layers[id(child)])
            pending.extend(child for child in composites if self.can_open(child))
        named = {kind for kind, count in in_line.items() if count > 1 and _names_block(kind)}
        large = {kind for kind in neighbours if layers[kind] >= LARGE_UNIT_LAYERS}
        small = {kind for kind in named | neighbours if layers[kind] >= UNIT_LAYERS}
        return frozenset(large | (small & named) | (small - self._types_inside(large)))

    def _types_inside(self, kinds: set[type[nn.Module]]) -> set[type[nn.Module]]:
        """The classes of all modules that lie in an instance of one of ``kinds``."""
        outer = (module for module in modules(self._root) if type(module) in kinds)
        return {type(inner) for module in outer for inner in modules(module) if inner is not module}


def _has_children(module: nn.Module) -> bool:
    return next(children(module), None) is not None


def has_weights(module: nn.Module) -> bool:
    """Convolution, linear, attention, recurrent; or the user's own layer with a weight matrix."""
    if isinstance(module, _LAYERS_WITH_WEIGHTS):
        return True
    # A scripted module's table of tensors has no ``get``.
    weight = dict(module._parameters.items()).get("weight")
    return weight is not None and _dimensions(weight) >= 2 and not _has_children(module)


def _dimensions(tensor: torch.Tensor) -> int:
    """0 for the parameter of a lazy module that has not run yet: it has no shape."""
    return 0 if is_lazy(tensor) else tensor.dim()


def _runs_itself(module: nn.Module) -> bool:
    """Whether it has a forward of its own, over children that are more than one layer's parts."""
    own = _forward_of(module) not in (nn.Sequential.forward, nn.Module.forward)
    return own and not has_weights(module)


def _is_chain_of_one(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and len(module) == 1


def _never_runs(module: nn.Module) -> bool:
    """Whether it is a container without a forward: a row for it would always be empty."""
    return _forward_of(module) is nn.Module.forward


def _forward_of(module: nn.Module) -> object:
    """Its class's forward as it stands there; a traced module's answers to no class."""
    return inspect.getattr_static(type(module), "forward")


def _names_block(kind: type[nn.Module]) -> bool:
    return _NAMED_BLOCK.match(kind.__name__) is not None


def _is_named_block(module: nn.Module) -> bool:
    return _names_block(type(module)) and not _never_runs(module)
