"""From what the instruments saw of a model to the facts of its rows; no times here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from layerbench import units
from layerbench.instruments.blocks import BlockView, find_blocks
from layerbench.instruments.calls import CallTree
from layerbench.instruments.function_timer import FunctionFacts, FunctionForward
from layerbench.instruments.modules import CallFacts, ModuleFacts, ObservedCalls
from layerbench.introspection.modules import join
from layerbench.records.samples import RowFacts
from layerbench.records.timing import CALLS_VARIED, ONLY_INSIDE

# Of the names, or callers, of a module, a remark says so many.
NAMED = 5


def module_rows(
    modules: Sequence[ModuleFacts],
    call_facts: Mapping[str, CallFacts],
    calls: Sequence[int],
    view: BlockView,
    functions: Sequence[FunctionForward],
) -> tuple[RowFacts, ...]:
    """A row's facts for each module.

    Args:
        modules: those that get rows, in the order of the samples' columns.
        call_facts: what one forward showed of them.
        calls: of each in one timed forward; those of the model, which may call itself, are what
            the observed forward showed.
        view: which of them are blocks.
        functions: if the functions' pass ran, its count of first calls orders the modules, for
            it holds the functions too.
    """
    order = functions[0].module_order if functions else {p: c.order for p, c in call_facts.items()}
    remarks = _Remarks(call_facts, view)
    if "" in call_facts:
        calls = (call_facts[""].calls, *calls[1:])
    return tuple(
        _module_row(
            fact, call_facts.get(fact.path), count, fact.path in view.blocks, order, remarks
        )
        for fact, count in zip(modules, calls, strict=True)
    )


def observed_rows(
    model: nn.Module, modules: Sequence[ModuleFacts], call_facts: Mapping[str, CallFacts]
) -> tuple[RowFacts, ...]:
    """A row's facts for each module, as one observed forward showed them."""
    view = find_blocks(model).seen_running(call_facts)
    counts = [call_facts[fact.path].calls if fact.path in call_facts else 0 for fact in modules]
    return module_rows(modules, call_facts, counts, view, ())


def _module_row(
    fact: ModuleFacts,
    facts: CallFacts | None,
    calls: int,
    block: bool,
    order: Mapping[str, int],
    remarks: _Remarks,
) -> RowFacts:
    return RowFacts(
        path=fact.path,
        type=fact.type,
        kind="module",
        depth=fact.depth,
        order=order.get(fact.path),
        calls=calls,
        block=block,
        input_shapes=facts.input_shapes if facts else (),
        output_shapes=facts.output_shapes if facts else (),
        parameters=fact.parameters,
        note=remarks.on(fact),
    )


class _Remarks:
    """What a reader should know of a module that its figures do not say."""

    def __init__(self, call_facts: Mapping[str, CallFacts], view: BlockView) -> None:
        calls = call_facts.calls if isinstance(call_facts, ObservedCalls) else CallTree()
        self._names = calls.names
        self._callers = calls.callers()
        self._only_inside = calls.only_inside()
        self._inside = view.inside

    def on(self, fact: ModuleFacts) -> str:
        return "; ".join(self._all(fact))

    def _all(self, fact: ModuleFacts) -> Iterator[str]:
        if fact.path in self._only_inside:
            yield ONLY_INSIDE
        if fact.aliases:
            yield f"also {_listed(fact.aliases)}"
        if fact.path in self._inside:
            yield f"runs inside {_listed(self._inside[fact.path])}, so it is no block"
        elif elsewhere := self._called_from_elsewhere(fact.path):
            yield f"called by {_listed(elsewhere)}"
        if fact.shared and not fact.aliases:
            yield f"{units.count(fact.shared)} of its parameters are other modules' too"
        if not fact.reachable:
            yield "inside a scripted or compiled module, which runs outside Python"

    def _called_from_elsewhere(self, path: str) -> list[str]:
        """The modules that called it without holding it, by any of its names."""
        callers = self._callers.get(path, {})
        return [caller for caller in callers if self._names.below(path, caller) is None]


def _listed(paths: Sequence[str]) -> str:
    """The first few, and how many there are besides: a layer can be shared by thousands."""
    more = len(paths) - NAMED
    return ", ".join(paths[:NAMED]) + (f" and {units.count(more)} more" if more > 0 else "")


def function_rows(
    functions: Sequence[FunctionForward], modules: Sequence[RowFacts], view: BlockView
) -> tuple[RowFacts, ...]:
    """A row's facts for each function that the functions' pass saw."""
    if not functions:
        return ()
    by_path = {row.path: row for row in modules}
    # What an opened module does itself stands between its blocks, so it is a row there too.
    between = view.opened - view.inside.keys()
    return tuple(
        _function_row(fact, by_path, fact.module in between) for fact in functions[0].facts
    )


def _function_row(fact: FunctionFacts, modules: Mapping[str, RowFacts], block: bool) -> RowFacts:
    module = modules[fact.module]
    path = join(module.path, f"{fact.name}()")
    while path in modules:  # a module can be called so, too
        path += "'"
    return RowFacts(
        path=path,
        type=fact.name,
        kind="function",
        depth=module.depth + 1,
        order=fact.order,
        calls=fact.calls,
        block=block,
        input_shapes=fact.input_shapes,
        output_shapes=fact.output_shapes,
        module=fact.module,
    )


def notes_on_calls(rows: Sequence[RowFacts], calls: NDArray[np.int64]) -> tuple[str, ...]:
    """One sentence where forwards called modules differently often.

    Args:
        rows: of the modules.
        calls: shape (forwards, rows).
    """
    if len(calls) == 0:
        return ()
    varied = (calls != calls[0]).any(axis=0)
    names = [row.path or "the model" for row, differs in zip(rows, varied, strict=True) if differs]
    if not names:
        return ()
    return (f"{CALLS_VARIED}, as the work depends on data, state or chance: {', '.join(names)}",)
