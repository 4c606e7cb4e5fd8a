"""The sections of other packages: torchinfo's table, pytorch-memlab's account and line profile."""

from __future__ import annotations

from collections.abc import Callable

from layerbench import units
from layerbench.records.peers import (
    Column,
    MemlabFunction,
    MemlabReport,
    PeerReport,
    TorchinfoReport,
    TorchinfoRow,
)
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout

_NONE = "--"


def torchinfo(report: TorchinfoReport | None) -> layout.Section:
    """The table in torchinfo's own words, its sums, and where it agrees with ours."""
    if report is None:
        return layout.Section("torchinfo", [])
    rows = [
        [_layer(row), *(_CELLS[column](row, report) for column in report.columns)]
        for row in report.rows
    ]
    header = ["Layer (type:depth-idx)", *(_TITLES[column] for column in report.columns)]
    align = "l" + "".join("l" if column.endswith("size") else "r" for column in report.columns)
    return layout.Section(
        _title("torchinfo", report),
        [
            layout.Text(report.agreement),
            *_reason(report),
            layout.Table(header, rows, align, formats=layout.FULL),
            layout.Fields(_sums(report), formats=layout.FULL),
        ],
    )


def _title(name: str, report: PeerReport) -> str:
    return f"{name} {report.version}" if report.version else name


def _reason(report: PeerReport) -> list[layout.Text]:
    return [layout.Text(f"Left out: {report.reason}.")] if report.reason else []


def _sums(report: TorchinfoReport) -> list[tuple[str, str]]:
    if not report.rows:
        return []
    frozen = report.total_params - report.trainable_params
    return [
        ("Total params", units.count(report.total_params)),
        ("Trainable params", units.count(report.trainable_params)),
        ("Non-trainable params", units.count(frozen)),
        ("Total mult-adds", units.count(report.total_mult_adds)),
    ]


def _layer(row: TorchinfoRow) -> str:
    """As torchinfo draws its tree."""
    if row.depth == 0:
        return row.layer
    return ("├─" if row.depth == 1 else "│    " * (row.depth - 1) + "└─") + row.layer


def _parameters(row: TorchinfoRow) -> str:
    if not row.num_params:
        return _NONE
    if row.recursive:
        return "(recursive)"
    count = units.count(row.num_params)
    return f"({count})" if row.frozen else count


def _percentage(row: TorchinfoRow, report: TorchinfoReport) -> str:
    if row.recursive and report.total_params:
        return "(recursive)"
    if not row.num_params or not report.total_params:
        return _NONE
    return f"{row.num_params / report.total_params:.2%}"


def _size(size: tuple[int, ...] | None) -> str:
    return units.shape(size) if size else _NONE


_Cell = Callable[[TorchinfoRow, TorchinfoReport], str]
_CELLS: dict[Column, _Cell] = {
    "kernel_size": lambda row, _: row.kernel_size or _NONE,
    "input_size": lambda row, _: _size(row.input_size),
    "output_size": lambda row, _: _size(row.output_size),
    "num_params": lambda row, _: _parameters(row),
    "params_percent": _percentage,
    "mult_adds": lambda row, _: units.count(row.mult_adds) if row.mult_adds else _NONE,
    "trainable": lambda row, _: row.trainable or _NONE,
}
_TITLES: dict[Column, str] = {
    "kernel_size": "Kernel Shape",
    "input_size": "Input Shape",
    "output_size": "Output Shape",
    "num_params": "Param #",
    "params_percent": "Param %",
    "mult_adds": "Mult-Adds",
    "trainable": "Trainable",
}


def memlab(report: MemlabReport | None) -> layout.Section:
    """Its account of every tensor, corrected, and where it agrees with ours."""
    if report is None:
        return layout.Section("pytorch-memlab", [])
    rows = [
        [row.name, units.shape(row.shape), units.count(row.bytes), units.bytes_(row.bytes)]
        for row in report.tensors
    ]
    return layout.Section(
        _title("pytorch-memlab", report),
        [
            layout.Text(report.agreement),
            layout.Text(_corrected(report)),
            *_reason(report),
            layout.Table(
                ["Element type", "Size", "Used MEM", ""], rows, "llrr", formats=layout.FULL
            ),
        ],
    )


def _corrected(report: MemlabReport) -> str:
    if not report.tensors:
        return ""
    allocated = (
        ""
        if report.allocated is None
        else f" CUDA's allocator had handed out {units.bytes_(report.allocated)} then."
    )
    return (
        f"{units.count(report.elements)} elements, {units.bytes_(report.bytes)}. memlab itself "
        f"says {units.bytes_(report.uncorrected_bytes)}: it multiplies a storage's bytes by the "
        f"element size. All bytes here are corrected.{allocated}"
    )


def line_profiles(report: MemlabReport | None) -> list[layout.Section]:
    """The line profile of each function: a row a line."""
    return [_line_profile(function) for function in (report.functions if report else ())]


def _line_profile(function: MemlabFunction) -> layout.Section:
    rows = [
        {
            "line": str(line.line),
            "active peak": formatting.dash(line.active_bytes, units.bytes_),
            "reserved peak": formatting.dash(line.reserved_bytes, units.bytes_),
            "code": line.code,
        }
        for line in function.lines
    ]
    return layout.table(f"pytorch-memlab, lines of {function.name}", rows, "rrrl")
