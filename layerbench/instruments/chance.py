"""Whether a second forward of the same model on the same batch runs what the first one ran.

It may not: a forward can draw which of its layers run, look at a clock, ask the system for random
bytes, or keep what it made for the next one. Figures of one forward then say only what it did.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from layerbench.instruments.attach import Forward
from layerbench.instruments.global_hooks import has_any_global_hook
from layerbench.instruments.modules import CallObserver, ModuleFacts
from layerbench.instruments.rows import notes_on_calls, observed_rows
from layerbench.introspection.modules import PROXIES
from layerbench.introspection.modules import modules as modules_of
from layerbench.records.samples import RowFacts
from layerbench.records.timing import VARIED

MORE_FORWARDS = 4
"""At most so many are looked at after the first."""

QUICK_S, LONGEST_S = 0.2, 2.0
"""After so many seconds of forwards a second one is enough, unless they draw; or none follows."""

MANY_MODULES = 1000
"""Of a model with more, which draws nothing, no other forward follows: observing takes long."""

LIBRARIES = ("torch.nn.", "torchvision.", "timm.", "segmentation_models_pytorch.", "open_clip.")
"""Whose layers vary by chance only as they draw, and keep nothing that changes the next forward.

Not torch.fx, torch.jit and torch.export: the code in their modules may be anybody's.
"""


def more_forwards(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    modules: Sequence[ModuleFacts],
    *,
    renew: Callable[[], object],
    drawn: bool,
    spent_s: float,
    casting: Callable[[Forward], Forward] = lambda forward: forward,
) -> list[tuple[RowFacts, ...]]:
    """The rows of some more forwards, as long as none raises.

    None follows where nothing was drawn and all code is of libraries that are known to run alike.

    Args:
        model, args, kwargs: what runs, as it ran before.
        modules: facts of its modules.
        renew: puts the inputs back.
        drawn: whether the forward before drew from the process's generators.
        spent_s: seconds that the forward before took.
        casting: gives the forward as it runs within autocast.
    """
    forwards: list[tuple[RowFacts, ...]] = []
    if not drawn and (len(modules) > MANY_MODULES or runs_alike(model)):
        return forwards
    forward, began = casting(model), perf_counter()
    with suppress(Exception):
        for done in range(MORE_FORWARDS):
            enough_s = QUICK_S if done and not drawn else LONGEST_S
            if spent_s + perf_counter() - began > enough_s:
                break
            renew()
            call_facts = CallObserver(model, modules).observe(forward, args, dict(kwargs))
            forwards.append(observed_rows(model, modules, call_facts))
    return forwards


def runs_alike(model: nn.Module) -> bool:
    """Whether a model consists of `LIBRARIES`' code alone, which runs alike where it draws nothing.

    No, too, where somebody's function stands in a module: as a hook, as its ``forward``, or as an
    attribute, such as an encoder layer's activation.
    """
    if has_any_global_hook():
        return False
    kinds: dict[type, bool] = {}
    for module in modules_of(model):
        kind = type(module)
        if kind not in kinds:
            kinds[kind] = _is_library(kind) and _is_library(kind.forward)
        if not kinds[kind] or module._forward_hooks or module._forward_pre_hooks:
            return False
        if not all(map(_is_harmless, vars(module).values())):
            return False
    return True


def _is_harmless(value: object) -> bool:
    """Whether an attribute is no function of somebody else's."""
    if type(value) in PROXIES:
        return False
    if isinstance(value, partial):
        return _is_harmless(value.func)
    if not callable(value) or isinstance(value, (nn.Module, type, types.BuiltinFunctionType)):
        return True
    return _is_library(value)


def _is_library(code: object) -> bool:
    return f"{getattr(code, '__module__', '')}.".startswith(LIBRARIES)


def notes_on_chance(forwards: Sequence[Sequence[RowFacts]]) -> tuple[str, ...]:
    """What the forwards did not do alike, by the names of the modules.

    Args:
        forwards: the rows of each. Modules that not all of them had are passed over: a first
            forward can make some.
    """
    shared = set.intersection(*({row.path for row in rows} for rows in forwards))
    forwards = [[row for row in rows if row.path in shared] for rows in forwards]
    first = forwards[0]
    calls = np.array([[row.calls for row in rows] for rows in forwards], dtype=np.int64)
    return (*notes_on_calls(first, calls), *_notes_on_shapes(forwards))


def _notes_on_shapes(forwards: Sequence[Sequence[RowFacts]]) -> tuple[str, ...]:
    names = [
        rows[0].path or "the model"
        for rows in zip(*forwards, strict=True)
        if len({(row.input_shapes, row.output_shapes) for row in rows if row.calls}) > 1
    ]
    return (f"shapes {VARIED}: {', '.join(names)}",) if names else ()
