"""The document of a training step: phases, blocks and layers, forward and backward."""

from __future__ import annotations

from layerbench import units
from layerbench.records.training_step import TrainingProfile, TrainingRow
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared


def document(record: TrainingProfile) -> layout.Document:
    """The phases of a whole step first, then what its modules take of them."""
    workload, environment, plan = record.workload, record.environment, record.plan
    device, software, *rest = shared.surroundings(environment, plan.threads)
    model = f"{workload.model} ({record.model_type}), {units.count(record.parameters)} parameters"
    fields = [
        ("Model", model),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        ("Optimizer", record.optimizer),
        device,
        software,
        ("Plan", f"{plan.warmup} warm-up + {plan.iterations} measured rounds"),
        *rest,
    ]
    return layout.Document(
        title=f"{shared.title(workload)}: a training step",
        head=[*shared.void(environment.machine.too_busy), layout.Fields(fields)],
        sections=[
            _phases(record),
            _memory(record),
            _blocks(record),
            _tree(record),
            _reconciliation(record),
            *shared.remarks(record),
        ],
    )


def _phases(record: TrainingProfile) -> layout.Section:
    step = record.step
    rate = record.workload.batch / step.mean if step.mean else 0.0
    heading = f"One step, untouched: {units.per_second(rate)} images/s"
    missed = f"the step is {step.verdict}: {'; '.join(step.missed)}" if step.missed else ""
    return shared.phase_table(heading, record.phases, step, layout.Text(missed))


def _memory(record: TrainingProfile) -> layout.Section:
    memory = record.memory
    if memory is None:
        return layout.listed("", [])
    peak = memory.peak
    owner = "outside the model" if peak.owner is None else f"in {peak.owner or 'the model itself'}"
    phases = ", ".join(f"{name} {units.bytes_(size)}" for name, size in memory.live.items())
    return layout.listed(
        f"Memory of tensors: peak {units.bytes_(peak.bytes)} in the {peak.phase}, {owner}",
        [
            f"parameters, buffers and input {units.bytes_(memory.resident)}, there all the time; "
            f"most alive in each phase: {phases}"
        ],
    )


def _blocks(record: TrainingProfile) -> layout.Section:
    rows = [
        {
            **shared.block_cells(row),
            "input shape": formatting.shape_list(row.input_shapes),
            **_times(row),
            "share": _share(row, record),
        }
        for row in formatting.block_rows(record.rows)
    ]
    return layout.table("Blocks (medians)", rows, "rlcl..rr")


def _tree(record: TrainingProfile) -> layout.Section:
    rows = [
        {
            "layer": shared.branch(row),
            "calls": str(row.calls),
            **_times(row),
            "self": formatting.ms(row.forward_self, "median"),
            "self back": formatting.ms(row.backward_self, "median"),
            "kept MiB": formatting.mebibytes(row.kept),
            "live forward": formatting.mebibytes(row.live.get("forward")),
            "live backward": formatting.mebibytes(row.live.get("backward")),
            "": formatting.remarks(formatting.not_called(row.calls, row.note), row.note),
        }
        for row in record.rows
    ]
    return layout.table("Layers (medians; MiB)", rows, "lr..r.....l", formats=layout.FULL)


def _times(row: TrainingRow) -> dict[str, str]:
    forward, backward = row.forward, row.backward
    ratio = "-"
    if forward and backward and forward.median:
        ratio = f"{backward.median / forward.median:.2f}"
    return {
        "forward ms": formatting.ms(forward, "median"),
        "backward ms": formatting.ms(backward, "median"),
        "back/forth": ratio,
    }


def _share(row: TrainingRow, record: TrainingProfile) -> str:
    """Of forward and backward together."""
    parts = sum(p.time.mean for p in record.phases if p.name in ("forward", "backward"))
    if row.forward is None or row.backward is None or not parts:
        return "-"
    return units.percent((row.forward.mean + row.backward.mean) / parts, digits=1)


def _reconciliation(record: TrainingProfile) -> layout.Section:
    cost = units.percent(record.overhead - 1, digits=2)
    low, high = (
        units.percent(b - 1, digits=2) for b in (record.overhead_low, record.overhead_high)
    )
    lines = [
        f"Untouched, a step takes {units.seconds(record.step.median)}; instrumented, "
        f"{units.seconds(record.instrumented_s)} (medians). Round by round, instrumented / "
        f"untouched differs by {cost} (95 % interval {low} to {high}).",
        f"The modules' own times add up to {record.forward_sum_ratio:.6f} of the forward and, "
        f"with {units.seconds(record.outside_s)} of the loss and autograd's start, to "
        f"{record.backward_sum_ratio:.6f} of the backward, in the instrumented steps.",
    ]
    return layout.Section("Reconciliation", [layout.Lines(lines)], formats=layout.FULL)
