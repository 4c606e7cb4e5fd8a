"""What stands above the rows: what ran, the whole model's figures, where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerbench import units
from layerbench.records.bundle import Bundle
from layerbench.records.environment import Environment
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import OWN_WEIGHTS, Workload


def _workload(bundle: Bundle) -> Workload:
    known = bundle.any_with_rows()
    if known is not None:
        return known.workload
    assert bundle.comparison is not None
    return bundle.comparison.contender.workload


def environment(bundle: Bundle) -> Environment | None:
    """Of the measurement; ``None`` for what no machine was needed for."""
    for known in (bundle.profile, bundle.training, bundle.memory):
        if isinstance(known, Profile | TrainingProfile | MemoryReport):
            return known.environment
    return bundle.comparison.contender.environment if bundle.comparison else None


def title(bundle: Bundle) -> str:
    """The model."""
    return _workload(bundle).model


def subtitle(bundle: Bundle) -> str:
    """Its input, and how it ran."""
    workload = _workload(bundle)
    parts = [f"{workload.input} {units.shape(workload.shape)}", workload.dtype, workload.mode]
    if workload.memory_format != "contiguous":
        parts.append(workload.memory_format)
    if workload.compile:
        parts.append("compiled")
    if workload.weights is not None:
        own = workload.weights == OWN_WEIGHTS
        parts.append("own weights" if own else f"weights {workload.weights}")
    return ", ".join(parts)


def facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """The whole model's figures, as label and text."""
    profile, structure, memory = bundle.profile, bundle.structure, bundle.memory
    if profile:
        whole = profile.whole
        half = (whole.ci_high - whole.ci_low) / 2
        yield "Latency", f"{units.seconds(whole.median, half)}, {whole.verdict}"
        if whole.mean:
            yield "Throughput", f"{units.per_second(profile.workload.batch / whole.mean)} images/s"
    if bundle.training:
        yield "Training step", units.seconds(bundle.training.step.median)
    known = bundle.any_with_rows()
    if known is not None:
        yield "Parameters", _parameter_text(known)
    if structure:
        yield "Forward", f"{units.flops(structure.flops)}, {units.macs(structure.macs)}"
    if isinstance(memory, MemoryReport):
        yield "Memory at the peak", units.bytes_(memory.peak.bytes)
    elif memory:
        yield (
            f"Memory on {memory.device}",
            f"{units.bytes_(memory.reserved_bytes)} reserved, predicted",
        )
    if profile and profile.reconciliation:
        yield "Layers less the whole", units.percent(profile.reconciliation.layers_gap, digits=1)


def _parameter_text(
    known: Profile | Structure | MemoryReport | MemoryEstimate | TrainingProfile,
) -> str:
    if isinstance(known, MemoryReport):
        return units.count(known.parameters.elements, short=True)
    if isinstance(known, MemoryEstimate):
        return units.count(known.rows[0].parameters if known.rows else 0, short=True)
    return units.count(known.parameters, short=True)


def source(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Where the figures come from, as label and text."""
    room = environment(bundle)
    profile = bundle.profile or bundle.training
    if room:
        device, machine = room.device, room.machine
        yield "Device", f"{device.name} ({device.kind})"
        yield (
            "Host",
            f"{machine.cpu}, {machine.cores} cores"
            + (f", {machine.threads} threads" if machine.threads else ""),
        )
        for name, value in device.details.items():
            yield name.capitalize(), value
        if machine.governor:
            yield "Governor", machine.governor
        software = room.software
        versions = {
            "Python": software.python,
            **software.packages,
            "layerbench": software.layerbench,
        }
        yield "Software", ", ".join(f"{name} {version}" for name, version in versions.items())
        yield "Date", f"{room.started} to {room.finished}"
        if software.commit:
            yield "Commit", software.commit + (" with changes" if software.dirty else "")
        yield "Command", room.command
    elif bundle.structure or bundle.memory:
        made = bundle.structure or bundle.memory
        assert isinstance(made, Structure | MemoryEstimate)
        yield "Software", f"torch {made.torch}, layerbench {made.layerbench}"
    if profile:
        plan = profile.plan
        yield (
            "Plan",
            f"{plan.warmup} warm-up and {plan.iterations} measured rounds"
            + (f" in each of {plan.processes} processes" if plan.processes > 1 else ""),
        )
    if bundle.structure:
        yield (
            "Structure",
            "shapes alone, no weights" if bundle.structure.how == "meta" else "one run on the CPU",
        )


def notes(bundle: Bundle) -> Iterator[str]:
    """What the records say that a reader should know, each once."""
    known: Mapping[str, str] = bundle.profile.absent if bundle.profile else {}
    yield from (f"{what} not measured: {why}" for what, why in known.items())
    yield from _unlike(bundle)
    seen: set[str] = set()
    for record in (
        bundle.profile,
        bundle.training,
        bundle.structure,
        bundle.memory,
        bundle.comparison,
    ):
        for note in record.notes if record else ():
            if note not in seen:
                seen.add(note)
                yield note


def _unlike(bundle: Bundle) -> Iterator[str]:
    """What is not the same in all records, though model and input are."""
    first = bundle.any_with_rows()
    for record in (bundle.training, bundle.structure, bundle.memory):
        if first is None or record is None or record is first:
            continue
        kind, ours = record.record, record.workload
        for what in ("dtype", "mode", "memory_format", "compile", "weights"):
            if getattr(ours, what) != getattr(first.workload, what):
                yield (
                    f"the {kind} is of another {what.replace('_', ' ')}: {getattr(ours, what)}, "
                    f"not {getattr(first.workload, what)}"
                )
        room = getattr(record, "environment", None)
        known = environment(bundle)
        if room is not None and known is not None and room.device != known.device:
            yield f"the {kind} is from another device: {room.device.name}"
