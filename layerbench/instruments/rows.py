"""From what the instruments saw of a model to the facts of its rows; no times here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from layerbench.instruments.blocks import BlockView, find_blocks
from layerbench.instruments.functions import FunctionFacts, FunctionForward
from layerbench.instruments.structure import CallFacts, ModuleFacts
from layerbench.samples import RowFacts


def module_rows(
    modules: Sequence[ModuleFacts],
    seen: Mapping[str, CallFacts],
    calls: Sequence[int],
    view: BlockView,
    functions: Sequence[FunctionForward],
) -> tuple[RowFacts, ...]:
    """A row's facts for each module.

    Args:
        modules: those that get rows, in the order of the samples' columns.
        seen: what one forward showed of them.
        calls: of each in one timed forward.
        view: which of them are blocks.
        functions: if the functions' pass ran, its count of first calls orders the modules, for
            it holds the functions too.
    """
    order = functions[0].module_order if functions else {p: c.order for p, c in seen.items()}
    return tuple(
        _module_row(fact, seen.get(fact.path), count, fact.path in view.blocks, order)
        for fact, count in zip(modules, calls, strict=True)
    )


def observed_rows(
    model: nn.Module, modules: Sequence[ModuleFacts], seen: Mapping[str, CallFacts]
) -> tuple[RowFacts, ...]:
    """A row's facts for each module, as one observed forward showed them."""
    view = find_blocks(model).seen_running(seen)
    counts = [seen[fact.path].calls if fact.path in seen else 0 for fact in modules]
    return module_rows(modules, seen, counts, view, ())


def _module_row(
    fact: ModuleFacts, seen: CallFacts | None, calls: int, block: bool, order: Mapping[str, int]
) -> RowFacts:
    return RowFacts(
        path=fact.path,
        type=fact.type,
        kind="module",
        depth=fact.depth,
        order=order.get(fact.path),
        calls=calls,
        block=block,
        input_shapes=seen.input_shapes if seen else (),
        output_shapes=seen.output_shapes if seen else (),
        parameters=fact.parameters,
        note=_note(fact),
    )


def _note(fact: ModuleFacts) -> str:
    notes = []
    if fact.aliases:
        notes.append(f"also {', '.join(fact.aliases)}")
    if not fact.reachable:
        notes.append("inside a scripted or compiled module, which runs outside Python")
    return "; ".join(notes)


def function_rows(
    functions: Sequence[FunctionForward], modules: Sequence[RowFacts], view: BlockView
) -> tuple[RowFacts, ...]:
    """A row's facts for each function that the functions' pass saw."""
    if not functions:
        return ()
    by_path = {row.path: row for row in modules}
    return tuple(
        # What an opened module does itself stands between its blocks, so it is a row there too.
        _function_row(fact, by_path[fact.module], fact.module in view.opened)
        for fact in functions[0].facts
    )


def _function_row(fact: FunctionFacts, module: RowFacts, block: bool) -> RowFacts:
    return RowFacts(
        path=f"{module.path}.{fact.name}()" if module.path else f"{fact.name}()",
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
