r"""A LaTeX table of the blocks, for a paper: ``\usepackage{booktabs}``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbench import units
from layerbench.analysis.kernels import share, short_name
from layerbench.records.timing import Profile, Summary
from layerbench.records.view import USUAL, View
from layerbench.reporters import documents, formatting, latex_table
from layerbench.reporters.documents import kernels, screens
from layerbench.text import shown

NAME = "latex"
SUFFIX = ".tex"
PROFILES_ONLY = True


def render(record: Profile, view: View = USUAL) -> str:
    """The whole model and its blocks; the environment stands above it as comments.

    Args:
        record: of the measurement.
        view: whether a table of the kernels follows.
    """
    record = shown(record)
    header = ["Block", "Path", "Input", "Parameters", "Mean (ms)", "Std (ms)", "Median (ms)"]
    rows = [[*map(latex_table.escaped, row)] for row in (_whole(record), *_blocks(record))]
    table = latex_table.table(
        [*header, "Share"], rows, "lll" + "r" * 5, _caption(record), _label(record)
    )
    return "\n".join([*_comments(record), table, *_kernels(record, view)]) + "\n"


def _kernels(record: Profile, view: View) -> Iterator[str]:
    """A table of the kernels, where somebody wants it and there are any."""
    rows = [
        [
            kernel.module or screens.MODEL,
            kernel.function,
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


def _caption(record: Profile) -> str:
    parts = " and its blocks" if formatting.blocks(record) else ""
    device = (
        " Times of blocks are their time on the device." if parts and record.device_rounds else ""
    )
    return f"{_title(record, parts)}.{device} {_PARENTHESES}"


def _title(record: Profile, parts: str = "") -> str:
    workload = record.workload
    name = f"{formatting.model_name(workload)}{parts}"
    return f"{name} on {workload.input}, {formatting.place(record)}"


def _label(record: Profile) -> str:
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


def _comments(record: Profile) -> list[str]:
    environment = record.environment
    packages = ", ".join(f"{k} {v}" for k, v in environment.software.packages.items())
    lines = [
        f"{formatting.model_name(record.workload)} on {record.workload.input}",
        f"{environment.device.name}, {packages}, layerbench {environment.software.layerbench}",
        f"{environment.started}: {environment.command}",
        *documents.cautions(record),
    ]
    return [f"% {' '.join(line.split())}" for line in lines]
