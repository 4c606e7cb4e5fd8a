"""Which call made the tensor that another takes: the data flow in each module's first call.

Tensors are followed by identity. Each call that runs keeps, for the tensors seen so far, which of
its own calls gave them: a function that ran anywhere inside a child gave its result for the child,
too. So each module's graph has its own children and functions as nodes, and nothing is searched
(docs/decisions/0049).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from layerbench.instruments.function_timer import function_name
from layerbench.instruments.modes import ModeSwitch
from layerbench.instruments.rows import NAMED
from layerbench.introspection.modules import (
    children,
    named_buffers,
    named_modules,
    named_parameters,
)
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import (
    beneath_transforms,
    elements_of,
    shape_of,
    storage_of,
)
from layerbench.records.graph import MOST_EDGES, MOST_NODES, Graph, GraphEdge, GraphNode, NodeKind


class _Source(NamedTuple):
    """The node of a call that gave a tensor, and when. An identity alone may be another's later."""

    node: int
    moment: int
    tensor: ref[torch.Tensor]


class _Write(NamedTuple):
    """The node that last wrote into a storage, when, and how many elements."""

    node: int
    moment: int
    elements: int
    storage: ref[torch.UntypedStorage]


@dataclass(slots=True)
class _Frame:
    """A call of a module that runs.

    Attributes:
        path: the module's.
        recorded: whether its graph is kept: the first call of a module that holds others.
        here: the node whose call runs within it now.
        given: the node of each tensor seen, by the tensor's identity.
        written: by the identity of a storage.
    """

    path: str
    recorded: bool
    here: int = -1
    nodes: list[GraphNode] = field(default_factory=list)
    edges: dict[tuple[int, int, int], GraphEdge] = field(default_factory=dict)
    given: dict[int, _Source] = field(default_factory=dict)
    written: dict[int, _Write] = field(default_factory=dict)

    def add(self, kind: NodeKind, name: str = "") -> int:
        self.nodes.append(GraphNode(kind, name))
        return len(self.nodes) - 1

    def relative(self, path: str) -> str | None:
        """The path from this module of what it holds; ``None`` of anything else."""
        inside = f"{self.path}." if self.path else ""
        return path.removeprefix(inside) if path.startswith(inside) and path != self.path else None

    def forget(self) -> None:
        """No longer note what happens in it."""
        self.recorded, self.here = False, -1
        for noted in (self.nodes, self.edges, self.given, self.written):
            noted.clear()

    def source(self, tensor: torch.Tensor) -> _Source | None:
        found = self.given.get(id(tensor))
        return found if found is not None and found.tensor() is tensor else None

    def sources(self, tensor: torch.Tensor) -> list[int]:
        """The nodes that made what is in a tensor: who gave it, and who wrote into it since."""
        given = self.source(tensor)
        if not self.written:
            return [] if given is None else [given.node]
        storage = storage_of(tensor)
        write = None if storage is None else self.written.get(storage._cdata)
        if write is None or write.storage() is not storage:
            return [] if given is None else [given.node]
        if given is not None and write.moment <= given.moment:
            return [given.node]
        if given is None or write.elements >= _elements(tensor):
            return [write.node]
        return [given.node, write.node]


class DataFlow:
    """Notes the data flow of one forward.

    `entered` and `left` are called around every module's forward by who sees the calls
    (`layerbench.instruments.modules.CallObserver`), functions come in by themselves while `on`.

    Args:
        model: what runs.

    Attributes:
        notes: which graphs were left out, and why.

    Known limitations: calls in threads of the forward's own are not seen. A module that returns
    the very tensor it was given (an identity, a dropout in evaluation) counts as its source from
    then on. What is written through one view is taken for written into all others.
    """

    def __init__(self, model: nn.Module) -> None:
        self.notes: tuple[str, ...] = ()
        self._composite = {
            path for path, module in named_modules(model) if any(True for _ in children(module))
        }
        self._held = _held_in(model)
        self._frames: list[_Frame] = []
        self._graphs: dict[str, _Frame] = {}
        self._seen: set[str] = set()
        self._too_large: list[str] = []
        self._moment = 0
        self._thread = 0
        self._functions = ModeSwitch(_FunctionMode(self))

    @contextmanager
    def on(self) -> Iterator[None]:
        """Functions seen for the duration of a ``with`` block."""
        self._thread = get_ident()
        try:
            with self._functions.on():
                yield
        finally:
            self._frames.clear()
        if self._functions.unseen:
            self.notes = (f"graphs lack functions: {self._functions.unseen}",)

    # --- modules ---------------------------------------------------------------------------

    def entered(self, path: str, given: object) -> None:
        """A module's forward begins with these arguments."""
        if get_ident() != self._thread:
            return
        with _unseen():
            tensors = _tensors(given)
            if self._frames:
                self._began(self._frames[-1], path, tensors)
            first = path in self._composite and path not in self._seen
            self._seen.add(path)
            frame = _Frame(path, first)
            self._frames.append(frame)
            if first:
                for tensor in tensors:
                    if frame.source(tensor) is None:
                        self._note(frame, tensor, frame.add("input"))

    def left(self, output: object) -> None:
        """The innermost module's forward has returned this, or raised."""
        if get_ident() != self._thread or not self._frames:
            return
        with _unseen():
            frame = self._frames.pop()
            tensors = _tensors(output)
            if frame.recorded:
                self._finish(frame, tensors)
            if not self._frames:
                return
            around = self._frames[-1]
            for tensor in tensors:
                self._note(around, tensor, around.here)
            around.here = -1

    def _began(self, frame: _Frame, path: str, tensors: Sequence[torch.Tensor]) -> None:
        self._taken(tensors)
        if not frame.recorded:
            return
        name = frame.relative(path)
        self._call(frame, "other module" if name is None else "module", name or path, tensors)

    def _finish(self, frame: _Frame, tensors: Sequence[torch.Tensor]) -> None:
        for tensor in dict.fromkeys(map(_Same, tensors)):
            if frame.recorded:
                self._call(frame, "output", "", [tensor.tensor])
        if frame.recorded:
            self._graphs[frame.path] = frame
        frame.given.clear()
        frame.written.clear()

    # --- functions -------------------------------------------------------------------------

    def called(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Run a function, and note it if it gives or fills a tensor."""
        if not self._frames or get_ident() != self._thread:
            return function(*args, **kwargs)
        with _unseen():
            took = _tensors((args, kwargs))
            before = [_version(tensor) for tensor in took]
        output = function(*args, **kwargs)
        with _unseen():
            name, gave = function_name(function), _tensors(output)
            wrote = [
                tensor
                for tensor, version in zip(took, before, strict=True)
                if _version(tensor) != version
            ]
            if gave or wrote:
                self._function(name, took, gave, wrote)
        return output

    def _function(
        self,
        name: str,
        took: Sequence[torch.Tensor],
        gave: Sequence[torch.Tensor],
        wrote: Sequence[torch.Tensor],
    ) -> None:
        frame = self._frames[-1]
        self._taken(took)
        if frame.recorded:
            self._call(frame, "function", name, took)
        self._moment += 1
        for around in self._frames:
            if not around.recorded or around.here < 0:
                continue
            for tensor in wrote:
                self._written(around, tensor)
            for tensor in (*wrote, *gave):
                self._note(around, tensor, around.here)
        frame.here = -1

    def _written(self, frame: _Frame, tensor: torch.Tensor) -> None:
        storage = storage_of(tensor)
        if storage is not None:
            write = _Write(frame.here, self._moment, _elements(tensor), ref(storage))
            frame.written[storage._cdata] = write

    # --- edges -----------------------------------------------------------------------------

    def _call(
        self, frame: _Frame, kind: NodeKind, name: str, tensors: Sequence[torch.Tensor]
    ) -> None:
        """A new node, and the edges to it."""
        sources = [(self._found(frame, tensor), tensor) for tensor in tensors]
        frame.here = frame.add(kind, name)
        self._connect(frame, sources)
        if len(frame.nodes) > MOST_NODES:
            # A loop of a million steps shall not fill memory.
            self._too_large.append(frame.path)
            frame.forget()

    def _found(self, frame: _Frame, tensor: torch.Tensor) -> list[int]:
        """Where a tensor came from; a node of its own where nobody in this call gave it."""
        sources = frame.sources(tensor)
        if sources:
            return sources
        held = self._held.get(id(tensor))
        if held is None:
            node = frame.add("elsewhere")
        else:
            node = frame.add("held", frame.relative(held) or held)
        self._note(frame, tensor, node)
        return [node]

    def _taken(self, tensors: Sequence[torch.Tensor]) -> None:
        """The innermost call takes what its callers' own calls gave, if not as its arguments."""
        for around in self._frames[:-1]:
            if around.recorded and around.here >= 0:
                for tensor in tensors:
                    known = [node for node in around.sources(tensor) if node < around.here]
                    self._connect(around, [(known, tensor)])

    def _connect(
        self, frame: _Frame, sources: Sequence[tuple[Sequence[int], torch.Tensor]]
    ) -> None:
        for nodes, tensor in sources:
            for node in nodes:
                edge = GraphEdge(node, frame.here, shape_of(tensor))
                frame.edges.setdefault((node, frame.here, id(tensor)), edge)

    def _note(self, frame: _Frame, tensor: torch.Tensor, node: int) -> None:
        if frame.recorded and node >= 0:
            frame.given[id(tensor)] = _Source(node, self._moment, ref(tensor))

    # --- what came of it -------------------------------------------------------------------

    def graphs(self, paths: Sequence[str]) -> tuple[Graph, ...]:
        """The graphs of modules with calls or functions in them, equal ones as one.

        Args:
            paths: of the model's modules, in the order of the tree.
        """
        alike: dict[tuple[tuple[GraphNode, ...], tuple[GraphEdge, ...]], list[str]] = {}
        edges = 0
        left_out = list(self._too_large)
        for path in paths:
            frame = self._graphs.get(path)
            if frame is None:
                continue
            looks = (tuple(frame.nodes), tuple(frame.edges.values()))
            if looks not in alike:
                edges += len(frame.edges)
                if edges > MOST_EDGES:
                    left_out.append(path)
                    continue
            alike.setdefault(looks, []).append(path)
        if left_out:
            self.notes = (*self.notes, _said_of(left_out))
        return tuple(
            Graph(paths=tuple(of), nodes=nodes, edges=edges) for (nodes, edges), of in alike.items()
        )


def _said_of(left_out: Sequence[str]) -> str:
    names = [path or "the model" for path in left_out]
    if len(names) == 1:
        return f"the graph of {names[0]} is too large to keep"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"the graphs of {', '.join(names[:NAMED])}{more} are too large to keep"


class _Same:
    """A tensor as a key: by its identity."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __hash__(self) -> int:
        return id(self.tensor)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.tensor is other.tensor


def _tensors(value: object) -> list[torch.Tensor]:
    """Inside `torch.vmap` those of the whole batch, which are there before and after it."""
    try:
        return [beneath_transforms(tensor) for tensor in tensors_in(value)]
    except Exception:  # a container of the user's own that cannot be read twice
        return []


def _version(tensor: torch.Tensor) -> int:
    """How often its memory was written to in place; 0 for a tensor that does not count it."""
    try:
        return tensor._version
    except Exception:
        return 0


def _elements(tensor: torch.Tensor) -> int:
    try:
        return elements_of(tensor)
    except Exception:
        return 0


def _held_in(model: nn.Module) -> dict[int, str]:
    """The paths of parameters and buffers, by identity."""
    held = {id(tensor): path for path, tensor in named_buffers(model)}
    held.update((id(tensor), path) for path, tensor in named_parameters(model))
    return held


def _unseen() -> AbstractContextManager[None]:
    """No mode and no class of the model's own hears of what is asked of a tensor."""
    return torch._C.DisableTorchFunction()


class _FunctionMode(TorchFunctionMode):
    def __init__(self, flow: DataFlow) -> None:
        super().__init__()
        self._flow = flow

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        del types
        return self._flow.called(func, args, kwargs or {})
