"""A structure: shapes, parameters and FLOPs, without memory or arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import torch
from torch import nn

from layerbench import zoo
from layerbench._version import __version__
from layerbench.environment.collection import no_collection
from layerbench.environment.precision import autocasting
from layerbench.environment.run_context import torch_version
from layerbench.errors import LayerbenchError, ModelRunError, first_line
from layerbench.instruments.attach import Forward, mode_set, notes_on_modes
from layerbench.instruments.autocast_seen import autocast_noted
from layerbench.instruments.chance import more_forwards, notes_on_chance
from layerbench.instruments.compiled import compilation_off, notes_on_compiled, original
from layerbench.instruments.data_flow import DataFlow
from layerbench.instruments.fake_tensors import ShapesDoNotSuffice, without_memory
from layerbench.instruments.flops import FlopCounter
from layerbench.instruments.holdings import Holdings
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import CallObserver, ModuleFacts, ObservedCalls, module_facts
from layerbench.instruments.preserve import (
    FreshInputs,
    drawing_anew,
    preserved,
    preserved_from_stand_ins,
    strays_removed,
)
from layerbench.instruments.random_state import RandomState, drawing_from
from layerbench.instruments.rows import observed_rows
from layerbench.instruments.stored_weights import stored_bytes
from layerbench.instruments.tensors_held import notes_on_parameters
from layerbench.instruments.work import NO_KERNEL, Flops, Kernel
from layerbench.introspection.modules import named_modules
from layerbench.introspection.tensors import bytes_of, elements_of
from layerbench.profilers.peers.torchinfo import torchinfo_report
from layerbench.records.graph import Graph
from layerbench.records.peers import Column
from layerbench.records.samples import RowFacts
from layerbench.records.structure import Operator, Structure, StructureRow
from layerbench.records.tree import Placed, placed
from layerbench.records.workload import Workload, autocast_format
from layerbench.zoo import Built


def profile_structure(
    workload: Workload, subject: Built | None = None, *, torchinfo: Sequence[Column] = ()
) -> Structure:
    """Make the structure record of a workload.

    On the meta device first: nothing is allocated and nothing computed. A model that needs its
    tensors' values runs once for real on the CPU instead, and a note says why.

    Args:
        workload: what runs.
        subject: a model that was handed over, with its inputs; it stays as it was.
        torchinfo: columns of torchinfo's table, which is made beside it; without any it is not.

    Raises:
        ModelRunError: the model does not take the input.
        LayerbenchError: the model cannot be built.
    """
    with strays_removed(workload.model), no_collection():
        try:
            return _on_meta(workload, subject, torchinfo)
        except LayerbenchError:
            raise
        except Exception as error:
            reason = first_line(error)
    return _for_real(workload, subject, reason, torchinfo)


def _on_meta(workload: Workload, subject: Built | None, torchinfo: Sequence[Column]) -> Structure:
    def structure_of(built: Built) -> Structure:
        draws = RandomState()
        observed = observe(workload, built, propagate=True)
        if observed.counter.out_of_step:
            raise ShapesDoNotSuffice("it draws random numbers on the CPU after some on its device")
        record = _record(workload, observed, "meta", ())
        return _with_torchinfo(record, built, draws, torchinfo)

    if subject is None:
        built = zoo.build_shapes(workload)
        with (
            preserved_from_stand_ins(built, handed_over=False),
            drawing_from(workload.seed),
            _autocast_on_fakes(workload, built) as stand_in,
        ):
            return structure_of(stand_in)
    casts = autocast_format(workload.precision) is not None
    with (
        preserved_from_stand_ins(subject, handed_over=True),
        without_memory(subject, *(("cpu",) if casts else ("meta", nullcontext()))) as built,
    ):
        return structure_of(built)


def _autocast_on_fakes(workload: Workload, built: Built) -> AbstractContextManager[Built]:
    """The model for a forward: autocast passes tensors on the meta device over, not fake ones."""
    casts = autocast_format(workload.precision) is not None
    return without_memory(built, "cpu") if casts else nullcontext(built)


def _for_real(
    workload: Workload, subject: Built | None, reason: str, torchinfo: Sequence[Column]
) -> Structure:
    note = f"ran for real on the CPU, as shapes alone do not suffice: {reason}"

    def structure_of(built: Built) -> Structure:
        draws = RandomState()
        observed = observe(workload, built)
        record = _record(workload, observed, "cpu", (note,))
        return _with_torchinfo(record, built, draws, torchinfo, observed.forward_s)

    if subject is None:
        built = zoo.build(workload, load_weights=False)
        with drawing_anew(workload, built):
            return structure_of(built)
    with preserved(subject) as built:
        return structure_of(built)


def _with_torchinfo(
    record: Structure,
    built: Built,
    draws: RandomState,
    columns: Sequence[Column],
    forward_s: float = 0.0,
) -> Structure:
    """The record with torchinfo's table, which runs the model as our own forward did."""
    if not columns:
        return record
    draws.put_back()
    with compilation_off(), _unfused():
        made = torchinfo_report(original(built.module), built, record, columns, forward_s)
    return record.model_copy(update={"torchinfo": made})


@dataclass(frozen=True)
class _Observation:
    """What one forward showed, and the model's own figures."""

    modules: tuple[ModuleFacts, ...]
    rows: tuple[RowFacts, ...]
    calls: ObservedCalls
    holdings: Mapping[str, _Holdings]
    kernels: Mapping[str, Kernel]
    stored: Mapping[str, int | None]
    counter: FlopCounter
    graphs: tuple[Graph, ...]
    notes: tuple[str, ...]
    forward_s: float


@dataclass(frozen=True)
class _Holdings:
    """Elements and bytes of tensors in a module and below it, shared ones counted once."""

    trainable: int
    own_parameters: int
    parameter_bytes: int
    buffers: int
    buffer_bytes: int

    @classmethod
    def of_all(cls, model: nn.Module) -> dict[str, _Holdings]:
        """By path of each module."""
        parameters, buffers = Holdings(model, "_parameters"), Holdings(model, "_buffers")
        columns = zip(
            parameters.sums(lambda tensor: elements_of(tensor) if tensor.requires_grad else 0),
            parameters.own(elements_of),
            parameters.sums(bytes_of),
            buffers.sums(elements_of),
            buffers.sums(bytes_of),
            strict=True,
        )
        return {path: cls(*row) for path, row in zip(parameters.paths, columns, strict=True)}


def observe(workload: Workload, built: Built, *, propagate: bool = False) -> _Observation:
    """Run one forward with calls, shapes and FLOPs noted.

    Args:
        workload: says the mode.
        built: the model and its inputs.
        propagate: let what the model raises through, for a caller who has another way.

    Raises:
        ModelRunError: the model raised, with the module and what came in.
    """
    notes = (*notes_on_compiled(built.module), *notes_on_parameters(original(built.module)))
    with compilation_off():
        return _observe(workload, original(built.module), built, propagate, notes)


def _observe(
    workload: Workload, model: nn.Module, built: Built, propagate: bool, notes: tuple[str, ...]
) -> _Observation:
    modules = module_facts(model)
    # A forward may take modules away.
    holdings, kernels = _Holdings.of_all(model), Kernel.of_all(model)
    stored = {path: stored_bytes(module) for path, module in named_modules(model)}
    running = RunningModule(model)
    flow = DataFlow(model)
    observer = CallObserver(model, modules, running, flow=flow)
    counter = FlopCounter(running)

    def casting(forward: Forward) -> Forward:
        return autocasting(forward, workload.precision, "cpu")

    try:
        inputs, draws = FreshInputs(built), RandomState()
        began = perf_counter()
        with mode_set(model, workload.mode == "train"), torch.no_grad(), _unfused():
            with autocast_noted(), counter, flow.on():
                calls = observer.observe(casting(model), built.args, built.kwargs)
            forward_s = perf_counter() - began
            rows = observed_rows(model, modules, calls)
            graphs = flow.graphs([row.path for row in rows])
            notes = (
                *notes,
                *observer.notes,
                *flow.notes,
                *notes_on_modes(model, workload.mode == "train"),
            )
            again = more_forwards(
                model,
                built.args,
                built.kwargs,
                modules,
                renew=inputs.renew,
                drawn=draws.drawn(),
                # The first one on shapes alone loads libraries, and takes no time else.
                spent_s=0.0 if propagate else forward_s,
                casting=casting,
            )
            notes = (*notes, *notes_on_chance([rows, *again]))
    except Exception as error:
        if propagate:
            raise
        raise ModelRunError(f"{workload.model}: {observer.explain(error)}") from error
    return _Observation(
        modules, rows, calls, holdings, kernels, stored, counter, graphs, notes, forward_s
    )


@contextmanager
def _unfused() -> Iterator[None]:
    """Let an encoder run its layers one by one, as it must on the meta device: FLOPs are the same.

    Its fused path drops what a padding mask hides, so that they would depend on how it ran.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _record(
    workload: Workload, observed: _Observation, how: Literal["meta", "cpu"], notes: tuple[str, ...]
) -> Structure:
    root = observed.modules[0]
    whole = observed.holdings[""]
    return Structure(
        workload=workload,
        how=how,
        torch=torch_version(),
        layerbench=__version__,
        model_type=root.type,
        parameters=root.parameters,
        trainable=whole.trainable,
        parameter_bytes=whole.parameter_bytes,
        buffers=whole.buffers,
        buffer_bytes=whole.buffer_bytes,
        flops=sum(observed.counter.flops.values()),
        rows=_rows(observed),
        graphs=observed.graphs,
        uncounted=_uncounted(observed.counter),
        notes=(*observed.notes, *notes),
    )


def _rows(observed: _Observation) -> tuple[StructureRow, ...]:
    flops = Flops.by_module(observed.calls, observed.counter)
    uncounted = _uncounted_by_path(observed.counter)
    return tuple(
        _row(row, place, observed, flops, uncounted.get(row.path, ()))
        for place in placed(observed.rows)
        for row in (observed.rows[place.row],)
    )


def _row(
    row: RowFacts,
    place: Placed,
    observed: _Observation,
    flops: Flops,
    uncounted: Iterable[str],
) -> StructureRow:
    ran = row.path in observed.calls
    holdings = observed.holdings[row.path]
    kernel = observed.kernels.get(row.path, NO_KERNEL)
    # A module that is never called itself may hold others that are (torchvision's RAFT).
    counted = ran or row.path in flops.inclusive
    return StructureRow(
        path=row.path,
        type=row.type,
        depth=row.depth,
        calls=row.calls,
        block=row.block,
        position=place.position,
        turn=place.turn,
        input_shapes=row.input_shapes,
        output_shapes=row.output_shapes,
        parameters=row.parameters or 0,
        trainable=holdings.trainable,
        own_parameters=holdings.own_parameters,
        own_parameter_bytes=observed.stored.get(row.path),
        buffers=holdings.buffers,
        flops=flops.inclusive.get(row.path, 0) if counted else None,
        self_flops=flops.own.get(row.path, 0) if counted else None,
        kernel_size=kernel.size,
        groups=kernel.groups,
        output_bytes=observed.calls[row.path].output_bytes if ran else None,
        uncounted=tuple(uncounted),
        note=row.note,
    )


def _uncounted_by_path(counter: FlopCounter) -> dict[str, dict[str, None]]:
    """Names of operators that each module ran itself."""
    names: dict[str, dict[str, None]] = {}
    for name, path in counter.uncounted:
        if path is not None:
            names.setdefault(path, {})[name] = None
    return names


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
