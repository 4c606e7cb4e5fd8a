"""``%%layers``: the layers of the models that a cell of a notebook runs.

Loaded by ``%load_ext layerbench``.
"""

from __future__ import annotations

import ast
import sys
from contextlib import ExitStack
from typing import Any

from torch import nn

from layerbench.introspection.modules import named_modules
from layerbench.profilers.user_loop import LiveLayers, time_layers

NAME = "layers"


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

    ``%%layers`` times each model whose name the cell has; ``%%layers net`` times the one that the
    expression gives. The models are those from before the cell.

    Returns:
        what was timed, by the model's name where there are several. `_` has it in the next cell.
    """
    models = _said(shell, line) if line.strip() else _named(shell.user_ns, cell)
    if not models:
        _complain("the cell names no model that was there before it: make it in a cell before")
        return None
    with ExitStack() as timing:
        timed = {name: timing.enter_context(time_layers(model)) for name, model in models.items()}
        done = shell.run_cell(cell, store_history=False)
    if not done.success:  # the shell has shown the error
        return None
    ran = {name: layers for name, layers in timed.items() if layers.forwards}
    if not ran:
        _complain(f"the cell did not run {', '.join(models)}")
        return None
    return next(iter(ran.values())) if len(ran) == 1 else ran


def _said(shell: Any, line: str) -> dict[str, nn.Module]:  # noqa: ANN401 - IPython's shell
    """The model that an expression gives."""
    model = shell.ev(line)
    if isinstance(model, nn.Module):
        return {line.strip(): model}
    _complain(f"{line.strip()} is no torch.nn.Module, but a {type(model).__name__}")
    return {}


def _named(names: dict[str, Any], cell: str) -> dict[str, nn.Module]:
    """The models that a cell names, each once, without those that are in another of them."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # magics in the cell, or a fault that the shell will show
        return {}
    used = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    models: dict[str, nn.Module] = {}
    for name in used:
        value = names.get(name)
        if isinstance(value, nn.Module) and all(value is not model for model in models.values()):
            models[name] = value
    inside = {id(part) for model in models.values() for path, part in named_modules(model) if path}
    return {name: model for name, model in models.items() if id(model) not in inside}


def _complain(text: str) -> None:
    print(f"%%{NAME}: {text}", file=sys.stderr)
