"""The kernels of a record: which ran for which layer, how often and how long."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench import units
from layerbench.analysis.kernels import SHORT, share, short_name
from layerbench.analysis.launching import Timed
from layerbench.records.timing import KernelRow, Profile
from layerbench.records.training_step import StepKernelRow
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens
from layerbench.text import beginning

# Characters of a function's name, which may be of any length.
_LONGEST_FUNCTION = 32
# On a first screen a name takes such a part of the width.
_OF_A_SCREEN = 3
_ALIGN = {"path": "c", "phase": "l", "function": "l", "kernel": "l", "ms": "."}
_OMITTED_FIRST = ("±", "function", "calls", "phase")
_LEGEND = (
    "ms: median of all calls in one {whole}. share: of the time in which the device worked, by "
    "means. Names are without namespaces and parameters; csv and json have them whole."
)


def chosen(record: Timed, view: View) -> list[KernelRow]:
    """The kernels that are shown, the longest first; none where nobody asked for them."""
    if not view.kernels:
        return []
    rows = record.layers if isinstance(record, Profile) else record.rows
    types = {row.path: row.type for row in rows}
    if view.type is None:
        return list(record.kernels)
    return [kernel for kernel in record.kernels if types.get(kernel.module) == view.type]


def listed(record: Timed, view: View) -> Sequence[KernelRow]:
    """Those of a format for programs, which has all or none."""
    return record.kernels if view.kernels else ()


def longest(record: Timed, view: View) -> layout.Section:
    """A first screen's table: the kernels that take longest."""
    kernels = chosen(record, view)[: view.top]
    if not kernels:
        return layout.Section("", [])
    most = min(SHORT, view.width // _OF_A_SCREEN)
    rows = [_cells(kernel, record, most) for kernel in kernels]
    table = screens.table_of(rows, _ALIGN, _OMITTED_FIRST)
    first = kernels[0]
    part = units.percent(share(first, record), digits=1)
    where = rows[0]["path"]
    title = f"Longest kernel: {rows[0]['kernel']} of {where}, {part} of the device's time"
    return layout.Section(title, [table])


def every(record: Timed, view: View) -> layout.Section:
    """A row for each kernel of each layer."""
    rows = [_cells(kernel, record) for kernel in chosen(record, view)]
    align = "".join(_ALIGN.get(name, "r") for name in rows[0]) if rows else ""
    whole = "forward" if isinstance(record, Profile) else "step"
    legend = layout.Text(_LEGEND.format(whole=whole), indented=False)
    title = "Kernels, the longest first"
    return layout.table(title, rows, align, legend, omitted_first=("±",))


def _cells(kernel: KernelRow, record: Timed, most: int = SHORT) -> dict[str, str]:
    return {
        "path": kernel.module or screens.MODEL,
        **({"phase": kernel.phase} if isinstance(kernel, StepKernelRow) else {}),
        "function": beginning(kernel.function, _LONGEST_FUNCTION) or "-",
        "kernel": short_name(kernel.name, most),
        "calls": units.count(kernel.calls),
        "ms": formatting.ms(kernel.time, "median"),
        "±": formatting.relative_half_width(kernel.time),
        "share": units.percent(share(kernel, record), digits=1),
    }


def row(kernel: KernelRow, record: Timed) -> cells.Cells:
    """A row for spreadsheets, less its times; its path is the module's."""
    return {
        "kind": "kernel",
        "path": kernel.module,
        **({"phase": kernel.phase} if isinstance(kernel, StepKernelRow) else {}),
        "function": kernel.function,
        "kernel": kernel.name,
        "calls": kernel.calls,
        "device_share": share(kernel, record),
    }
