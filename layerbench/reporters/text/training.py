"""The text report of a training profile: phases, blocks and layers, forward and backward."""

from __future__ import annotations

from layerbench import units
from layerbench.records.memory import Phase
from layerbench.records.timing import Summary
from layerbench.records.training_step import PhaseRow, TrainingProfile, TrainingRow
from layerbench.reporters import formatting
from layerbench.reporters.documents import PHASE_NAMES
from layerbench.reporters.text import layout as page
from layerbench.reporters.text.layout import Section


def render(record: TrainingProfile) -> str:
    """The whole report."""
    return page.joined(
        [
            _header(record),
            _phases(record),
            _memory(record),
            _blocks(record),
            _tree(record),
            _reconciliation(record),
            page.listed("Warnings", record.environment.warnings),
            page.listed("Notes", record.notes),
        ]
    )


def _header(record: TrainingProfile) -> Section:
    workload, environment = record.workload, record.environment
    threads = environment.machine.threads or record.plan.threads
    device = environment.device.name
    software = environment.software
    versions = {"python": software.python, **software.packages, "layerbench": software.layerbench}
    return [
        *page.titled(f"{formatting.model_name(workload)} on {workload.input}: a training step"),
        *page.void(environment),
        *page.field(
            "Model",
            f"{workload.model} ({record.model_type}), {units.count(record.parameters)} parameters",
        ),
        *page.field("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *page.field("Optimizer", record.optimizer),
        *page.field(
            "Device",
            device if threads is None else f"{device}, {formatting.plural(threads, 'thread')}",
        ),
        *page.field("Software", page.pairs(versions)),
        *page.field(
            "Plan", f"{record.plan.warmup} warm-up + {record.plan.iterations} measured rounds"
        ),
        *page.field("Date", f"{environment.started} to {environment.finished}"),
        f"{'Command':<10}{environment.command}",
    ]


def _phases(record: TrainingProfile) -> Section:
    step = record.step
    rate = record.workload.batch / step.mean if step.mean else 0.0
    cells = [_phase(phase, record) for phase in record.phases]
    cells.append(
        ["the step", *(formatting.ms(step, name) for name in _FIGURES), "100.0 %", step.verdict]
    )
    header = ["Phase", "mean ms", "std", "median", "p5", "p95", "share", ""]
    missed = page.wrapped(f"the step is {step.verdict}: {'; '.join(step.missed)}", "  ")
    return [
        f"One step, untouched: {units.per_second(rate)} images/s",
        *page.table(header, cells, "l.....rl"),
        *(missed if step.missed else []),
    ]


_FIGURES = ("mean", "std", "median", "p5", "p95")


def _phase(phase: PhaseRow, record: TrainingProfile) -> list[str]:
    share = phase.time.mean / record.step.mean if record.step.mean else 0.0
    return [
        PHASE_NAMES[phase.name],
        *(formatting.ms(phase.time, name) for name in _FIGURES),
        units.percent(share, digits=1),
        phase.time.verdict,
    ]


def _memory(record: TrainingProfile) -> Section:
    memory = record.memory
    if memory is None:
        return []
    peak = memory.peak
    owner = "outside the model" if peak.owner is None else f"in {peak.owner or 'the model itself'}"
    phases = ", ".join(f"{name} {units.bytes_(size)}" for name, size in memory.live.items())
    return [
        f"Memory of tensors: peak {units.bytes_(peak.bytes)} in the {peak.phase}, {owner}",
        *page.wrapped(
            f"parameters, buffers and input {units.bytes_(memory.resident)}, there all the time; "
            f"most alive in each phase: {phases}",
            "  ",
        ),
    ]


def _blocks(record: TrainingProfile) -> Section:
    rows = formatting.block_rows(record.rows)
    if not rows:
        return []
    cells = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            row.path,
            formatting.shape_list(row.input_shapes),
            *_times(row.forward, row.backward),
            _share(row, record),
        ]
        for row in rows
    ]
    header = ["#", "block", "path", "input shape", "forward ms", "backward ms", "back/forth"]
    return ["Blocks (medians)", *page.table([*header, "share"], cells, "rlll..rr")]


def _tree(record: TrainingProfile) -> Section:
    cells = [
        [
            page.branch(row.type, row.path, row.depth),
            str(row.calls),
            *_times(row.forward, row.backward),
            *_times(row.forward_self, row.backward_self)[:2],
            _bytes(row.kept),
            *(_bytes(row.live.get(phase)) for phase in _LIVE),
            formatting.remarks(formatting.not_called(row.calls, row.note), row.note),
        ]
        for row in record.rows
    ]
    header = [
        "layer", "calls", "forward ms", "backward ms", "back/forth", "self", "self back",
        "kept MiB", "live forward", "live backward", "",
    ]  # fmt: skip
    return ["Layers (medians; MiB)", *page.table(header, cells, "lr..r.....l")]


_LIVE: tuple[Phase, ...] = ("forward", "backward")


def _bytes(size: int | None) -> str:
    return "-" if size is None else units.mebibytes(size, unit=False)


def _times(forward: Summary | None, backward: Summary | None) -> list[str]:
    ratio = (
        f"{backward.median / forward.median:.2f}"
        if forward and backward and forward.median
        else "-"
    )
    return [formatting.ms(forward, "median"), formatting.ms(backward, "median"), ratio]


def _share(row: TrainingRow, record: TrainingProfile) -> str:
    """Of forward and backward together."""
    parts = sum(p.time.mean for p in record.phases if p.name in ("forward", "backward"))
    if row.forward is None or row.backward is None or not parts:
        return "-"
    return units.percent((row.forward.mean + row.backward.mean) / parts, digits=1)


def _reconciliation(record: TrainingProfile) -> Section:
    cost = units.percent(record.overhead - 1, digits=2)
    low, high = (
        units.percent(b - 1, digits=2) for b in (record.overhead_low, record.overhead_high)
    )
    return page.listed(
        "Reconciliation",
        [
            f"Untouched, a step takes {units.seconds(record.step.median)}; instrumented, "
            f"{units.seconds(record.instrumented_s)} (medians). Round by round, instrumented / "
            f"untouched differs by {cost} (95 % interval {low} to {high}).",
            f"The modules' own times add up to {record.forward_sum_ratio:.6f} of the forward and, "
            f"with {units.seconds(record.outside_s)} of the loss and autograd's start, to "
            f"{record.backward_sum_ratio:.6f} of the backward, in the instrumented steps.",
        ],
    )
