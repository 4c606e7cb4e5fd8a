"""The kernels of a comparison: a verdict on each, beside the same kernel or beside layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from layerbench import units
from layerbench.analysis.kernels import short_name
from layerbench.records.comparison import ComparedKernel, Comparison, Judged
from layerbench.records.view import View
from layerbench.reporters.documents import cells, layout, screens, shared

Figures = Callable[[Judged], Mapping[str, str]]
"""The cells of what is judged, by the names of their columns."""

# Characters of a name, and layers of a kernel that are named, on a first screen and in a report.
_ON_A_SCREEN = (26, 1)
_IN_A_REPORT = (30, 3)
_SCREEN_ALIGN = {
    **dict.fromkeys(("kernel", "verdict", "made of"), "l"),
    **dict.fromkeys(("baseline ms", "contender ms"), "."),
}
_RULES = {
    "kernels": (
        "Kernels of both sides are matched by name, less the number at its end, and by the layers "
        "in them; several such by their order. A kernel that one side has made in another way is "
        "not matched."
    ),
    "layers": (
        "A kernel stands beside the layers and functions that it was made of. Each layer's own "
        "time without compilation is divided among its kernels by the time that each spends on "
        "it; what stands beside a kernel is the sum of such parts. So all kernels with one layer "
        "alone have that layer's ratio, also a copy that brings its weights into order. Shares in "
        "fused kernels are estimates by bytes and operations. Without compilation a layer's time "
        "has its calls in Python in it."
    ),
}


def summed(record: Comparison, view: View, figures: Figures) -> layout.Section:
    """A first screen's table, where kernels are wanted: those that are called, or take longest."""
    shown = _shown(record, view)
    if not (view.kernels and shown):
        return layout.Section("", [])
    called = [one for one in shown if one.verdict in ("SLOWER", "FASTER")]
    largest = sorted(called or shown, key=lambda one: -_gap(one) if called else -one.contender_s)
    rows = [_cells(record, one, figures, *_ON_A_SCREEN) for one in largest[: view.top]]
    lower = [{name[0].lower() + name[1:]: cell for name, cell in row.items()} for row in rows]
    first = largest[0]
    what = "Largest change of a kernel" if called else "Longest kernel, none called"
    title = f"{what}: {rows[0]['Kernel']} of {first.module or screens.MODEL}, {first.verdict}"
    table = screens.table_of(lower, _SCREEN_ALIGN, ("95 % interval", "made of"), cut="made of")
    return layout.Section(title, [table])


def _gap(kernel: ComparedKernel) -> float:
    return abs(kernel.baseline_s - kernel.contender_s)


def section(
    record: Comparison, view: View, figures: Figures, formats: frozenset[str]
) -> layout.Section:
    """Every kernel, where they are wanted, and by which rule they were compared."""
    if not view.kernels or record.kernels_beside is None:
        return layout.Section("", [])
    rows = [
        {"#": str(number), **_cells(record, one, figures, *_IN_A_REPORT), "": one.note}
        for number, one in enumerate(_shown(record, view), 1)
    ]
    legend = layout.Text(_RULES[record.kernels_beside], indented=False)
    return layout.table("Kernels", rows, "rll...rll", legend, names=2, formats=formats)


def alone(record: Comparison, view: View) -> list[layout.Section]:
    """Kernels that have nothing beside them."""
    if not view.kernels:
        return []
    sides = (("contender", record.kernels_added), ("baseline", record.kernels_missing))
    return [
        layout.listed(f"Kernels only in the {side}", [short_name(name) for name in names])
        for side, names in sides
    ]


def hint(record: Comparison, view: View) -> str:
    """Where kernels were compared and are not shown: how to see them."""
    return "--kernels lists the kernels." if record.kernels and not view.kernels else ""


def _shown(record: Comparison, view: View) -> Sequence[ComparedKernel]:
    if view.type is None:
        return record.kernels
    types = {row.path: row.type for row in (record.whole, *record.rows)}
    return [
        one
        for one in record.kernels
        if view.type in {types.get(path) for path in (one.module, *_paths(one))}
    ]


def _paths(kernel: ComparedKernel) -> list[str]:
    return [*(one.path for one in kernel.beside), *(one.module for one in kernel.layers)]


def _cells(
    record: Comparison, kernel: ComparedKernel, figures: Figures, most: int, named: int
) -> dict[str, str]:
    by_layers = record.kernels_beside == "layers"
    made = _beside(kernel, named) if by_layers else _in_it(kernel, named)
    return {"Kernel": short_name(kernel.name, most), **figures(kernel), "Made of": made}


def _beside(kernel: ComparedKernel, most: int) -> str:
    """The rows beside it; of those that other kernels have a part of, how much."""
    named = [
        (one.path or screens.MODEL) + ("" if one.part == 1 else f" {units.percent(one.part)}")
        for one in kernel.beside[:most]
    ]
    return shared.and_more(named, len(kernel.beside) - most)


def _in_it(kernel: ComparedKernel, most: int) -> str:
    """The layers in it; of a kernel that was not compiled the module that ran it."""
    return shared.layers(kernel.layers, most) or kernel.module or screens.MODEL


def rows(record: Comparison) -> list[cells.Cells]:
    """A row for each kernel, for spreadsheets; its path is the module's, its type the name."""
    return [
        {
            **cells.fields(one, *Judged.model_fields),
            "path": one.module,
            "type": one.name,
            "kind": "kernel",
            "function": one.function,
            "layers": "; ".join(f"{p.module}:{p.function}={p.share:g}" for p in one.layers),
            "beside": "; ".join(f"{row.path}={row.part:g}" for row in one.beside),
        }
        for one in record.kernels
    ]
