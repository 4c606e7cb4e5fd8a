"""What the reports for people share: which rows they show, and what is said about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from layerbench import units
from layerbench.records.bounds import Shape
from layerbench.records.timing import ONLY_INSIDE, LayerRow, Profile, Summary
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import (
    CHECKPOINTED,
    FORMATS,
    OWN_WEIGHTS,
    Checkpoint,
    Precision,
    ReadFile,
    StepOptions,
    Workload,
    arithmetic_of,
    computed_in,
)
from layerbench.text import visible
from layerbench.units import NANOSECOND

if TYPE_CHECKING:
    from layerbench.records.comparison import ComparedRow
    from layerbench.records.rows import ModuleRow

Row: TypeAlias = "ComparedRow | LayerRow | ModuleRow"
"""A row of layers, of any kind of record."""
AnyRow = TypeVar("AnyRow", bound=Row)
Value = TypeVar("Value")

# Cells are not padded to the width of one that is wider than this.
WIDEST = 400


def blocks(record: Profile) -> list[LayerRow]:
    """The rows of the block view, in order. Blocks never contain each other."""
    return block_rows(record.layers)


def block_rows(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """The blocks among the rows, in order of execution; those that did not run come last."""
    blocks = [row for row in rows if row.block]
    # A number there, where the rows are not in order of execution; rows of a comparison are.
    turns = {row.path: getattr(row, "turn", None) for row in blocks}
    if any(turns.values()):
        blocks.sort(key=lambda row: (turns[row.path] is None, turns[row.path] or 0))
    return blocks


def share(part_s: float, record: Profile) -> str:
    """A part of the instrumented whole, in per cent."""
    return part(part_s, record.base.mean)


def part(amount: float | None, whole: float) -> str:
    """A part of something in per cent; ``-`` if one of them is unknown or nothing."""
    return "-" if amount is None or not whole else units.percent(amount / whole, digits=1)


def between_blocks_s(record: Profile) -> float:
    """The mean time of the whole that no block of the block view accounts for."""
    times = [row.inclusive.mean for row in blocks(record) if row.inclusive]
    between = record.base.mean - math.fsum(times)
    # Means of whole nanoseconds: less than one is what adding up in floating point leaves.
    return 0.0 if abs(between) < NANOSECOND else between


def has_host_times(record: Profile) -> bool:
    """Whether the host's time stands beside the device's."""
    return any(row.host_inclusive for row in record.layers)


# A part of the median from where on it needs no digits after the point.
_ROUND_FROM = 0.0995


def half_width(summary: Summary) -> float:
    """Half the width of the median's interval, which sets the digits of a row."""
    return (summary.ci_high - summary.ci_low) / 2


def relative_half_width(summary: Summary) -> str:
    """The same as a part of the median; ``-`` where that is not positive."""
    if summary.median <= 0:
        return "-"
    part = half_width(summary) / summary.median
    return units.percent(part, digits=0 if part >= _ROUND_FROM else 1)


def ms(summary: Summary | None, field: str) -> str:
    """One figure of a summary in milliseconds; ``-`` if it was not measured."""
    if summary is None:
        return "-"
    return units.milliseconds(getattr(summary, field), half_width(summary))


def dash(value: Value | None, written: Callable[[Value], str]) -> str:
    """A value as text; ``-`` if it is unknown."""
    return "-" if value is None else written(value)


def mebibytes(size: int | None) -> str:
    """Without the unit, which the column names."""
    return "-" if size is None else units.mebibytes(size, unit=False)


def time(summary: Summary, field: str) -> str:
    """One figure of a summary with a unit, the same for all figures of that summary."""
    unit = units.seconds(summary.median, half_width(summary)).rpartition(" ")[2]
    return units.seconds(getattr(summary, field), half_width(summary), unit=unit)


def interval(summary: Summary) -> str:
    """The median's interval in the unit that `time` uses: ``[550.9, 553.0]``."""
    low, high = (time(summary, field).rpartition(" ")[0] for field in ("ci_low", "ci_high"))
    return f"[{low}, {high}]"


def fps(record: Profile) -> str:
    """Images per second, from the mean; ``-`` where no time passed."""
    mean = record.whole.mean
    return units.per_second(record.workload.batch / mean) if mean else "-"


def threads(record: Profile | TrainingProfile) -> int | None:
    """Intra-op CPU threads: as they were found, otherwise as they were asked for."""
    return record.environment.machine.threads or record.plan.threads


def place(record: Profile | TrainingProfile) -> str:
    """Where it was measured: the device, and the threads where they are known."""
    number = threads(record)
    device = record.environment.device.name
    return device if number is None else f"{device}, {plural(number, 'thread')}"


def shapes(shapes: Sequence[Shape]) -> str:
    """All shapes; empty without any."""
    return ", ".join(units.shape(shape) for shape in shapes)


def shape_list(shapes: Sequence[Shape]) -> str:
    """The first shape, and how many more there are; ``-`` without any."""
    if not shapes:
        return "-"
    more = len(shapes) - 1
    return units.shape(shapes[0]) + (f" +{more}" if more else "")


def compiled(workload: Workload) -> str:
    """How it was compiled; empty where it was not."""
    mode = "" if workload.compile == "default" else f" ({workload.compile})"
    return f"compiled{mode}" if workload.compile else ""


def variant(workload: Workload) -> list[str]:
    """What sets a workload apart from the usual: nothing for a plain float32 evaluation."""
    weights = workload.weights
    settings = [
        (workload.arithmetic, "float32"),
        (workload.memory_format, "contiguous"),
        (workload.mode, "eval"),
        (compiled(workload), ""),
        ("CUDA graph" if workload.cuda_graph else "", ""),
        ("DDP" if workload.ddp else "", ""),
        *((what, "") for what in step_options(workload)),
        (f"weights {weights}" if weights not in (None, OWN_WEIGHTS) else "", ""),
        (f"checkpoint {workload.checkpoint}" if workload.checkpoint else "", ""),
    ]
    return [value for value, usual in settings if value != usual]


def step_options(step: StepOptions) -> list[str]:
    """What a training step does besides the usual; nothing for a usual one."""
    said = list(filter(None, [checkpointed(step.checkpoint_activations)]))
    if step.gradient_accumulation > 1:
        said.append(f"{step.gradient_accumulation} micro-batches")
    return said


def checkpointed(paths: Sequence[str] | None) -> str:
    """Whose activations are checkpointed; ``""`` for none."""
    return "" if paths is None else CHECKPOINTED + (", ".join(paths) or "blocks")


def precision(name: Precision) -> str:
    """What is computed in: ``float32``, or the name of what is not float32's own arithmetic."""
    return arithmetic_of(FORMATS[name], computed_in(name))


def weights(workload: Workload) -> str:
    """Where the model's weights come from."""
    if workload.checkpoint is not None:
        return f"checkpoint {workload.checkpoint}"
    if workload.weights is None:
        return "random weights"
    return "own weights" if workload.weights == OWN_WEIGHTS else f"weights {workload.weights}"


def files(workload: Workload) -> list[tuple[str, str]]:
    """The files that are part of what ran, each with its name in a report's head."""
    named = {"File": workload.file, "Checkpoint": workload.checkpoint, "Inputs": workload.inputs}
    return [(name, _file(file)) for name, file in named.items() if file is not None]


def _file(file: ReadFile) -> str:
    said = [f"{file.name}, SHA-256 {file.sha256}"]
    if isinstance(file, Checkpoint):
        said += [f"its entry {file.entry}"] * bool(file.entry)
        said += [f"names without {file.prefix}"] * bool(file.prefix)
    return "; ".join(said)


def model_name(workload: Workload) -> str:
    """The model spec with whatever is unusual about how it ran."""
    unusual = variant(workload)
    return f"{workload.model} ({', '.join(unusual)})" if unusual else workload.model


def pairs(values: Mapping[str, str]) -> str:
    """Names and values, with commas."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def plural(number: int, noun: str) -> str:
    """``1 process``, ``5 processes``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{units.count(number)} {noun}{'' if number == 1 else ending}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A GitHub table.

    Args:
        header: column names.
        rows: cells; a ``|`` in them does not end the cell.
        align: one letter a column, ``l`` or ``r``.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulated(header, cells, align, "github")


def tabulated(header: Sequence[str], rows: Sequence[Sequence[str]], align: str, format: str) -> str:
    """A table in one of tabulate's formats.

    Columns are padded to one width, unless a cell is wider than `WIDEST`.

    Args:
        header: column names.
        rows: cells.
        align: one letter a column, ``l`` or ``r``.
        format: its name.
    """
    from tabulate import tabulate

    sides = {"l": "left", "r": "right"}
    ragged = any(len(cell) > WIDEST for row in rows for cell in row)
    padding: dict[str, Any] = {"colalign": [sides[letter] for letter in align] if rows else None}
    if ragged:
        padding = {"stralign": None, "numalign": None}
    return tabulate(rows, headers=list(header), tablefmt=format, disable_numparse=True, **padding)


def markdown(text: str) -> str:
    r"""Anybody's text for Markdown: it neither ends a code span nor begins markup or a link.

    Example:
        >>> print(markdown("a`b <img>"))
        a\x60b \x3cimg>
    """
    text = visible(text)
    return text.replace("`", r"\x60").replace("<", r"\x3c").replace("](", r"]\(")


def partial(record: Profile) -> list[str]:
    """The warning of an interrupted measurement; empty for a complete one."""
    return [*record.environment.warnings[:1]] if record.stop == "interrupted" else []


def why_untimed(row: LayerRow) -> str:
    """What to say of a row without times."""
    return "not timed" if row.calls else not_called(row.calls, row.note)


def not_called(calls: int, note: str) -> str:
    """A remark on a row without calls; empty if it has calls or a note of its own."""
    return "" if calls or ONLY_INSIDE in note else "not called"


def remarks(*parts: str) -> str:
    """The remarks on a row, in one line."""
    return "; ".join(part for part in parts if part)


def note_on(calls: int, note: str) -> str:
    """What to say of a row: that it was not called, and its note."""
    return remarks(not_called(calls, note), note)


def bar(value: float, whole: float, width: int) -> str:
    """A bar of at most ``width`` characters, to an eighth of one."""
    eighths = round(8 * width * min(max(value / whole, 0), 1)) if whole else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
