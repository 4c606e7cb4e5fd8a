"""Exported programs: read from a file without running its pickles, and given back their modules.

A program is flat: one graph of operators. Each operator knows the modules that it was called in
(``nn_module_stack``), and `torch.export.unflatten` makes a tree of them. Its modules interpret
their graphs node by node, which adds work in Python to every operator; here each runs the Python
code of its graph instead, as ``program.module()`` does.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.export import ExportedProgram, unflatten
from torch.export.unflatten import UnflattenedModule
from torch.fx import Graph, GraphModule
from torch.utils import _pytree as pytree

from layerbench.errors import BadInput, UsageError, first_line
from layerbench.introspection.modules import children, submodules_first
from layerbench.zoo import _files
from layerbench.zoo.family import SAYS

_WHAT = "a program that torch.export.save wrote"
Module = TypeVar("Module", bound=nn.Module)
Classes = dict[tuple[str | None, type[nn.Module]], Any]

_FEWEST = 2  # nodes of a graph: what goes in and what comes out
_AS_EXPORTED = "an exported program, which runs in train mode as it was exported"
_SEQUENTIAL = "torch.nn.modules.container.Sequential"
# Environment variables by which torch.load runs no pickle, or any, whatever it is asked to do.
_FORCED, _FREED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_COMPILED, _PICKLED = "/data/aotinductor/", "/data/constants/opaque_obj_"


def read(place: Path) -> ExportedProgram:
    """The program in a file; no pickle in it runs.

    Raises:
        UsageError: it is none, is damaged, or holds what only running a pickle could read.
    """
    with _files.damaged(place.name, _WHAT):
        _files.check_archive(place)
        _check_parts(place)
        with _loading_data_alone():
            return _files.saved_by_torch(place.name, lambda: torch.export.load(place))


def _check_parts(place: Path) -> None:
    with zipfile.ZipFile(place) as archive:
        names = archive.namelist()
    if any(_COMPILED in name for name in names):
        raise UsageError(
            f"{place.name} holds a compiled library (AOTInductor), which runs outside PyTorch: "
            "save the program, torch.export.save(program, FILE)"
        )
    if any(_PICKLED in name for name in names):
        raise UsageError(
            f"{place.name} holds a pickled object, and is refused; nothing in it was run"
        )


@contextmanager
def _loading_data_alone() -> Iterator[None]:
    """Inside, ``torch.load`` runs no pickle: `torch.export.load` would ask it to.

    What `torch.export.load` says on the way is not shown: in the end it raises.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCED, _FREED)}
    quiet = logging.root.manager.disable
    os.environ[_FORCED] = "1"
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(quiet)
        del os.environ[_FORCED]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def as_modules(program: ExportedProgram) -> nn.Module:
    """The program as the tree of modules that it was exported from.

    Parameters and buffers have the names that they had. A module whose calls became different
    operators has one row a call: ``relu`` and ``relu@1``. Where the modules cannot be told, the
    program is one module.
    """
    try:
        tree = unflatten(program)
    except Exception as error:
        whole = program.module()
        said = f"an exported program that is shown as one module: {first_line(error)}"
        vars(whole)[SAYS] = said, False
        return whole
    classes: Classes = {}
    inner = [module for module in submodules_first(tree) if module is not tree]
    for module in inner:
        for one in (module, *getattr(module, "_call_modules", ())):
            _run_as_python(one, classes)
        if type(module) is nn.Module and all(isinstance(m, _Uncalled) for m in children(module)):
            # A class of its own: nobody knows which of them are alike.
            module.__class__ = _named(None, _Uncalled, {})
    return _Program.of(tree, classes)


def _run_as_python(module: Any, classes: Classes) -> None:  # noqa: ANN401
    """Give a module of the tree its class's name, and Python code in place of an interpreter."""
    graph, kind = getattr(module, "graph", None), getattr(module, "_ty", None)
    if not isinstance(graph, Graph) or isinstance(module, GraphModule):
        return
    if kind == _SEQUENTIAL and _is_chain(graph, list(module._modules)):
        module.__class__ = nn.Sequential
    else:
        _set_code(module, graph)
        module.__class__ = _named(kind, _Coded, classes)
    for name in ("graph", "graph_module", "arg_names", "_ty", "_run_with_interpreter"):
        module.__dict__.pop(name, None)


def _is_chain(graph: Graph, children: list[str]) -> bool:
    """Whether it calls each child once, in order, on what the one before returned."""
    nodes = list(graph.nodes)
    if len(nodes) < _FEWEST:
        return False
    first, *calls, last = nodes
    before = [first, *calls]
    return (
        first.op == "placeholder"
        and [call.target for call in calls] == children
        and all(call.op == "call_module" for call in calls)
        and all(call.args == (one,) for call, one in zip(calls, before, strict=False))
        and not any(call.kwargs for call in calls)
        and last.args == (before[-1],)
    )


def _set_code(module: nn.Module, graph: Graph) -> None:
    module.__dict__["_code"] = type(GraphModule(module, graph)).forward


def _named(kind: str | None, base: type[Module], classes: Classes) -> type[Module]:
    """One class for all modules that were of one class: rows and blocks go by it."""
    name = (kind or "Module").rpartition(".")[2]
    key = (kind, base)
    if key not in classes:
        classes[key] = type(name, (base,), {"__module__": base.__module__})
    named: type[Module] = classes[key]
    return named


class _Coded(nn.Module):
    """A module that runs the code of its part of a program."""

    _code: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes
        """Run its operators and the modules in it."""
        return self._code(self, *args, **kwargs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        """As the class above; where it moves to another device, so do the tensors of its code.

        An operator that makes a tensor, ``arange`` for one, has its device in the graph.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        names = self._code.__globals__  # its own: the code is generated for this module alone
        if "device" in names:
            place = fn(torch.empty(0)).device
            names["device"] = lambda *_, **__: place
        return self


class _Uncalled(nn.Module):
    """A module that holds weights, and whose calls are not in the program."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the class above
        """Nothing calls it."""
        raise NotImplementedError("the program does not call this module")


class _Program(_Coded):
    """The whole of a program, which takes and returns what the model did."""

    _takes: pytree.TreeSpec
    _returns: pytree.TreeSpec
    _names: tuple[str, ...]

    @staticmethod
    def of(tree: UnflattenedModule, classes: Classes) -> nn.Module:
        """The tree with the code of its own graph."""
        program = _named(tree._ty, _Program, classes)()
        usual = vars(nn.Module()).keys() - _TABLES
        for name, value in vars(tree).items():
            if name in _TABLES or (name not in usual and isinstance(value, _CONSTANTS)):
                program.__dict__[name] = value
        program.__dict__[SAYS] = _AS_EXPORTED, True
        _set_code(program, tree.graph)
        signature = tree.module_call_graph[0].signature
        program.__dict__.update(_takes=signature.in_spec, _returns=signature.out_spec)
        program.__dict__["_names"] = tuple(_parts(signature.in_spec)[1].context)
        _trees[program] = tree
        return program

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes
        """Run its operators and the modules in it."""
        flat, _ = self._flat(args, kwargs)
        return pytree.tree_unflatten(self._code(self, *flat), self._returns)

    def check_inputs(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse what the program was not exported for.

        Args:
            name: of the inputs.
            args, kwargs: the inputs.

        Raises:
            BadInput: another number of inputs, other names, or a size that is fixed.
        """
        number = _parts(self._takes)[0].num_children
        if set(kwargs) != set(self._names) or len(args) != number:
            wanted = [f"{number} without a name", *self._names]
            raise BadInput(
                f"{name} does not fit the program: it takes {', '.join(wanted)}, and got "
                f"{', '.join([f'{len(args)} without a name', *kwargs])}"
            )
        if self._flat(args, kwargs)[1] != self._takes:
            raise BadInput(f"{name} does not fit the program: its inputs are nested otherwise")
        tree: Any = _trees.get(self)  # a copy has none
        try:
            if tree is not None:
                tree.process_forward_inputs(*args, **kwargs)
        except Exception as error:
            raise BadInput(
                f"{name} does not fit the program, which was exported for certain sizes: "
                f"{first_line(error)}"
            ) from None

    def _flat(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], pytree.TreeSpec]:
        return pytree.tree_flatten((args, {name: kwargs[name] for name in self._names}))


def _parts(spec: pytree.TreeSpec) -> list[pytree.TreeSpec]:
    """Of the arguments of a call: those without names, and those with."""
    children: Any = getattr(spec, "children", None)
    return list(children() if children is not None else spec.children_specs)


_TABLES = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_CONSTANTS = (torch.Tensor, torch.ScriptObject)
# Which know what sizes a program takes; they hold its graphs, which no forward needs.
_trees: WeakKeyDictionary[nn.Module, UnflattenedModule] = WeakKeyDictionary()
