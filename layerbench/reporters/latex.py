r"""A LaTeX table of the blocks, for a paper: ``\usepackage{booktabs}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import fsum

from layerbench import units
from layerbench.analysis.kernels import launched_by, share, short_name
from layerbench.analysis.launching import StepLaunching, Timed
from layerbench.records.timing import Profile, Summary
from layerbench.records.training_step import TrainingProfile, TrainingRow
from layerbench.records.view import USUAL, View
from layerbench.reporters import documents, formatting, latex_table
from layerbench.reporters.documents import kernels, screens
from layerbench.text import shown

NAME = "latex"
SUFFIX = ".tex"
PROFILES_ONLY = True
STEPS_TOO = True


def render(record: Timed, view: View = USUAL) -> str:
    """The whole model, or step, and its blocks; the environment stands above it as comments.

    Args:
        record: of the measurement.
        view: whether a table of the kernels follows.
    """
    record = shown(record)
    header, rows = _of_step(record) if isinstance(record, TrainingProfile) else _of_profile(record)
    escaped = [[*map(latex_table.escaped, row)] for row in rows]
    align = "lll" + "r" * (len(header) - 3)
    table = latex_table.table(header, escaped, align, _caption(record), _label(record))
    return "\n".join([*_comments(record), table, *_kernels(record, view)]) + "\n"


def _of_profile(record: Profile) -> tuple[list[str], list[list[str]]]:
    header = ["Block", "Path", "Input", "Parameters", "Mean (ms)", "Std (ms)", "Median (ms)"]
    return [*header, "Share"], [_whole(record), *_blocks(record)]


def _of_step(record: TrainingProfile) -> tuple[list[str], list[list[str]]]:
    """Forward and backward of each block; on an accelerator host times and kernels, too."""
    launching = StepLaunching.of(record)
    on_device = record.device_rounds is not None
    header = ["Block", "Path", "Input", "Parameters", "Forward (ms)", "Backward (ms)"]
    header += ["Host (ms)", "Kernels", "Launch-bound"] if on_device else []
    rows = [
        [
            row.type,
            row.path,
            formatting.shape_list(row.input_shapes),
            "" if row.parameters is None else units.count(row.parameters),
            _median(row.forward),
            _median(row.backward),
            *(_launched(row, launching) if on_device else []),
        ]
        for row in record.rows
        if row.block or not row.path
    ]
    return header, rows


def _launched(row: TrainingRow, launching: StepLaunching) -> list[str]:
    host = [time.median for time in (row.host_forward, row.host_backward) if time]
    return [
        units.milliseconds(fsum(host)) if host else "-",
        formatting.dash(row.kernels, units.count),
        "yes" if launching.bounds(row) else "no",
    ]


def _kernels(record: Timed, view: View) -> Iterator[str]:
    """A table of the kernels, where somebody wants it and there are any."""
    rows = [
        [
            kernel.module or screens.MODEL,
            launched_by(kernel),
            short_name(kernel.name),
            units.count(kernel.calls),
            _median(kernel.time),
            units.percent(share(kernel, record), digits=1),
        ]
        for kernel in kernels.chosen(record, view)
    ]
    if not rows:
        return
    caption = f"Kernels of {_title(record)}. {_PARENTHESES}"
    escaped = [[*map(latex_table.escaped, row)] for row in rows]
    yield latex_table.table(
        ["Layer", "Function", "Kernel", "Calls", "Median (ms)", "Share"],
        escaped,
        "lllrrr",
        caption,
        f"{_label(record)}-kernels",
    )


_PARENTHESES = "In parentheses: half of the 95 % interval, in units of the last digit."


def _caption(record: Timed) -> str:
    rows = record.rows if isinstance(record, TrainingProfile) else record.layers
    parts = " and its blocks" if any(row.block for row in rows) else ""
    device = (
        " Times of blocks are their time on the device." if parts and record.device_rounds else ""
    )
    if isinstance(record, TrainingProfile):
        median = _median(record.step)
        return f"{_title(record, parts)}: a training step takes {median} ms.{device} {_PARENTHESES}"
    return f"{_title(record, parts)}.{device} {_PARENTHESES}"


def _title(record: Timed, parts: str = "") -> str:
    workload = record.workload
    name = f"{formatting.model_name(workload)}{parts}"
    return f"{name} on {workload.input}, {formatting.place(record)}"


def _label(record: Timed) -> str:
    name = re.sub(r"[^A-Za-z0-9-]+", "-", f"{record.workload.model}-{record.workload.input}")
    return f"tab:{name.strip('-')[:80]}"


def _median(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return units.uncertain(summary.median, formatting.half_width(summary))


def _whole(record: Profile) -> list[str]:
    whole = record.whole
    return [
        record.model_type,
        "",
        units.shape(record.workload.shape),
        units.count(record.parameters),
        formatting.ms(whole, "mean"),
        formatting.ms(whole, "std"),
        _median(whole),
        "",
    ]


def _blocks(record: Profile) -> list[list[str]]:
    return [
        [
            row.type,
            row.path,
            formatting.shape_list(row.input_shapes),
            "" if row.parameters is None else units.count(row.parameters),
            formatting.ms(row.inclusive, "mean"),
            formatting.ms(row.inclusive, "std"),
            _median(row.inclusive),
            formatting.share(row.inclusive.mean, record) if row.inclusive else "-",
        ]
        for row in formatting.blocks(record)
    ]


def _comments(record: Timed) -> list[str]:
    environment = record.environment
    packages = ", ".join(f"{k} {v}" for k, v in environment.software.packages.items())
    lines = [
        f"{formatting.model_name(record.workload)} on {record.workload.input}",
        f"{environment.device.name}, {packages}, layerbench {environment.software.layerbench}",
        f"{environment.started}: {environment.command}",
        *documents.cautions(record),
    ]
    return [f"% {' '.join(line.split())}" for line in lines]
