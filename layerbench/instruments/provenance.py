"""From a kernel that Inductor made to the layers in it, and the part of its time that each gets.

A kernel is made from buffers, a buffer from operators, and an operator knows its module. A fused
kernel's time is shared in two steps (docs/compiled.md has the rule and what it does not know):

1. among the kernel's buffers by the bytes that each reads from, or writes to, memory outside the
   kernel, and by the operations that it computes;
2. within a buffer in the same way among its operators.

`FLOPS_PER_BYTE` operations count as much as one byte. Where neither is known, parts are equal.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import flop_registry

from layerbench.instruments.function_timer import function_name

FLOPS_PER_BYTE = 10.0
"""Operations in the time in which a device moves one byte: about what CPUs and GPUs reach."""
_LONG = 20.0
"""Operations that one element of a function such as ``exp`` takes."""
_LONG_FUNCTIONS = frozenset(
    (
        *("exp", "expm1", "exp2", "log", "log2", "log10", "log1p", "pow", "erf", "erfc", "erfinv"),
        *("sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "sigmoid", "gelu", "silu", "div"),
        *("reciprocal", "atan", "atan2", "asin", "acos", "sinh", "cosh", "lgamma", "digamma"),
    )
)
# Operators that give another view of a tensor, or pick from a tuple: they compute nothing.
_VIEWS = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze"),
        *("squeeze", "slice", "select", "as_strided", "alias", "detach", "split", "unbind"),
        *("split_with_sizes", "diagonal", "unfold", "getitem", "view_as", "unflatten"),
    )
)
_IN_PLACE = frozenset(("iadd", "isub", "imul", "itruediv", "ifloordiv", "imatmul", "ipow", "imod"))


@dataclass(frozen=True)
class Spot:
    """Where an operator stands in the model.

    Attributes:
        modules: paths of the modules that were running, the outermost first and the innermost
            last; the model itself, whose path is "", begins it. Empty where nobody knows.
        function: the function that the innermost module called; "" for none.
    """

    modules: tuple[str, ...]
    function: str

    @property
    def module(self) -> str:
        """The innermost module; the model itself where nobody knows."""
        return self.modules[-1] if self.modules else ""


@dataclass(frozen=True)
class Part:
    """A layer's part of a kernel's time: all parts of a kernel add up to 1.

    Attributes:
        order: of the first of its operators in the graph.
        sources: the calls in the model's code that it comes from.
    """

    spot: Spot
    share: float
    order: int = 0
    sources: frozenset[str] = frozenset()


class Places:
    """Finds the module of an operator of a graph that Dynamo traced.

    Args:
        model: which is compiled.
        paths: a module's path by its identity.
        local: the traced frame's variables: what an operator's module stack begins with.
    """

    def __init__(
        self, model: nn.Module, paths: Mapping[int, str], local: Mapping[str, Any]
    ) -> None:
        self._paths = paths
        self._local = {"self": model, **local}
        self._known: dict[str, str | None] = {}
        self._order: dict[fx.Node, int] = {}

    def order(self, node: fx.Node) -> int:
        """When an operator comes in its graph."""
        if node not in self._order:
            self._order.update((one, at) for at, one in enumerate(node.graph.nodes))
        return self._order.get(node, len(self._order))

    def spot(self, node: fx.Node) -> Spot:
        """Where an operator stands.

        What writes a result back, behind all that was traced, stands where the result was made.
        """
        while _writes_back(node):
            node = _source(node.args[1])  # type: ignore[arg-type]
        stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
        found = [path for path in map(self._path, stack) if path is not None]
        inside = tuple(dict.fromkeys(path for path in found if path))
        function = _function(node)
        if not inside and not found and "source_fn_stack" not in node.meta:
            return Spot((), function)
        return Spot(("", *inside), function)

    def _path(self, source: str) -> str | None:
        if source not in self._known:
            module = self._module(source)
            self._known[source] = None if module is None else self._paths.get(id(module))
        return self._known[source]

    def _module(self, source: str) -> nn.Module | None:
        """The module that a source such as ``L['self'].layer1.0.conv1`` names."""
        begins = re.match(r"L\[['\"](\w+)['\"]\]", source)
        one = self._local.get(begins[1]) if begins else self._local["self"]
        for word in re.findall(r"\w+", source[begins.end() :] if begins else source):
            if not isinstance(one, nn.Module):
                return None
            if word in one._modules:
                one = one._modules[word]
            elif word not in ("_modules", "_orig_mod"):
                return None
        return one if isinstance(one, nn.Module) else None


def _writes_back(node: fx.Node) -> bool:
    """Whether it is a copy of AOTAutograd's, onto a tensor that the model changes in place."""
    if node.op != "call_function" or node.meta.get("nn_module_stack"):
        return False
    if "source_fn_stack" in node.meta or _operator(node.target) not in ("copy_", "copy"):
        return False
    return len(node.args) > 1 and isinstance(node.args[1], fx.Node)


def _function(node: fx.Node) -> str:
    """The function that its author called; an operator's name where that is not known."""
    called = (node.meta.get("source_fn_stack") or [(None, None)])[-1][1]
    if isinstance(called, str):
        return called
    if callable(called) and not isinstance(called, type):
        name = function_name(called)
        return f"{name[1:]}_" if name in _IN_PLACE else name
    return _operator(node.meta.get("original_aten") or node.target)


def _operator(target: object) -> str:
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", packet)).rpartition(".")[2]


# --- the parts of a kernel -----------------------------------------------------------------


def parts_of(kernel: Any, places: Places) -> tuple[Part, ...]:  # noqa: ANN401
    """The layers in a kernel, each with its share.

    Args:
        kernel: what Inductor's scheduler made a kernel of: nodes of its own, or one operator of a
            library. Asked while Inductor writes the code.
        places: tells where an operator stands.
    """
    if not isinstance(kernel, (list, tuple)):
        return _joined([(one, 1.0) for one in _of_library(kernel)], places)
    buffers = [one for one in kernel if getattr(getattr(one, "node", None), "origins", None)]
    inside = {name for one in buffers for name in _names(one, "writes")}
    weights = _or_equal([_buffer_weight(one, inside) for one in buffers])
    shares: list[tuple[fx.Node, float]] = []
    for buffer, weight in zip(buffers, weights, strict=True):
        operators = _operators(buffer)
        template = bool(buffer.is_template())
        parts = _or_equal([_operator_weight(one, set(operators), template) for one in operators])
        shares += [(one, weight * part) for one, part in zip(operators, parts, strict=True)]
    return _joined(shares, places)


def _operators(buffer: Any) -> list[fx.Node]:  # noqa: ANN401 - a scheduler's node
    """The operators that a buffer computes.

    Inductor counts those of the buffers that it reads, too, where it first meant to compute them in
    both.
    """
    from torch._inductor.virtualized import V

    read = (V.graph.name_to_buffer.get(name) for name in _names(buffer, "reads"))
    elsewhere = {origin for one in read if one is not None for origin in one.origins}
    every = _calls(buffer.node.origins)
    return [one for one in every if one not in elsewhere] or every


def _of_library(kernel: Any) -> Sequence[fx.Node]:  # noqa: ANN401 - Inductor's `ExternKernel`
    node = kernel.origin_node
    if node is not None:
        return [node]
    calls = _calls(kernel.origins)
    return [one for one in calls if _operator(one.target) not in _VIEWS] or calls


def _calls(origins: Iterable[fx.Node]) -> list[fx.Node]:
    """Operators in the order of the graph, so that it is the same in each process."""
    calls = [one for one in origins if one.op == "call_function"]
    return sorted(calls, key=lambda node: node.name)


def _joined(shares: Sequence[tuple[fx.Node, float]], places: Places) -> tuple[Part, ...]:
    """One part for each spot; the largest first."""
    together: defaultdict[Spot, list[tuple[fx.Node, float]]] = defaultdict(list)
    for node, share in shares:
        if share > 0:
            together[places.spot(node)].append((node, share))
    whole = sum(share for _, share in shares)
    parts = [
        Part(
            spot,
            sum(share for _, share in of_it) / whole,
            min(places.order(node) for node, _ in of_it),
            frozenset(_source_call(node) for node, _ in of_it),
        )
        for spot, of_it in together.items()
    ]
    return tuple(sorted(parts, key=lambda part: (-part.share, part.order)))


def _source_call(node: fx.Node) -> str:
    return str((node.meta.get("source_fn_stack") or [(node.name, None)])[-1][0])


def _or_equal(weights: Sequence[float]) -> list[float]:
    """The weights as parts of 1; equal ones where there is nothing to go by."""
    whole = sum(weights)
    if whole <= 0:
        return [1 / len(weights)] * len(weights) if weights else []
    return [weight / whole for weight in weights]


def _names(buffer: Any, kind: str) -> list[str]:  # noqa: ANN401 - a scheduler's node
    return [one.name for one in getattr(buffer.read_writes, kind)]


def _buffer_weight(buffer: Any, inside: set[str]) -> float:  # noqa: ANN401 - a scheduler's node
    """Bytes that a buffer moves, with its operations in their stead."""
    from torch._inductor.virtualized import V

    moved = sum(one.numbytes_hint() for one in buffer.read_writes.reads if one.name not in inside)
    kept = [one for one in buffer.read_writes.writes if one.name not in V.graph.removed_buffers]
    moved += sum(one.numbytes_hint() for one in kept)
    flops = sum(map(_flops_of_library, _calls(buffer.node.origins))) if buffer.is_template() else 0
    elements = max(
        (one.numel_hint() for one in (*buffer.read_writes.reads, *buffer.read_writes.writes)),
        default=0,
    )
    return float(moved + (flops + elements) / FLOPS_PER_BYTE)


def _operator_weight(node: fx.Node, together: set[fx.Node], template: bool) -> float:
    """Bytes that an operator moves, with its operations in their stead; 0 for a view."""
    name = _operator(node.target)
    if name in _VIEWS:
        return 0.0
    sources = {_source(one) for one in node.all_input_nodes}
    moved = sum(_bytes(one) for one in sources if one not in together)
    if any(user not in together for user in node.users):
        moved += _bytes(node)
    if template and (flops := _flops_of_library(node)):
        return moved + flops / FLOPS_PER_BYTE
    elements = max(_elements(node), *map(_elements, sources), 0) if sources else _elements(node)
    return moved + elements * (_LONG if name in _LONG_FUNCTIONS else 1.0) / FLOPS_PER_BYTE


def _source(node: fx.Node) -> fx.Node:
    """What a view is a view of."""
    while node.op == "call_function" and _operator(node.target) in _VIEWS and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _tensors(node: fx.Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return [one for one in values if isinstance(one, torch.Tensor)]


def _elements(node: fx.Node) -> float:
    return float(max((prod(map(_size, one.shape)) for one in _tensors(node)), default=0))


def _bytes(node: fx.Node) -> float:
    return float(sum(prod(map(_size, t.shape)) * t.element_size() for t in _tensors(node)))


def _size(size: Any) -> int:  # noqa: ANN401 - an int, or a symbol with a hint
    hint = getattr(getattr(size, "node", None), "hint", size)
    return int(hint) if hint is not None else 1


def _flops_of_library(node: fx.Node) -> float:
    """FLOPs of a matrix product, a convolution or attention; 0 for any other operator."""
    count = flop_registry.get(getattr(node.target, "overloadpacket", None))
    if count is None:
        return 0.0
    values = fx.node.map_arg(node.args, lambda one: one.meta.get("val"))
    named = fx.node.map_arg(node.kwargs, lambda one: one.meta.get("val"))
    return float(count(*values, **named, out_val=node.meta.get("val")))
