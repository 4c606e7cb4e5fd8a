"""A memory report: a real run with every tensor's life traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.collection import no_collection
from layerbench.environment.devices import Device
from layerbench.environment.precision import autocasting, precision_set
from layerbench.environment.run_context import (
    check_input_fits,
    free_unused,
    gradients_on,
    memory_explained,
    watch_environment,
)
from layerbench.errors import ModelRunError, first_line
from layerbench.instruments.attach import Forward, mode_set
from layerbench.instruments.chance import more_forwards, notes_on_chance
from layerbench.instruments.compiled import compilation_off, original
from layerbench.instruments.fake_tensors import shapes_of_model, without_memory
from layerbench.instruments.memory_attribution import hold
from layerbench.instruments.modules import module_facts
from layerbench.instruments.preserve import (
    FreshInputs,
    drawing_anew,
    preserved,
    preserved_from_stand_ins,
    strays_removed,
)
from layerbench.instruments.random_state import RandomState, drawing_from
from layerbench.instruments.release import Releaser
from layerbench.instruments.resident_memory import resident_set
from layerbench.instruments.tensors_held import (
    HeldTensor,
    held_tensors,
    notes_on_parameters,
    totals,
)
from layerbench.profilers.loss import RunFailed
from layerbench.profilers.memory.traced import Traced
from layerbench.profilers.memory.traced_run import trace_run
from layerbench.profilers.optimizers import check_optimizer
from layerbench.profilers.peers.lines import Function, check_lines, functions_named, line_profile
from layerbench.profilers.peers.memlab import memlab_report
from layerbench.records.environment import Environment
from layerbench.records.memory import AllocatorFigures, MemoryReport, Optimizer, ProcessMemory
from layerbench.records.peers import MemlabReport
from layerbench.records.workload import Workload
from layerbench.zoo import Built
from layerbench.zoo.family import on_device


def profile_memory(
    workload: Workload,
    device: Device,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    memlab: bool = False,
    lines: Sequence[str] = (),
) -> MemoryReport:
    """Run a workload once and report what its tensors held.

    Args:
        workload: what runs; a training workload needs an optimizer.
        device: where it runs.
        optimizer: makes it two training steps, of which the second is reported.
        subject: a model that was handed over, with its inputs; it stays as it was.
        memlab: whether pytorch-memlab's account of the run stands beside it.
        lines: functions whose lines memlab profiles, on a GPU: paths of modules, or
            ``package.module:callable``. Its account stands beside it then, too.

    Raises:
        ModelRunError: the model does not take the input, or cannot be trained.
        NotEnoughMemory: with the bytes requested and free.
        UsageError: no such optimizer, or a line profile without a GPU.
    """
    check_optimizer(optimizer)
    check_lines(lines, device)
    beside = _Beside(memlab or bool(lines), tuple(lines))
    with precision_set(workload.precision, device), memory_explained(device), no_collection():
        watch = watch_environment(device)
        releaser = Releaser()
        if subject is None:
            check_input_fits(workload, device)
            built = on_device(zoo.build(workload), device.torch_device)
            with drawing_anew(workload, built):
                measured = _measure(workload, built, device, optimizer, releaser, beside)
        else:
            with preserved(subject, training=optimizer is not None, releaser=releaser) as built:
                measured = _measure(workload, built, device, optimizer, releaser, beside)
        return _record(workload, optimizer, measured, held_tensors(built), watch.finish())


def reproduce_memory(record: MemoryReport) -> MemoryReport:
    """What a report must say of the same workload on any machine; no memory is taken.

    What the report's machine and process had to do with it is taken over.

    Raises:
        LayerbenchError: as `profile_memory`.
    """
    made = profile_memory_on_fakes(record.workload, record.optimizer, record.environment)
    machine = ("environment", "process", "allocator", "memlab")
    return made.model_copy(update={name: getattr(record, name) for name in machine})


def profile_memory_on_fakes(
    workload: Workload, optimizer: Optimizer | None, environment: Environment
) -> MemoryReport:
    """The report of a workload as `profile_memory` would make it, without taking the memory.

    The run is made on tensors that say they are on the environment's device. A model for which
    such tensors do not suffice runs for real, on that device.

    Args:
        workload, optimizer: as for `profile_memory`.
        environment: for the record; its device is the one that tensors lie on.

    Raises:
        LayerbenchError: as `profile_memory`.
    """
    kind = environment.device.kind
    built = shapes_of_model(workload)
    if built is not None:
        tensors = held_tensors(built)
        with (
            strays_removed(workload.model),
            suppress(Exception),  # the run for real says what is wrong, if anything is
            preserved_from_stand_ins(built, handed_over=False),
            drawing_from(workload.seed),
            mode_set(built.module, workload.mode == "train"),
            without_memory(built, kind) as stand_in,
        ):
            traced = trace_run(
                stand_in,
                optimizer=optimizer,
                train_mode=workload.mode == "train",
                step=workload,
                device=kind,
                precision=workload.precision,
            )
            measured = _Measured(traced, None, None, None)
            return _record(workload, optimizer, measured, tensors, environment)
    return profile_memory(workload, devices.get(kind), optimizer=optimizer)


@dataclass(frozen=True)
class _Beside:
    """What pytorch-memlab is asked for."""

    account: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Measured:
    traced: Traced
    process: ProcessMemory | None
    allocator: AllocatorFigures | None
    memlab: MemlabReport | None


def _measure(
    workload: Workload,
    built: Built,
    device: Device,
    optimizer: str | None,
    releaser: Releaser,
    beside: _Beside,
) -> _Measured:
    model = original(built.module)
    functions = functions_named(beside.lines, model)
    notes = notes_on_parameters(model)
    optimizers: list[torch.optim.Optimizer] = []

    def casting(forward: Forward) -> Forward:
        return autocasting(forward, workload.precision, device.torch_device.type)

    inputs, draws = FreshInputs(built), RandomState()
    free_unused(device)
    device.begin_peak()
    try:
        with mode_set(built.module, workload.mode == "train", buffers_too=False):
            with resident_set() as process:
                traced = trace_run(
                    built,
                    optimizer=optimizer,
                    train_mode=workload.mode == "train",
                    step=workload,
                    device=device.torch_device.type,
                    precision=workload.precision,
                    renew_inputs=inputs.renew,
                    release=releaser.release,
                    keep=optimizers.append if beside.account else lambda _: None,
                )
            peak = device.peak()
            memlab = None
            if beside.account:
                memlab = memlab_report(model, held_tensors(built), optimizers)
            optimizers.clear()
            # As the traced forward: in training, operators that run functions count otherwise.
            with compilation_off(), gradients_on(optimizer is not None):
                varied = _what_varies(built, casting, traced, inputs, draws)
                if memlab is not None and functions:
                    inputs.renew()
                    draws.put_back()
                    memlab = _with_lines(
                        memlab, functions, built, device, optimizer is not None, casting
                    )
    except RunFailed as error:
        cause = error.__cause__
        if cause is not None and device.is_out_of_memory(cause):
            raise cause from None
        raise ModelRunError(f"{workload.model}: {error}") from error
    notes = (*notes, *traced.notes, *varied, *_notes_on_scratch(workload, device))
    traced = replace(traced, notes=notes)
    return _Measured(traced, process.figures, peak, memlab)


def _notes_on_scratch(workload: Workload, device: Device) -> tuple[str, ...]:
    """What oneDNN takes beside tensors, where it computes in a shorter format than float32."""
    short = workload.precision in ("amp", "amp-bf16") or workload.dtype in ("bfloat16", "float16")
    if not short or device.kind != "cpu" or not torch._C._get_mkldnn_enabled():
        return ()
    return (
        "what oneDNN's products and convolutions take within an operator (operands in its own "
        "layout, sums in float32) is not known and no part of these bytes",
    )


def _with_lines(
    memlab: MemlabReport,
    functions: Sequence[Function],
    built: Built,
    device: Device,
    training: bool,
    casting: Callable[[Forward], Forward],
) -> MemlabReport:
    """The account with memlab's line profile; with a reason where there is none."""
    try:
        made = line_profile(functions, built, device, gradients=training, casting=casting)
    except Exception as error:
        return memlab.model_copy(update={"reason": f"no line profile: {first_line(error)}"})
    return memlab.model_copy(update={"functions": made})


def _what_varies(
    built: Built,
    casting: Callable[[Forward], Forward],
    traced: Traced,
    inputs: FreshInputs,
    draws: RandomState,
) -> tuple[str, ...]:
    """What other forwards of the model do otherwise than the one that was traced."""
    model = original(built.module)
    again = more_forwards(
        model,
        built.args,
        built.kwargs,
        module_facts(model),
        renew=inputs.renew,
        drawn=draws.drawn(),
        spent_s=traced.forward_s,
        casting=casting,
    )
    return notes_on_chance([traced.modules, *again])


def _record(
    workload: Workload,
    optimizer: Optimizer | None,
    measured: _Measured,
    tensors: list[HeldTensor],
    environment: Environment,
) -> MemoryReport:
    traced = measured.traced
    sizes = [allocation.bytes for allocation in traced.trace.allocations]
    holding = hold(traced.trace, sizes, traced.modules, traced.calls)
    return MemoryReport(
        workload=workload,
        training=optimizer is not None,
        optimizer=optimizer,
        environment=environment,
        model_type=traced.model_type,
        tensors=tuple(held.row for held in tensors),
        parameters=totals(tensors, "parameter"),
        buffers=totals(tensors, "buffer"),
        inputs=totals(tensors, "input"),
        total=totals(tensors, "parameter", "buffer", "input"),
        resident_bytes=holding.resident_bytes,
        outside_bytes=holding.outside_bytes,
        peak=holding.peak,
        rows=holding.rows,
        timeline=holding.timeline,
        process=measured.process,
        allocator=measured.allocator,
        notes=traced.notes,
        memlab=measured.memlab,
    )
