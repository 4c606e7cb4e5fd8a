"""The document of a training step: phases, blocks and layers, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from layerbench import units
from layerbench.analysis import disturbance
from layerbench.analysis.kernels import own_step_kernels
from layerbench.analysis.largest import largest, layers
from layerbench.analysis.launching import StepLaunching
from layerbench.analysis.portions import by_path, by_type
from layerbench.records.memory import PHASES, Phase
from layerbench.records.timing import DeviceRounds, Summary
from layerbench.records.training_step import (
    PhaseRow,
    TrainingMemory,
    TrainingProfile,
    TrainingRow,
)
from layerbench.records.view import USUAL, Sort, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, device, kernels, layout, screens, shared, trifles

_TIMES = ("forward", "forward_self", "backward", "backward_self")
_AGAIN = ("recomputation", "recomputation_self")


def document(record: TrainingProfile, view: View = USUAL) -> layout.Document:
    """The phases of a whole step first, then what its modules take of them."""
    workload, environment, plan = record.workload, record.environment, record.plan
    place, conditions, software, *rest = shared.surroundings(environment, plan.threads)
    model = f"{workload.model} ({record.model_type}), {units.count(record.parameters)} parameters"
    fields = [
        ("Model", model),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *formatting.files(workload),
        ("Optimizer", record.optimizer),
        place,
        conditions,
        software,
        ("Plan", f"{plan.warmup} warm-up + {plan.iterations} measured rounds"),
        *rest,
    ]
    return layout.Document(
        title=f"{shared.title(workload)}: a training step",
        head=_first_screen(record, view),
        sections=[
            _phases(record),
            _micro_batches(record),
            device.section(record),
            _memory(record),
            _blocks(record),
            _tree(record, view),
            kernels.every(record, view),
            _reconciliation(record),
            *shared.warnings_and_notes(record),
            shared.not_measured(record.absent),
            layout.what_ran(fields),
        ],
    )


def _first_screen(record: TrainingProfile, view: View) -> list[layout.Part]:
    both = _both_s(record)
    blocks = ((row.type, row.path, _time_s(row)) for row in record.rows if row.block)
    return [
        *shared.weaknesses(record.environment, record.step, busy=disturbance.too_busy(record)),
        layout.Text(shared.answer(record.step, "a step", f"{_rate(record)} images/s")),
        layout.Text(device.needs(record)),
        layout.Text(_ran(record)),
        kernels.longest(record, view) if kernels.chosen(record, view) else _slowest(record, view),
        layout.Fields(
            [
                ("Phases", shared.phases_line(record.phases, record.step, view.width)),
                ("By type", screens.sums(by_type(layers(record, "self")), view.width)),
                ("By block", screens.sums(by_path(blocks, both), view.width)),
                ("Memory", _peak(record.memory)),
            ]
        ),
    ]


def _ran(record: TrainingProfile) -> str:
    workload = record.workload
    return shared.ran(
        record.model_type,
        record.parameters,
        units.shape(workload.shape),
        record.optimizer,
        *dict.fromkeys([workload.arithmetic, *formatting.variant(workload)]),
        record.environment.device.name,
        formatting.plural(record.step.n, "step"),
    )


def _slowest(record: TrainingProfile, view: View) -> layout.Section:
    """The modules that take most in forward and backward together."""
    most = largest(record, view)
    if not most:
        return screens.none_shown(view.type, (row.type for row in record.rows))
    columns = _Columns.of(record)
    cells = [_slow(each.row, each.share, each.of, columns) for each in most]
    table = screens.table_of(cells, {"path": "c", "type": "l", **_POINTED}, _OMITTED_FIRST)
    what = {"params": "Most parameters", "memory": "Most kept for the backward"}
    share = f"{units.percent(most[0].share, digits=1)} of all"
    title = what.get(most[0].of, "Slowest in forward and backward")
    return layout.Section(
        screens.first_named(title, most[0].row.path, most[0].row.type, share), [table]
    )


_POINTED = {
    "forward ms": ".",
    "backward ms": ".",
    "recomputed ms": ".",
    "host ms": ".",
    "bound by": "l",
}
_OMITTED_FIRST = ("back/forth", "kept", "bound by", "input→output")


@dataclass(frozen=True)
class _Columns:
    """What a record knows of its rows besides times on one clock.

    Attributes:
        host: whether the host took its own times, beside an accelerator's.
        again: whether forwards ran again in the backward.
        own_kernels: how many of the device's each row ran itself, by path; nothing where nobody saw
            them.
        launching: which rows are launch-bound.
        rounds: what an accelerator did in rounds of their own.
    """

    host: bool
    again: bool
    own_kernels: Mapping[str, int]
    launching: StepLaunching
    rounds: DeviceRounds | None

    @classmethod
    def of(cls, record: TrainingProfile) -> _Columns:
        """Those of a record."""
        host = any(row.host_forward for row in record.rows)
        again = record.recomputation is not None
        launching = StepLaunching.of(record)
        return cls(host, again, own_step_kernels(record), launching, record.device_rounds)

    @property
    def align(self) -> str:
        """The letters of `times`."""
        again, host = "." * self.again, "." * self.host
        return f"..{again}r{host}{'l' * self.launching.waits}{'r' * bool(self.own_kernels)}"

    def times(self, row: TrainingRow) -> dict[str, str]:
        """The cells of a row with all that is in it."""
        mark = shared.LAUNCH_BOUND if self.launching.bounds(row) else ""
        return {
            "forward ms": formatting.ms(row.forward, "median"),
            "backward ms": formatting.ms(row.backward, "median"),
            **self.recomputed(row.recomputation),
            "back/forth": _ratio(row.forward, row.backward),
            **self.host_time(*row.host_times),
            **({layout.MARK: mark} if self.launching.waits else {}),
            **self.ran(row.kernels),
        }

    def host_time(self, *times: Summary | None) -> dict[str, str]:
        """What the host took for both, where it took times of its own."""
        return {"host ms": _sum_of(times)} if self.host else {}

    def recomputed(self, time: Summary | None) -> dict[str, str]:
        """What running again took, where anything ran again."""
        return {"recomputed ms": formatting.ms(time, "median")} if self.again else {}

    def ran(self, kernels: int | None) -> dict[str, str]:
        """How many kernels ran, where somebody saw any."""
        return {"kernels": formatting.dash(kernels, units.count)} if self.own_kernels else {}

    def live_again(self, row: TrainingRow) -> dict[str, str]:
        """The most bytes alive while it ran again, where anything did."""
        size = formatting.mebibytes(row.live.get("recomputation"))
        return {"live recomputed": size} if self.again else {}

    def legend(self, record: TrainingProfile) -> layout.Text:
        """What the mark means, where it occurs."""
        occurs = any(map(self.launching.bounds, record.rows))
        return layout.Text(shared.LAUNCH_BOUND_MEANS if occurs else "", indented=False)


def _slow(row: TrainingRow, share: float, of: Sort, columns: _Columns) -> dict[str, str]:
    with_others = of == "time"
    forward, backward, again = row.times if with_others else row.own_times
    host = row.host_times if with_others else row.own_host_times
    kernels = row.kernels if with_others else columns.own_kernels.get(row.path)
    launching = columns.launching
    bound = launching.bounds(row) if with_others else launching.bounds_own(row)
    return {
        "path": row.path or screens.MODEL,
        "type": row.type,
        "input→output": screens.shapes(row.input_shapes, row.output_shapes),
        "forward ms": formatting.ms(forward, "median"),
        "backward ms": formatting.ms(backward, "median"),
        **columns.recomputed(again),
        "back/forth": _ratio(forward, backward),
        "share": units.percent(share, digits=1),
        **columns.host_time(*host),
        **columns.ran(kernels),
        "bound by": "launch" if bound else "-",
        "kept": formatting.dash(row.kept, units.bytes_),
    }


def _ratio(forward: Summary | None, backward: Summary | None) -> str:
    if forward and backward and forward.median:
        return f"{backward.median / forward.median:.2f}"
    return "-"


def _rate(record: TrainingProfile) -> str:
    step = record.step
    return units.per_second(record.images / step.mean if step.mean else 0.0)


def _taken(row: TrainingRow) -> float | None:
    """What it takes with all that is in it; one that was not called has a row that says so."""
    return _time_s(row) if row.calls else None


def _time_s(row: TrainingRow) -> float:
    return sum(time.mean for time in row.times if time)


def _both_s(record: TrainingProfile) -> float:
    """Forward and backward together, in the steps of the rows: their own times add up to it."""
    return fsum(time.mean for row in record.rows for time in row.own_times if time)


def _peak(memory: TrainingMemory | None) -> str:
    if memory is None:
        return ""
    peak = memory.peak
    owner = "outside the model" if peak.owner is None else f"in {peak.owner or 'the model itself'}"
    return f"peak {units.bytes_(peak.bytes)} in the {peak.phase}, {owner}"


def _phases(record: TrainingProfile) -> layout.Section:
    step = record.step
    heading = f"One step, untouched: {_rate(record)} images/s"
    missed = f"the step is {step.verdict}: {'; '.join(step.missed)}" if step.missed else ""
    bound = StepLaunching.of(record).bounds_phase
    return shared.phase_table(
        heading,
        record.phases,
        step,
        layout.Text(missed),
        bound=bound,
        recomputation=record.recomputation,
    )


def _micro_batches(record: TrainingProfile) -> layout.Section:
    """A row for each micro-batch of a step, and one for the optimizer; nothing for a single one."""
    phases = [phase for phase in record.phases if phase.micro_batches]
    rows = [
        {
            "#": str(number),
            **{
                f"{shared.PHASE_NAMES[phase.name]} ms": formatting.ms(time, "median")
                for phase, time in zip(phases, times, strict=True)
            },
        }
        for number, times in enumerate(zip(*(p.micro_batches for p in phases), strict=True), 1)
    ]
    title = f"Micro-batches of {record.workload.batch} images (medians)"
    return layout.table(title, rows, f"r{'.' * len(phases)}")


def _memory(record: TrainingProfile) -> layout.Section:
    memory = record.memory
    if memory is None:
        return layout.listed("", [])
    phases = ", ".join(f"{name} {units.bytes_(size)}" for name, size in memory.live.items())
    return layout.listed(
        f"Memory of tensors: {_peak(memory)}",
        [
            f"parameters, buffers and input {units.bytes_(memory.resident)}, there all the time; "
            f"most alive in each phase: {phases}"
        ],
    )


def _blocks(record: TrainingProfile) -> layout.Section:
    columns = _Columns.of(record)
    blocks = list(formatting.block_rows(record.rows))
    rows = [
        {
            **shared.block_cells(row),
            "input shape": formatting.shape_list(row.input_shapes),
            **columns.times(row),
            "share": _share(row, record),
        }
        for row in blocks
    ]
    remarks = [device.below_in_step(record.device_rounds, row) for row in blocks]
    if any(remarks):
        rows = [{**row, "": remark} for row, remark in zip(rows, remarks, strict=True)]
    align = f"rlcl{columns.align}r{'l' * any(remarks)}"
    legend = columns.legend(record)
    return layout.table("Blocks (medians)", rows, align, legend, omitted_first=("input shape",))


def _tree(record: TrainingProfile, view: View) -> layout.Section:
    columns = _Columns.of(record)
    shown = [row for row in record.rows if view.has(row.type, row.depth)]
    runs = trifles.in_runs(shown, view, _taken, _both_s(record), trifles.LEAST_OF_MORE)
    rows = [
        _layer(run[0], view, columns) if len(run) == 1 else _folded(run, view, columns)
        for run in runs
    ]
    return layout.table(
        "Layers (medians; MiB)",
        rows,
        f"lr{columns.align}.....{'.' * columns.again}l",
        columns.legend(record),
        formats=layout.FULL,
        omitted_first=("back/forth", "live forward", "calls"),
    )


def _layer(row: TrainingRow, view: View, columns: _Columns) -> dict[str, str]:
    return {
        "layer": shared.branch(row, view),
        "calls": str(row.calls),
        **columns.times(row),
        "self": formatting.ms(row.forward_self, "median"),
        "self back": formatting.ms(row.backward_self, "median"),
        "kept MiB": formatting.mebibytes(row.kept),
        "live forward": formatting.mebibytes(row.live.get("forward")),
        "live backward": formatting.mebibytes(row.live.get("backward")),
        **columns.live_again(row),
        "": formatting.remarks(
            device.below_in_step(columns.rounds, row), formatting.note_on(row.calls, row.note)
        ),
    }


def _folded(rows: Sequence[TrainingRow], view: View, columns: _Columns) -> dict[str, str]:
    """One row for neighbours that take next to nothing."""
    outer = trifles.outer(rows)
    return {
        **dict.fromkeys(_layer(rows[0], view, columns), ""),
        "layer": trifles.label(rows, trifles.LEAST_OF_MORE),
        "forward ms": _sum_of([row.forward for row in outer]),
        "backward ms": _sum_of([row.backward for row in outer]),
        **({"recomputed ms": _sum_of([r.recomputation for r in outer])} if columns.again else {}),
    }


def _sum_of(times: Sequence[Summary | None]) -> str:
    """Of medians, to the digits that all their intervals leave."""
    there = [time for time in times if time is not None]
    if not there:
        return "-"
    half_width = fsum(map(formatting.half_width, there))
    return units.milliseconds(fsum(time.median for time in there), half_width)


def _share(row: TrainingRow, record: TrainingProfile) -> str:
    """Of forward and backward together."""
    known = row.forward is not None and row.backward is not None
    return formatting.part(_time_s(row) if known else None, _both_s(record))


def _reconciliation(record: TrainingProfile) -> layout.Section:
    cost = units.percent(record.overhead - 1, digits=2)
    low, high = (
        units.percent(b - 1, digits=2) for b in (record.overhead_low, record.overhead_high)
    )
    rounds = record.device_rounds
    # The step has the device's clock, and the instrumented one no event to have it, too.
    clocks = (
        (" on the device's clock", " on the host's", ", on the latter clock,")
        if rounds
        else ("", "", ",")
    )
    steps = "instrumented steps"
    if rounds:
        steps = "profiled steps" if rounds.how == "kernels" else "steps with events"
    lines = [
        f"Untouched, a step takes {units.seconds(record.step.median)}{clocks[0]}; instrumented, "
        f"{units.seconds(record.instrumented_s)}{clocks[1]} (medians). Round by round{clocks[2]} "
        f"instrumented / untouched differs by {cost} (95 % interval {low} to {high}).",
        f"The modules' own times add up to {record.forward_sum_ratio:.6f} of the forward and, "
        f"with {units.seconds(record.outside_s)} of the loss and autograd's start, to "
        f"{record.backward_sum_ratio:.6f} of the backward, in the {steps}.",
    ]
    if rounds and rounds.how == "kernels":
        lines.append(
            "Times of layers on the device are their kernels', which the profiler saw in steps of "
            "their own; host times are from steps without an event in the queue."
        )
    if rounds:
        lines += _hooks(record)
    return layout.Section("Reconciliation", [layout.Lines(lines)], formats=layout.FULL)


def _hooks(record: TrainingProfile) -> Iterator[str]:
    """What the host's times of the backward hold besides."""
    modules = record.rows[0].host_backward if record.rows else None
    untouched = next((phase.host for phase in record.phases if phase.name == "backward"), None)
    if modules is not None and untouched is not None:
        yield (
            "Host times of the backward hold a call of Python where each module's nodes begin: "
            f"with them the modules' backward takes the host {formatting.time(modules, 'median')}, "
            f"without them the whole backward {formatting.time(untouched, 'median')}."
        )


def cautions(record: TrainingProfile) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, record.step, busy=disturbance.too_busy(record))


def rows(record: TrainingProfile, view: View = USUAL) -> cells.Rows:
    """The step, its phases and every module, in common columns; each kind fills some of them.

    The kernels follow, if they are wanted.
    """
    columns = _Columns.of(record)
    times = (*_TIMES, *_AGAIN) if columns.again else _TIMES
    if columns.host:
        times = (*times, *(f"host_{name}" for name in times))
    names = ("time", *(("host", "busy") if record.device_rounds else ()), *times)
    alive = tuple(p for p in PHASES if columns.again or p != "recomputation")
    step = _row("step", "", record.model_type, {"time": record.step}, names, alive)
    phases = [_phase_row(phase, columns, names, alive) for phase in record.phases]
    modules = [
        {
            **_row("module", row.path, row.type, {n: getattr(row, n) for n in times}, names, alive),
            "kept_bytes": row.kept,
            **{f"live_{phase}_bytes": row.live.get(phase) for phase in alive},
            **_on_device(columns, row.kernels, columns.launching.bounds(row)),
        }
        for row in record.rows
    ]
    ran_by_device = [
        _row("kernel", kernel.module, "", {"time": kernel.time}, names, alive)
        | kernels.row(kernel, record)
        for kernel in kernels.listed(record, view)
    ]
    ran = {**cells.what_ran(record.workload), "optimizer": record.optimizer}
    every = [step | device.columns(record), *phases, *modules, *ran_by_device]
    return ran | cells.origin(record, "commit"), every


def _phase_row(
    phase: PhaseRow, columns: _Columns, names: Sequence[str], alive: Sequence[Phase]
) -> cells.Cells:
    times = {"time": phase.time, "host": phase.host, "busy": phase.busy}
    bound = columns.launching.bounds_phase(phase)
    return _row("phase", phase.name, "", times, names, alive) | _on_device(
        columns, phase.kernels, bound
    )


def _on_device(columns: _Columns, kernels: int | None, bound: bool) -> cells.Cells:
    """The columns of a row that only an accelerator's have."""
    return {"kernels": kernels, "launch_bound": bound} if columns.host else {}


def _row(
    kind: str,
    path: str,
    type: str,
    times: Mapping[str, Summary | None],
    names: Sequence[str],
    alive: Sequence[Phase],
) -> cells.Cells:
    row: cells.Cells = {"kind": kind, "path": path, "type": type, "kept_bytes": None}
    row |= dict.fromkeys(f"live_{phase}_bytes" for phase in alive)
    for name in names:
        row |= cells.figures(name, times.get(name), "mean", "std", "median", "p5", "p95")
    return row
