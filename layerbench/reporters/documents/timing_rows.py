"""The rows of a profile for spreadsheets and data frames."""

from __future__ import annotations

from layerbench.analysis.launching import Launching
from layerbench.records.timing import Profile, Summary
from layerbench.records.view import USUAL, View
from layerbench.reporters.documents import cells, device, energy, isolation, kernels

_FIELDS = (
    *("kind", "path", "type", "depth", "calls", "block", "position", "input_shapes"),
    *("output_shapes", "parameters", "own_parameters", "flops", "self_flops", "kernel_size"),
    *("groups", "scaled", "note"),
)
_UNITLESS = ("n", "verdict", "missed")


def rows(record: Profile, view: View = USUAL) -> cells.Rows:
    """The whole model, whose ``kind`` is ``whole``, each layer, and the kernels if wanted."""
    whole: cells.Cells = {
        **dict.fromkeys(_FIELDS),
        "kind": "whole",
        "path": "",
        "type": record.model_type,
        "depth": 0,
        "calls": 1,
        "block": False,
        "input_shapes": cells.shapes([record.workload.shape]),
        "parameters": record.parameters,
        **_times(record.whole, None, record.whole_host, None),
    }
    launching, joules = Launching.of(record), energy.of_rows(record)
    seen = any(row.kernels is not None for row in record.layers)
    names = (*_FIELDS, "kernels") if seen else _FIELDS
    names = (*names, "shared", "self_shared") if record.compilation else names
    layers = [
        cells.fields(row, *names)
        | _times(row.inclusive, row.self_, row.host_inclusive, row.host_self)
        | ({"launch_bound": launching.bounds(row)} if record.device_rounds else {})
        | (isolation.columns(row) if record.isolation else {})
        | joules.get(row.path, {})
        for row in record.layers
    ]
    ran = cells.what_ran(record.workload, "compile")
    ran_by_device = [
        kernels.row(kernel, record) | _times(kernel.time, None, None, None)
        for kernel in kernels.listed(record, view)
    ]
    origin = cells.origin(record, "commit", "dirty")
    whole |= device.columns(record) | energy.of_whole(record)
    return ran | origin, [whole, *layers, *ran_by_device]


def _times(*summaries: Summary | None) -> cells.Cells:
    """The columns of the four times; all of them empty for one that was not measured."""
    names = ("inclusive", "self", "host_inclusive", "host_self")
    return {
        f"{name}_{figure}{'' if figure in _UNITLESS else '_s'}": cells.cell(
            figure, getattr(summary, figure, None)
        )
        for name, summary in zip(names, summaries, strict=True)
        # What each process found is in the record.
        for figure in Summary.model_fields
        if figure != "process_medians"
    }
