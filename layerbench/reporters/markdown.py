"""GitHub Markdown: the whole model and its blocks, to paste into an issue or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from layerbench import units
from layerbench.records.comparison import ComparedRow, Comparison
from layerbench.records.detection_estimate import DetectionEstimates
from layerbench.records.detection_run import DetectionRun
from layerbench.records.memory import MemoryEstimate, MemoryReport, MemoryRow
from layerbench.records.structure import Structure
from layerbench.records.sweep import Sweep
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_run import TrainingRun
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Frozen
from layerbench.reporters import comparison_rows, formatting
from layerbench.reporters.documents import document
from layerbench.text import shown

NAME = "md"
SUFFIX = ".md"


def render(record: Frozen) -> str:
    """The figures of the whole and, where the record has layers, the block table.

    Text of the record can neither begin a table's next cell nor markup.
    """
    return composed(shown(record, formatting.markdown))


@singledispatch
def composed(record: Frozen) -> str:
    """As `render`, with the record's text as it is."""
    raise TypeError(f"no Markdown for a {type(record).__name__}")


def _document(record: Frozen) -> str:
    found = document(record)
    fields = [f"- {name}: {text}" for name, text in found.fields if text and name != "Command"]
    parts = [f"### {found.title}", "\n".join(fields)]
    for table in found.tables:
        if table.rows:
            align = table.align.replace(".", "r")
            parts += [
                f"{table.title}:",
                formatting.markdown_table(table.header, table.rows, align).rstrip(),
            ]
    for title, lines in found.lists:
        if lines:
            parts.append("\n".join([f"{title}:", "", *(f"- {line}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def _training(record: TrainingProfile) -> str:
    phases = [
        [phase.name, formatting.ms(phase.time, "mean"), formatting.ms(phase.time, "median"),
         phase.time.verdict]
        for phase in record.phases
    ]  # fmt: skip
    blocks = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            f"`{row.path}`",
            formatting.ms(row.forward, "median"),
            formatting.ms(row.backward, "median"),
        ]
        for row in formatting.block_rows(record.rows)
    ]
    names = ["#", "Block", "Path", "Forward ms", "Backward ms"]
    workload = record.workload
    parts = [
        f"### {formatting.model_name(workload)} on {workload.input}: a training step with "
        f"{record.optimizer}, {record.environment.device.name}",
        *_void(record),
        f"Median of the step: {formatting.ms(record.step, 'median')} ms, {record.step.verdict}.",
        formatting.markdown_table(["Phase", "Mean ms", "Median ms", "Verdict"], phases, "lrrl"),
        *([formatting.markdown_table(names, blocks, "rllrr")] if blocks else []),
    ]
    return "\n\n".join(parts) + "\n"


def _comparison(record: Comparison) -> str:
    rows = [record.whole, *comparison_rows.changed(record)]
    unchanged = [row for row in comparison_rows.blocks(record) if row not in rows]
    parts = [
        f"### {comparison_rows.title(record)}",
        *([f"**{record.void}**"] if record.void else []),
        comparison_rows.verdict_sentence(record),
        *([advice] if (advice := comparison_rows.advice(record)) else []),
        *([f"Rows: {comparison_rows.counts(record.rows)}."] if record.rows else []),
        _compared("What changed", rows) if len(rows) > 1 else _compared("Whole", rows),
        *([_compared("Other blocks", unchanged)] if unchanged else []),
        *_only_on_one_side(record),
        f"Method: {comparison_rows.method(record)}.",
        *_what_differs(record),
        *(f"> {note}" for note in record.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _compared(name: str, rows: Sequence[ComparedRow]) -> str:
    cells = [
        [
            row.verdict,
            f"`{row.path}`" if row.path else "whole model",
            row.type,
            *comparison_rows.milliseconds(row),
            comparison_rows.ratio(row),
            comparison_rows.interval(row),
            row.note,
        ]
        for row in rows
    ]
    header = ["Verdict", name, "Type", "Baseline ms", "Contender ms", "Change", "95 % interval"]
    return formatting.markdown_table([*header, "Note"], cells, "lllrrrrl")


def _only_on_one_side(record: Comparison) -> list[str]:
    sides = (("contender", record.added), ("baseline", record.missing))
    return [
        f"Only in the {name}: " + ", ".join(comparison_rows.named(paths, "`"))
        for name, paths in sides
        if paths
    ]


def _what_differs(record: Comparison) -> list[str]:
    cells = [[d.where, d.what, d.baseline, d.contender] for d in record.differences]
    if not cells:
        return []
    return [formatting.markdown_table(["What differs", "", "Baseline", "Contender"], cells, "llll")]


def _structure(record: Structure) -> str:
    workload = record.workload
    rows = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            f"`{row.path}`",
            formatting.shape_list(row.input_shapes),
            formatting.shape_list(row.output_shapes),
            units.count(row.parameters),
            "-" if row.flops is None else units.flops(row.flops),
        ]
        for row in formatting.block_rows(record.rows)
    ]
    header = ["#", "Block", "Path", "Input shape", "Output shape", "Parameters", "FLOPs"]
    parts = [
        f"### {formatting.model_name(workload)} on {workload.input}: structure",
        f"{units.count(record.parameters)} parameters, {units.flops(record.flops)} "
        f"({units.macs(record.macs)})",
        *([formatting.markdown_table(header, rows, "rllllrr")] if rows else []),
    ]
    return "\n\n".join(parts) + "\n"


def _memory(record: MemoryReport) -> str:
    workload = record.workload
    parts = [
        f"### {formatting.model_name(workload)} on {workload.input}: memory, measured",
        f"Tensors before the run: {units.mebibytes(record.total.block_bytes)} in 512-byte blocks; "
        f"peak of all tensors: {units.mebibytes(record.peak.bytes)}, in `{record.peak.owner}`.",
        *_memory_blocks(record.rows),
    ]
    return "\n\n".join(parts) + "\n"


def _estimate(record: MemoryEstimate) -> str:
    workload = record.workload
    low, high = record.peak_interval.low, record.peak_interval.high
    parts = [
        f"### {formatting.model_name(workload)} on {workload.input}: memory predicted for "
        f"{record.device}",
        f"Allocated at the peak {units.mebibytes(record.peak_bytes)} "
        f"[{units.mebibytes(low, unit=False)}, {units.mebibytes(high, unit=False)}], reserved "
        f"{units.mebibytes(record.reserved_bytes)}.",
        *_memory_blocks(record.rows),
    ]
    return "\n\n".join(parts) + "\n"


def _memory_blocks(rows: Sequence[MemoryRow]) -> list[str]:
    cells = [
        [
            "" if row.position is None else str(row.position),
            row.type,
            f"`{row.path}`",
            *(
                "-" if value is None else units.mebibytes(value, unit=False)
                for value in (row.allocated, row.kept, row.live_peak)
            ),
        ]
        for row in formatting.block_rows(rows)
    ]
    header = ["#", "Block", "Path", "Allocated MiB", "Kept MiB", "Live peak MiB"]
    return [formatting.markdown_table(header, cells, "rllrrr")] if cells else []


def _profile(record: Profile) -> str:
    workload = record.workload
    parts = [
        f"### {formatting.model_name(workload)} on {workload.input}, {formatting.place(record)}",
        *_void(record),
        *[f"**{said}**" for said in formatting.partial(record)],
        _whole(record),
        *([_blocks(record)] if formatting.blocks(record) else []),
        _origin(record),
    ]
    return "\n\n".join(parts) + "\n"


def _void(record: Profile | TrainingProfile) -> list[str]:
    """Why the figures mean nothing, if so."""
    reason = record.environment.machine.too_busy
    return [f"**{reason}**"] if reason else []


def _whole(record: Profile) -> str:
    whole = record.whole
    cells = {
        "Mean": formatting.time(whole, "mean"),
        "Std": formatting.time(whole, "std"),
        "FPS": formatting.fps(record),
        "Median": formatting.time(whole, "median"),
        "95 % interval": formatting.interval(whole),
        "Parameters": units.count(record.parameters),
    }
    table = formatting.markdown_table(
        [*cells, "Verdict"], [[*cells.values(), whole.verdict]], "r" * len(cells) + "l"
    )
    missed = f"\n\nThe whole is {whole.verdict}: {'; '.join(whole.missed)}." if whole.missed else ""
    return table + missed


def _blocks(record: Profile) -> str:
    host = formatting.has_host_times(record)
    rows = [_block(row, record, host) for row in formatting.blocks(record)]
    between = formatting.between_blocks_s(record)
    mean = units.milliseconds(between, formatting.base_half_width(record))
    rest = [mean, "", "", *([""] if host else [])]
    rows.append(
        ["", "between the blocks", "", "", "", *rest, formatting.share(between, record), ""]
    )
    header = ["#", "Block", "Path", "Input shape", "Calls", "Mean ms", "Std ms", "Median ms"]
    return formatting.markdown_table(
        [*header, *(["Host ms"] if host else []), "Share", "Verdict"],
        rows,
        "rlllrrrr" + ("r" if host else "") + "rl",
    )


def _block(row: LayerRow, record: Profile, host: bool) -> list[str]:
    times = row.inclusive
    return [
        "" if row.position is None else str(row.position),
        row.type,
        f"`{row.path}`",
        formatting.first_shape(row),
        str(row.calls),
        formatting.ms(times, "mean"),
        formatting.ms(times, "std"),
        formatting.ms(times, "median"),
        *([formatting.ms(row.host_inclusive, "mean")] if host else []),
        formatting.share(times.mean, record) if times else "-",
        times.verdict if times else formatting.why_untimed(row),
    ]


def _origin(record: Profile) -> str:
    software = record.environment.software
    torch = software.packages.get("torch")
    tools = f"layerbench {software.layerbench}" + (f", torch {torch}" if torch else "")
    return f"{record.environment.started}, {tools}: `{record.environment.command}`"


composed.register(Profile, _profile)
composed.register(Structure, _structure)
composed.register(MemoryReport, _memory)
composed.register(MemoryEstimate, _estimate)
composed.register(Comparison, _comparison)
composed.register(TrainingProfile, _training)
for _kind in (TrainingRun, TrainingEstimate, Sweep, DetectionEstimates, DetectionRun):
    composed.register(_kind, _document)
