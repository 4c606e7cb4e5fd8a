"""The recipe of a structure dump: shapes, parameters and FLOPs, without memory or arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

import layerbench
from layerbench import zoo
from layerbench.errors import LayerbenchError, ModelRunError
from layerbench.guards import torch_version
from layerbench.instruments.attach import mode_set, tensors_replaced
from layerbench.instruments.flops import FlopCounter
from layerbench.instruments.rows import observed_rows
from layerbench.instruments.running import RunningModule
from layerbench.instruments.structure import (
    CallFacts,
    CallObserver,
    ModuleFacts,
    first_line,
    module_facts,
    named_instances,
)
from layerbench.modules import buffers, own_parameters, parameters
from layerbench.nested import map_tensors
from layerbench.records import Operator, Structure, StructureRow
from layerbench.samples import RowFacts
from layerbench.tree import positions, tree_order, with_ancestors
from layerbench.workload import Workload
from layerbench.zoo import Built


def dissect(workload: Workload, subject: Built | None = None) -> Structure:
    """Make the structure record of a workload.

    On the meta device first: nothing is allocated and nothing computed. A model that needs its
    tensors' values runs once for real on the CPU instead, and a note says why.

    Args:
        workload: what runs.
        subject: a model that was handed over, with its inputs; it stays as it was.

    Raises:
        ModelRunError: the model does not take the input.
        LayerbenchError: the model cannot be built.
    """
    try:
        return _on_meta(workload, subject)
    except LayerbenchError:
        raise
    except Exception as error:
        reason = first_line(error)
    return _for_real(workload, subject, reason)


def _on_meta(workload: Workload, subject: Built | None) -> Structure:
    if subject is None:
        seen = observe(workload, zoo.build_shapes(workload), propagate=True)
    else:
        to_meta: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor.to("meta")  # noqa: E731
        args, kwargs = map_tensors((subject.args, subject.kwargs), to_meta)
        with tensors_replaced(subject.module, to_meta):
            built = Built(subject.module, args, kwargs)
            seen = observe(workload, built, propagate=True)
    return _record(workload, seen, "meta", ())


def _for_real(workload: Workload, subject: Built | None, reason: str) -> Structure:
    built = subject or zoo.build(workload, load_weights=False)
    seen = observe(workload, built)
    note = f"ran for real on the CPU, as shapes alone do not suffice: {reason}"
    return _record(workload, seen, "cpu", (note,))


@dataclass(frozen=True)
class _Seen:
    """What one forward showed, and the model's own figures."""

    modules: tuple[ModuleFacts, ...]
    rows: tuple[RowFacts, ...]
    calls: Mapping[str, CallFacts]
    holdings: Mapping[str, _Holdings]
    counter: FlopCounter


@dataclass(frozen=True)
class _Holdings:
    """Elements and bytes of tensors in a module and below it, shared ones counted once."""

    trainable: int
    own_parameters: int
    parameter_bytes: int
    buffers: int
    buffer_bytes: int

    @classmethod
    def of(cls, module: nn.Module) -> _Holdings:
        inside, kept = list(parameters(module)), list(buffers(module))
        return cls(
            trainable=sum(p.numel() for p in inside if p.requires_grad),
            own_parameters=sum(parameter.numel() for parameter in own_parameters(module)),
            parameter_bytes=sum(parameter.nbytes for parameter in inside),
            buffers=sum(buffer.numel() for buffer in kept),
            buffer_bytes=sum(buffer.nbytes for buffer in kept),
        )


def observe(workload: Workload, built: Built, *, propagate: bool = False) -> _Seen:
    """Run one forward with calls, shapes and FLOPs noted.

    Args:
        workload: says the mode.
        built: the model and its inputs.
        propagate: let what the model raises through, for a caller who has another way.

    Raises:
        ModelRunError: the model raised, with the module and what came in.
    """
    model = built.module
    modules = module_facts(model)
    running = RunningModule(model)
    observer = CallObserver(model, modules, running)
    counter = FlopCounter(running)
    try:
        with mode_set(model, workload.mode == "train"), torch.no_grad(), counter:
            calls = observer.observe(model, built.args, built.kwargs)
    except Exception as error:
        if propagate:
            raise
        raise ModelRunError(f"{workload.model}: {observer.explain(error)}") from error
    holdings = {path: _Holdings.of(module) for path, module in named_instances(model).items()}
    rows = observed_rows(model, modules, calls)
    return _Seen(modules, rows, calls, holdings, counter)


def _record(
    workload: Workload, seen: _Seen, how: Literal["meta", "cpu"], notes: tuple[str, ...]
) -> Structure:
    root = seen.modules[0]
    whole = seen.holdings[""]
    return Structure(
        workload=workload,
        how=how,
        torch=torch_version(),
        layerbench=layerbench.__version__,
        model_type=root.type,
        parameters=root.parameters,
        trainable=whole.trainable,
        parameter_bytes=whole.parameter_bytes,
        buffers=whole.buffers,
        buffer_bytes=whole.buffer_bytes,
        flops=sum(seen.counter.flops.values()),
        rows=_rows(seen),
        uncounted=_uncounted(seen.counter),
        notes=notes,
    )


def _rows(seen: _Seen) -> tuple[StructureRow, ...]:
    own = {path or "": flops for path, flops in seen.counter.flops.items()}
    inclusive = with_ancestors(own)
    order = tree_order([row.path for row in seen.rows], [row.order for row in seen.rows])
    rows = [seen.rows[index] for index in order]
    numbers = positions((row.type for row in rows), (row.block and row.calls > 0 for row in rows))
    return tuple(
        _row(row, number, seen, own, inclusive) for row, number in zip(rows, numbers, strict=True)
    )


def _row(
    row: RowFacts,
    position: int | None,
    seen: _Seen,
    own: Mapping[str, int],
    inclusive: Mapping[str, int],
) -> StructureRow:
    ran = row.path in seen.calls
    holdings = seen.holdings[row.path]
    # A module that is never called itself may hold others that are (torchvision's RAFT).
    known = ran or row.path in inclusive
    return StructureRow(
        path=row.path,
        type=row.type,
        depth=row.depth,
        calls=row.calls,
        block=row.block,
        position=position,
        input_shapes=row.input_shapes,
        output_shapes=row.output_shapes,
        parameters=row.parameters or 0,
        trainable=holdings.trainable,
        own_parameters=holdings.own_parameters,
        buffers=holdings.buffers,
        flops=inclusive.get(row.path, 0) if known else None,
        self_flops=own.get(row.path, 0) if known else None,
        output_bytes=seen.calls[row.path].output_bytes if ran else None,
        uncounted=_uncounted_by(seen.counter, row.path),
        note=row.note,
    )


def _uncounted_by(counter: FlopCounter, path: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, at in counter.uncounted if at == path))


def _uncounted(counter: FlopCounter) -> tuple[Operator, ...]:
    calls: Counter[str] = Counter()
    paths: dict[str, dict[str, None]] = {}
    for (name, path), count in counter.uncounted.items():
        calls[name] += count
        paths.setdefault(name, {})[path or ""] = None
    return tuple(
        Operator(name=name, calls=count, paths=tuple(paths[name]))
        for name, count in sorted(calls.items())
    )
