"""What stands above the rows: what ran, the whole model's figures, where they come from."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench import units
from layerbench.records.bundle import Bundle
from layerbench.records.comparison import Comparison
from layerbench.records.environment import Environment
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import OWN_WEIGHTS, StepOptions
from layerbench.reporters import formatting, freeing
from layerbench.reporters.documents import device, energy, shared

AnyMemory = MemoryReport | MemoryEstimate


def environment(bundle: Bundle) -> Environment | None:
    """Of the measurement; ``None`` for what no machine was needed for."""
    for record in (bundle.profile, bundle.training, bundle.memory):
        if record is not None and not isinstance(record, MemoryEstimate):
            return record.environment
    return bundle.comparison.contender.environment if bundle.comparison else None


def title(bundle: Bundle) -> str:
    """The model."""
    return bundle.workload.model


def subtitle(bundle: Bundle) -> str:
    """Its input, and how it ran."""
    workload = bundle.workload
    usual = [workload.arithmetic, workload.mode]
    own = ["own weights"] if workload.weights == OWN_WEIGHTS else []
    others = [setting for setting in formatting.variant(workload) if setting not in usual]
    shape = f"{workload.input} {units.shape(workload.shape)}"
    return ", ".join([shape, *usual, *others, *own])


First = Bundle | Comparison | Profile | Structure | AnyMemory | TrainingProfile | LatencyEstimate


def first_record(bundle: Bundle) -> First | None:
    """The record whose first screen a page begins with: what is compared, a profile, the only one.

    Where a profile has a memory report beside it, that is the bundle, whose screen has the peak.
    """
    if bundle.comparison is not None:
        return bundle.comparison
    if bundle.profile and bundle.memory:
        return bundle
    every = (bundle.structure, bundle.memory, bundle.training, bundle.latency)
    others = [record for record in every if record]
    return bundle.profile or (others[0] if len(others) == 1 else None)


def _said(bundle: Bundle) -> tuple[First | None, ...]:
    """The records whose figures the first screen says."""
    first = first_record(bundle)
    return (bundle.profile, bundle.memory) if first is bundle else (first,)


def facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """The whole model's figures that the first screen does not say, as label and text."""
    profile, structure, memory = bundle.profile, bundle.structure, bundle.memory
    said = _said(bundle)

    def is_said(record: First | None) -> bool:
        return any(record is one for one in said)

    if profile and not is_said(profile):
        whole = profile.whole
        yield "Latency", f"{formatting.time(whole, 'median')}, {whole.verdict}"
        if whole.mean:
            yield "Throughput", f"{formatting.fps(profile)} images/s"
    if bundle.training and not is_said(bundle.training):
        yield "Training step", units.seconds(bundle.training.step.median)
    if bundle.latency and not is_said(bundle.latency):
        latency = bundle.latency
        yield f"On {latency.card.title}", f"{units.seconds(latency.seconds)}, predicted"
    parameters = _parameters(bundle)
    if parameters is not None and not any(one and is_said(one) for one in (profile, structure)):
        yield "Parameters", units.count(parameters, short=True)
    if structure and not is_said(structure):
        yield "Forward", f"{units.flops(structure.flops)}, {units.macs(structure.macs)}"
    elif profile and profile.layers and profile.layers[0].flops is not None:
        yield "Forward", units.flops(profile.layers[0].flops)
    if memory and not is_said(memory):
        yield from _peak(memory)
    if profile and profile.reconciliation and profile.device_rounds is None:
        yield "Layers less the whole", units.percent(profile.reconciliation.layers_gap, digits=1)
    for timed in (profile, bundle.training):
        if timed and timed.device_rounds and not is_said(timed):
            yield "Device" if timed is profile else "Device in a step", device.needs(timed)


def _peak(memory: AnyMemory) -> Iterator[tuple[str, str]]:
    if isinstance(memory, MemoryReport):
        yield "Memory at the peak", units.bytes_(memory.peak.bytes)
        return
    reserved = units.bytes_(memory.reserved_bytes)
    yield f"Memory on {memory.device}", f"{reserved} reserved, predicted"


def _parameters(bundle: Bundle) -> int | None:
    record = bundle.any_with_rows()
    if isinstance(record, MemoryReport):
        return record.parameters.elements
    if isinstance(record, MemoryEstimate | LatencyEstimate):
        return record.rows[0].parameters if record.rows else 0
    return None if record is None else record.parameters


def source(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Where the figures come from, as label and text."""
    measured = environment(bundle)
    computed = bundle.structure or bundle.memory or bundle.latency
    if measured is not None:
        yield from _measured(measured)
    elif computed and not isinstance(computed, MemoryReport):
        yield "Software", f"torch {computed.torch}, layerbench {computed.layerbench}"
    profile = bundle.profile or bundle.training
    if profile:
        plan = profile.plan
        yield (
            "Plan",
            f"{plan.warmup} warm-up and {plan.iterations} measured rounds"
            + (f" in each of {plan.processes} processes" if plan.processes > 1 else ""),
        )
    if bundle.profile:
        yield from device.source(bundle.profile)
        if bundle.profile.energy is not None:
            how = (text for _, text in energy.fields(bundle.profile.energy))
            yield "Energy", "; ".join([energy.headline(bundle.profile, named=False), *how])
    if bundle.training:
        yield from device.source(bundle.training)
        yield from device.phases(bundle.training)
    if bundle.structure:
        yield (
            "Structure",
            "shapes alone, no weights" if bundle.structure.how == "meta" else "one run on the CPU",
        )


def _measured(environment: Environment) -> Iterator[tuple[str, str]]:
    device, machine = environment.device, environment.machine
    yield "Device", f"{device.name} ({device.kind})"
    yield "Host", ", ".join([machine.cpu, *shared.cores(machine, machine.threads)])
    for name, value in device.details.items():
        yield name.capitalize(), value
    if measured := shared.conditions(environment):
        yield "While measured", measured
    if machine.governor:
        yield "Governor", machine.governor
    yield "Software", shared.versions(environment.software)
    yield "Date", f"{environment.started} to {environment.finished}"
    if environment.software.commit:
        yield "Commit", shared.commit(environment.software)
    yield "Command", environment.command


def notes(bundle: Bundle) -> Iterator[str]:
    """What the records say that a reader should know, each once."""
    measured = [record.absent for record in (bundle.profile, bundle.training) if record]
    for absent in (*measured, bundle.absent):
        yield from (f"{what} not measured: {why}" for what, why in absent.items())
    yield from unlike(bundle)
    yield from device.doubts(bundle.profile) if bundle.profile else ()
    freed = freeing.in_all(bundle.profile) if bundle.profile else ""
    yield from [freed] if freed else []
    records = (
        bundle.profile,
        bundle.training,
        bundle.structure,
        bundle.memory,
        bundle.latency,
        bundle.comparison,
    )
    yield from dict.fromkeys(note for record in records if record for note in record.notes)


_MAY_DIFFER = (
    *(
        "arithmetic",
        "mode",
        "memory_format",
        "compile",
        "cuda_graph",
        "ddp",
        "weights",
        "checkpoint",
        "inputs",
    ),
    *StepOptions.model_fields,
)


def unlike(bundle: Bundle) -> Iterator[str]:
    """What is not the same in all records, though model and input are."""
    first = bundle.any_with_rows()
    for record in (bundle.training, bundle.structure, bundle.memory, bundle.latency):
        if first is None or record is None or record is first:
            continue
        kind, ours = record.record, record.workload
        for what in _MAY_DIFFER:
            if getattr(ours, what) != getattr(first.workload, what):
                named = "precision" if what == "arithmetic" else what.replace("_", " ")
                yield (
                    f"the {kind} is of another {named}: {getattr(ours, what)}, "
                    f"not {getattr(first.workload, what)}"
                )
        measured, here = getattr(record, "environment", None), environment(bundle)
        if measured is not None and here is not None and measured.device != here.device:
            yield f"the {kind} is from another device: {measured.device.name}"
