"""CSV for spreadsheets and data frames: a row for the whole model and for every layer.

What ran, and where, is repeated in every row, so that a row stands alone and rows of many
reports can be put into one table. Times are seconds; an empty cell was not measured.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from functools import singledispatch

from layerbench.errors import UsageError
from layerbench.records.comparison import Comparison
from layerbench.records.detection_estimate import DetectionEstimates, DetectorMemory
from layerbench.records.detection_run import DetectionEpoch, DetectionRun
from layerbench.records.environment import Environment
from layerbench.records.memory import PHASES, MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.sweep import Sweep
from layerbench.records.timing import LayerRow, Profile, Summary
from layerbench.records.training_estimate import Seconds, TrainingEstimate
from layerbench.records.training_run import EpochRow, TrainingRun
from layerbench.records.training_step import STEP_PHASES, TrainingProfile
from layerbench.records.workload import Frozen, Workload

NAME = "csv"
SUFFIX = ".csv"

Cells = dict[str, object]

_TIMES = ("inclusive", "self", "host_inclusive", "host_self")
_LAYER = (
    *("kind", "path", "type", "depth", "calls", "block", "position", "input_shapes"),
    *("output_shapes", "parameters", "scaled", "note"),
)
_UNITLESS = ("n", "verdict", "missed")
# One column a figure: what each process found is in the record.
_FIGURES = tuple(name for name in Summary.model_fields if name != "process_medians")


@singledispatch
def render(record: Frozen) -> str:
    """Rows in tree order; a profile's first one (``kind`` is ``whole``) is the whole model."""
    kind = getattr(record, "record", type(record).__name__)
    raise UsageError(f"there is no CSV of {kind} records: take txt, md, html or json")


def _profile(record: Profile) -> str:
    rows = [_whole(record), *(_layer(row) for row in record.layers)]
    surroundings = {**_what_ran(record.workload), "compile": record.workload.compile}
    return _table(surroundings | _where(record, "commit", "dirty"), rows)


def _each_row(record: Structure | MemoryReport | MemoryEstimate) -> str:
    return _table(_what_ran(record.workload), [_plain(row) for row in record.rows])


def _comparison(record: Comparison) -> str:
    return _table(_both_sides(record), [_plain(row) for row in (record.whole, *record.rows)])


def _training(record: TrainingProfile) -> str:
    """The step, its phases and every module; the same columns, of which each kind fills some."""
    surroundings = {**_what_ran(record.workload), "optimizer": record.optimizer}
    surroundings |= _where(record, "commit")
    rows = [_training_cells("step", "", record.model_type, {"time": record.step})]
    rows += [_training_cells("phase", p.name, "", {"time": p.time}) for p in record.phases]
    rows += [
        {
            **_training_cells(
                "module", row.path, row.type, {n: getattr(row, n) for n in _THERE_AND_BACK}
            ),
            "kept_bytes": row.kept,
            **{f"live_{phase}_bytes": row.live.get(phase) for phase in PHASES},
        }
        for row in record.rows
    ]
    return _table(surroundings, rows)


def _epochs(record: TrainingRun) -> str:
    """A row an epoch; the header alone before the first."""
    names = [name for name in EpochRow.model_fields if name != "phases_s"]
    rows = [
        {
            **{name: getattr(row, name) for name in names},
            **{f"{phase}_s": row.phases_s.get(phase) for phase in STEP_PHASES},
        }
        for row in record.epochs
    ]
    recipe = record.recipe
    ran = {"model": recipe.model, "data": recipe.data, "batch": recipe.batch, "ranks": recipe.ranks}
    columns = [*ran, *names, *(f"{phase}_s" for phase in STEP_PHASES)]
    return _rows(columns, [{**ran, **row} for row in rows])


def _points(record: Sweep) -> str:
    """A row a point."""
    rows: list[Cells] = [
        {
            "model": point.model,
            "height": point.size[0],
            "width": point.size[1],
            "batch": point.batch,
            "dtype": record.dtype,
            **_place(record.environment),
            **{
                f"{name}_s": getattr(point.latency, name)
                for name in ("median", "ci_low", "ci_high", "mean", "std")
            },
            "verdict": point.latency.verdict,
            "per_image_s": point.per_image_s,
            "flops": point.flops,
            "allocated_bytes": point.allocated,
            "reserved_bytes": point.reserved,
            "memory": point.memory,
        }
        for point in record.points
    ]
    return _table({}, rows) if rows else ""


def _forecast(record: TrainingEstimate) -> str:
    """One row, seconds."""
    recipe = record.recipe
    cells: Cells = {
        "model": recipe.model,
        "data": recipe.data,
        "batch": recipe.batch,
        "epochs": recipe.epochs,
        "samples": record.samples,
        "steps": record.steps,
        **_place(record.environment),
        **{f"{phase.name}_mean_s": phase.time.mean for phase in record.phases},
        "step_mean_s": record.step.mean,
    }
    return _table({}, [cells | _with_interval(record, "epoch", "total")])


def _detectors(record: DetectionEstimates) -> str:
    """A row a detector, seconds and bytes."""
    options: Cells = {
        "batch": record.batch,
        "epochs": record.epochs,
        "samples": record.samples,
        "height": record.size[0],
        "width": record.size[1],
        "data": record.data,
        **_place(record.environment),
    }
    memory = DetectorMemory.model_fields
    rows: list[Cells] = []
    for row in record.rows:
        cells: Cells = {
            "model": row.model,
            "parameters": row.parameters,
            **{f"{name}_bytes": row.memory and getattr(row.memory, name) for name in memory},
            **{f"{phase.name}_mean_s": phase.time.mean for phase in row.phases},
            "step_mean_s": row.step.mean,
            "one_image_median_s": row.one_image.median,
            "one_batch_median_s": row.one_batch.median,
            "boxes": row.boxes,
            "proposals": row.inferred.proposals,
            "detections": row.inferred.detections,
        }
        rows.append(cells | _with_interval(row, "epoch", "training", "inference"))
    return _table(options, rows) if rows else ""


def _with_interval(row: Frozen, *names: str) -> Cells:
    """Durations and the ends of their intervals, seconds."""
    cells: Cells = {}
    for name in names:
        time: Seconds = getattr(row, name)
        cells |= {f"{name}_s": time.value, f"{name}_low_s": time.low, f"{name}_high_s": time.high}
    return cells


def _detection_epochs(record: DetectionRun) -> str:
    """A row an epoch."""
    names = [name for name in DetectionEpoch.model_fields if name not in ("phases_s", "losses")]
    recipe = record.recipe
    ran: Cells = {"model": recipe.model, "data": recipe.data, "batch": recipe.batch}
    rows: list[Cells] = [
        {
            **{name: getattr(row, name) for name in names},
            **row.losses,
            **{f"{phase}_s": row.phases_s.get(phase) for phase in STEP_PHASES},
        }
        for row in record.epochs
    ]
    return _table(ran, rows) if rows else ""


_THERE_AND_BACK = ("forward", "forward_self", "backward", "backward_self")


def _training_cells(kind: str, path: str, type: str, times: dict[str, Summary | None]) -> Cells:
    cells: Cells = {"kind": kind, "path": path, "type": type}
    cells |= dict.fromkeys(["kept_bytes", *(f"live_{phase}_bytes" for phase in PHASES)])
    for name in ("time", *_THERE_AND_BACK):
        summary = times.get(name)
        for figure in ("mean", "std", "median", "p5", "p95"):
            cells[f"{name}_{figure}_s"] = None if summary is None else getattr(summary, figure)
    return cells


def _both_sides(record: Comparison) -> Cells:
    return {
        "baseline": record.baseline.name,
        "contender": record.contender.name,
        **_what_ran(record.contender.workload),
        "method": record.method,
        "threshold": record.threshold,
        "allowance": record.allowance,
        "alarm_rate": record.alarm_rate,
        "void": record.void,
    }


def _plain(row: Frozen, *names: str) -> Cells:
    """Fields of a row as they are, all of them where none is named: FLOPs, elements, bytes."""
    return {name: _cell(name, getattr(row, name)) for name in names or type(row).model_fields}


def _cell(name: str, value: object) -> object:
    """A field's value; several texts or shapes in one cell."""
    if not isinstance(value, tuple):
        return value
    return _shapes(value) if name.endswith("_shapes") else "; ".join(value)


def _what_ran(workload: Workload) -> Cells:
    return {
        "model": workload.model,
        "input": workload.input,
        "batch": workload.batch,
        "dtype": workload.dtype,
        "memory_format": workload.memory_format,
        "mode": workload.mode,
    }


def _place(environment: Environment) -> Cells:
    return {"device": environment.device.name, "threads": environment.machine.threads}


def _table(surroundings: Cells, rows: list[Cells]) -> str:
    """The columns are those of all rows: detectors may have other phases, epochs other losses."""
    columns = dict.fromkeys(name for row in (surroundings, *rows) for name in row)
    return _rows([*columns], [{**surroundings, **row} for row in rows])


def _rows(columns: list[str], rows: list[Cells]) -> str:
    return written([columns, *([row.get(name) for name in columns] for row in rows)])


def written(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text: none of their cells is a formula or ends the line that it stands in."""
    lines = _Lines()
    # Cells with any of these two characters are quoted.
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerows([inert(cell) for cell in row] for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    """Takes what a writer writes, line by line."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


# A spreadsheet would compute what begins like this, also in the wide letters of East Asian text.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-](\d+(\.\d*)?|\.\d+)?(e[+-]?\d+)?( %)?", re.ASCII | re.IGNORECASE)


def inert(cell: object) -> object:
    """A cell as a spreadsheet shows it: text that begins like a formula has a quote before it.

    Numbers, also those with a sign that stand here as text, and a dash alone stay what they are.
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def _where(record: Profile | TrainingProfile, *code: str) -> Cells:
    """The place, and as much of the code's state as is named."""
    software = record.environment.software
    return {
        "device": record.environment.device.name,
        "threads": record.environment.machine.threads or record.plan.threads,
        "torch": software.packages.get("torch"),
        **_plain(software, *code),
        "started": record.environment.started,
    }


def _whole(record: Profile) -> Cells:
    whole = {
        **dict.fromkeys(_LAYER),
        "kind": "whole",
        "path": "",
        "type": record.model_type,
        "depth": 0,
        "calls": 1,
        "block": False,
        "input_shapes": _shapes((record.workload.shape,)),
        "parameters": record.parameters,
    }
    return whole | _times(record.whole, None, record.whole_host, None)


def _layer(row: LayerRow) -> Cells:
    times = (row.inclusive, row.self_, row.host_inclusive, row.host_self)
    return _plain(row, *_LAYER) | _times(*times)


def _times(*summaries: Summary | None) -> Cells:
    """The columns of the four times; all of them empty for one that was not measured."""
    cells: Cells = {}
    for name, summary in zip(_TIMES, summaries, strict=True):
        for field in _FIGURES:
            unit = "" if field in _UNITLESS else "_s"
            value = None if summary is None else _cell(field, getattr(summary, field))
            cells[f"{name}_{field}{unit}"] = value
    return cells


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    """Shapes as the command line reads them: ``1x3x500x334``; several with a blank between."""
    return " ".join("x".join(str(size) for size in shape) for shape in shapes)


render.register(Profile, _profile)
render.register(Comparison, _comparison)
render.register(TrainingProfile, _training)
render.register(TrainingRun, _epochs)
render.register(TrainingEstimate, _forecast)
render.register(Sweep, _points)
render.register(DetectionEstimates, _detectors)
render.register(DetectionRun, _detection_epochs)
for _kind in (Structure, MemoryReport, MemoryEstimate):
    render.register(_kind, _each_row)
