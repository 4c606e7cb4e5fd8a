"""``%%layers``: the layers of the models that a cell of a notebook runs.

Loaded by ``%load_ext layerbench``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn

from layerbench.errors import typed_line
from layerbench.introspection.modules import named_modules
from layerbench.profilers.user_loop import LiveLayers, time_layers
from layerbench.profilers.user_loop_compiled import LATER

NAME = "layers"
CEILINGS = "--ceilings"

# What a cell calls where it has given a value to a name.
_HOOK = "_layerbench_assigned"


def register(shell: Any) -> None:  # noqa: ANN401 - IPython's shell
    """Add the magic to a shell."""

    def layers(line: str, cell: str) -> LiveLayers | dict[str, LiveLayers] | None:
        return run(shell, line, cell)

    layers.__doc__ = run.__doc__
    shell.register_magic_function(layers, "cell", NAME)


def run(
    shell: Any,  # noqa: ANN401 - IPython's shell
    line: str,
    cell: str,
) -> LiveLayers | dict[str, LiveLayers] | None:
    """Run the cell and time the layers of the models in it.

    ``%%layers`` times each model whose name the cell has, and each that the cell gives a name to,
    from there on. ``%%layers net`` times the one that the name or expression gives.
    ``%%layers --ceilings`` also measures what bounds a layer, after the cell.

    Returns:
        what was timed, by the model's name where there are several. `_` has it in the next cell.
    """
    words = line.split()
    said = " ".join(word for word in words if word != CEILINGS)
    timed = _Timed(shell.user_ns, said if said.isidentifier() else "")
    if said and not (said.isidentifier() and said not in shell.user_ns):
        try:
            model = shell.ev(said)
        except Exception as error:
            _complain(f"{said}: {typed_line(error)}")
            return None
        if not isinstance(model, nn.Module):
            _complain(f"{said} is no torch.nn.Module, but a {type(model).__name__}")
            return None
        timed.begin(said, model)
    elif not said:
        timed.look(_names_in(shell.transform_cell(cell)))
    done = timed.run(shell, cell, watched=not said or said.isidentifier())
    if not done.success:  # the shell has shown the error
        return None
    ran = {name: layers for name, layers in timed.layers.items() if layers.forwards}
    if not ran:
        _complain(_nothing(timed.layers))
        return None
    if CEILINGS in words:
        for layers in ran.values():
            layers.measure_ceilings()
    return next(iter(ran.values())) if len(ran) == 1 else ran


def _nothing(timed: dict[str, LiveLayers]) -> str:
    """Why there is nothing to show, and what to do."""
    for name, layers in timed.items():
        if LATER in layers.absent:
            return f"{name}: {layers.absent[LATER]}: compile it in a cell before"
    if timed:
        return f"the cell did not run {', '.join(timed)}"
    return (
        "the cell runs no model that it has a name for: give it one, as in net = Net(), or say "
        "which one, as in %%layers self.net"
    )


class _Timed:
    """The models that are timed while a cell runs.

    Args:
        names: what the cell's names stand for.
        only: the one name whose models are timed; empty takes all.

    Attributes:
        layers: of the models by name, those with a name that another had before with a number.
    """

    def __init__(self, names: dict[str, Any], only: str) -> None:
        self.layers: dict[str, LiveLayers] = {}
        self._names = names
        self._only = only
        self._models: dict[str, nn.Module] = {}
        self._timing: dict[str, ExitStack] = {}

    def run(self, shell: Any, cell: str, watched: bool) -> Any:  # noqa: ANN401 - IPython's
        """Run the cell, and time the models that it makes, too, where they are watched for."""
        watch = _Watch()
        self._names[_HOOK] = lambda *names: self.look(names)
        if watched:
            shell.ast_transformers.append(watch)
        try:
            return shell.run_cell(cell, store_history=False)
        finally:
            if watched and watch in shell.ast_transformers:
                shell.ast_transformers.remove(watch)
            self._names.pop(_HOOK, None)
            for timing in self._timing.values():
                timing.close()

    def look(self, names: Iterable[str]) -> None:
        """Time what these names stand for, each model once; of a model and its parts the model."""
        found: dict[str, nn.Module] = {}
        for name in names:
            value = self._names.get(name)
            if not isinstance(value, nn.Module) or self._only not in ("", name):
                continue
            if all(value is not one for one in (*self._models.values(), *found.values())):
                found[name] = value
        if not found:  # as after most statements
            return
        inside = _parts([*found.values(), *self._models.values()])
        for name, model in found.items():
            if id(model) not in inside:
                self.begin(name, model)

    def begin(self, name: str, model: nn.Module) -> None:
        """Time a model from now on, and no longer those that are parts of it."""
        parts = _parts([model])
        for part in [one for one, held in self._models.items() if id(held) in parts]:
            self._timing[part].close()
            if not self.layers[part].forwards:
                del self.layers[part], self._models[part], self._timing[part]
        name = name if name not in self.layers else f"{name} ({len(self.layers) + 1})"
        self._models[name] = model
        self._timing[name] = ExitStack()
        self.layers[name] = self._timing[name].enter_context(time_layers(model))


def _parts(models: Iterable[nn.Module]) -> set[int]:
    """Identities of the modules that are in others."""
    return {id(part) for model in models for path, part in named_modules(model) if path}


class _Watch(ast.NodeTransformer):
    """Lets a cell say which names it has given a value to, after each such statement.

    What functions and classes do with names of their own is left alone.
    """

    def visit_Module(self, node: ast.Module) -> ast.Module:
        last = node.body[-1:]
        self.generic_visit(node)
        # Nothing runs after the last one, whose value the shell may want to show.
        if last and isinstance(last[0], ast.Assign | ast.AnnAssign) and node.body[-1] != last[0]:
            node.body.pop()
        return node

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        return [node, *_told(node.targets)]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> list[ast.stmt]:
        return [node, *_told([node.target])]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node


def _told(targets: list[ast.expr]) -> list[ast.stmt]:
    """The call that says which names were given a value; none for attributes and items."""
    names = [node.id for target in targets for node in _assigned(target)]
    if not names:
        return []
    hook = ast.Name(_HOOK, ast.Load())
    return [ast.Expr(ast.Call(hook, [ast.Constant(name) for name in names], []))]


def _assigned(target: ast.expr) -> list[ast.Name]:
    return [
        node
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def _names_in(cell: str) -> list[str]:
    """The names that a cell has, in the order of the text."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # a fault that the shell will show
        return []
    return list(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))


def _complain(text: str) -> None:
    print(f"%%{NAME}: {text}", file=sys.stderr)
