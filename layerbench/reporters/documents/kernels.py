"""The kernels of a record: which ran for which layer, how often and how long."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench import units
from layerbench.analysis.kernels import SHORT, parts_of, share, short_name
from layerbench.analysis.launching import Timed
from layerbench.records.timing import KernelRow, Profile
from layerbench.records.training_step import StepKernelRow
from layerbench.records.view import View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared
from layerbench.text import beginning

# Characters of a function's name, which may be of any length.
_LONGEST_FUNCTION = 32
# On a first screen a name takes such a part of the width.
_OF_A_SCREEN = 3
_ALIGN = {"path": "c", "phase": "l", "function": "l", "kernel": "l", "ms": ".", "layers": "l"}
_OMITTED_FIRST = ("±", "function", "calls", "phase")
_LEGEND = (
    "ms: median of all calls in one {whole}. share: of {time}, by means. Names are without "
    "namespaces and parameters; csv and json have them whole."
)


def chosen(record: Timed, view: View) -> list[KernelRow]:
    """The kernels that are shown, the longest first; none where nobody asked for them."""
    if not view.kernels:
        return []
    rows = record.layers if isinstance(record, Profile) else record.rows
    types = {row.path: row.type for row in rows}
    if view.type is None:
        return list(record.kernels)
    return [
        kernel
        for kernel in record.kernels
        if any(types.get(part.module) == view.type for part in parts_of(kernel))
    ]


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
    where = first.module or screens.MODEL
    whole = "the device's time" if _on_device(record) else "the compiled forward"
    title = f"Longest kernel: {rows[0]['kernel']} of {where}, {part} of {whole}"
    return layout.Section(title, [table])


def every(record: Timed, view: View) -> layout.Section:
    """A row for each kernel of each layer."""
    rows = [_cells(kernel, record) for kernel in chosen(record, view)]
    align = "".join(_ALIGN.get(name, "r") for name in rows[0]) if rows else ""
    whole = "forward" if isinstance(record, Profile) else "step"
    legend = layout.Text(_LEGEND.format(whole=whole, time=_time(record)), indented=False)
    title = "Kernels, the longest first"
    return layout.table(title, rows, align, legend, omitted_first=("±",))


def _time(record: Timed) -> str:
    """What shares refer to."""
    worked = "the time in which the device worked"
    return worked if _on_device(record) else "the compiled forward"


def _on_device(record: Timed) -> bool:
    return record.device_rounds is not None or not _compiled(record)


def _compiled(record: Timed) -> bool:
    return isinstance(record, Profile) and record.compilation is not None


def _cells(kernel: KernelRow, record: Timed, most: int = SHORT) -> dict[str, str]:
    compiled = _compiled(record)
    place = {
        "path": kernel.module or screens.MODEL,
        **_phase(kernel),
        "function": beginning(kernel.function, _LONGEST_FUNCTION) or "-",
    }
    return {
        **({} if compiled else place),
        "kernel": short_name(kernel.name, most),
        "calls": units.count(kernel.calls),
        "ms": formatting.ms(kernel.time, "median"),
        "±": formatting.relative_half_width(kernel.time),
        "share": units.percent(share(kernel, record), digits=1),
        **({"layers": shared.layers(kernel.layers) or "-"} if compiled else {}),
    }


def _phase(kernel: KernelRow) -> dict[str, str]:
    """What part of a step it ran in."""
    if not isinstance(kernel, StepKernelRow):
        return {}
    return {"phase": "recomputation" if kernel.recomputed else kernel.phase}


def row(kernel: KernelRow, record: Timed) -> cells.Cells:
    """A row for spreadsheets, less its times; its path is the module's."""
    return {
        "kind": "kernel",
        "path": kernel.module,
        **_phase(kernel),
        "function": kernel.function,
        "kernel": kernel.name,
        "calls": kernel.calls,
        "device_share": share(kernel, record),
        **({"layers": _written(kernel)} if kernel.layers else {}),
    }


def _written(kernel: KernelRow) -> str:
    """The layers in a kernel, each with its share, for programs."""
    return "; ".join(f"{one.module}:{one.function}={one.share:g}" for one in kernel.layers)
