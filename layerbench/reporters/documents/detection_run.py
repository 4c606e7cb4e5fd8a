"""The document of a detector's training, taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from layerbench import units
from layerbench.records.detection_run import (
    Bottleneck,
    DetectionEpoch,
    DetectionRun,
    OperatorRow,
    Tuning,
    Usage,
)
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared

# Of each part and phase, so many operators are listed.
OPERATORS = 5
BOTTLENECK_NAMES = {
    "data": "waiting for data",
    "copy": "copying to the device",
    "launch": "launching: Python and PyTorch between the operators",
    "compute": "computing",
}


def document(record: DetectionRun) -> layout.Document:
    """The bottleneck first, then what it was found in."""
    fields = [
        ("Verdict", _bottleneck(record.bottleneck)),
        (
            "Model",
            f"{record.recipe.model} ({record.model_type}), {units.count(record.parameters)} "
            f"parameters, {len(record.classes)} classes with the background",
        ),
        ("Data", _data(record)),
        ("Recipe", _recipe(record)),
        *shared.surroundings(record.environment),
    ]
    return layout.Document(
        title=f"Training {record.recipe.model} on {record.recipe.data}, taken apart",
        head=[layout.Fields(fields)],
        sections=[
            _epochs(record.epochs),
            shared.phase_table(f"A step ({record.measured} measured)", record.phases, record.step),
            _run_parts(record),
            _shares(record.bottleneck),
            _operators(record),
            _usage(record.usage),
            _tuning(record.tuning),
            layout.listed("Advice", () if record.bottleneck is None else record.bottleneck.advice),
            layout.listed("Images that could not be read", record.unreadable),
            layout.listed("Warnings", record.environment.warnings),
            layout.listed("Notes", [*_run_notes(record), *record.notes]),
        ],
    )


def _bottleneck(found: Bottleneck | None) -> str:
    if found is None:
        return ""
    part = units.percent(found.shares[found.kind], digits=0)
    name = BOTTLENECK_NAMES[found.kind].partition(":")[0]
    return f"the bottleneck is {name}: {part} of a step"


def _data(record: DetectionRun) -> str:
    recipe = record.recipe
    held = "" if record.boxes is None else f", {record.boxes:.1f} boxes an image"
    chosen = f" (boxes from {recipe.boxes}, {recipe.labels})" if recipe.data == "pets" else ""
    return f"{recipe.data}{chosen}, {units.count(record.images)} images to train on{held}"


def _recipe(record: DetectionRun) -> str:
    recipe = record.recipe
    loading = (
        f"{formatting.plural(recipe.workers, 'process')} more for loading, prefetch factor "
        f"{recipe.prefetch_factor}"
        if recipe.workers
        else "images are loaded in the training process"
    )
    parts = [
        f"batch {recipe.batch}",
        formatting.plural(recipe.epochs, "epoch"),
        f"SGD, learning rate {recipe.lr:g}, momentum {recipe.momentum:g}, weight decay "
        f"{recipe.weight_decay:g}",
        recipe.precision,
        "published weights" if recipe.pretrained else "random weights",
        f"images resized to {recipe.min_size} pixels at the shorter side"
        if recipe.min_size
        else "",
        loading,
        f"at most {recipe.limit} steps an epoch" if recipe.limit else "",
        f"seed {recipe.seed}",
    ]
    return "; ".join(part for part in parts if part)


def _epochs(epochs: Sequence[DetectionEpoch]) -> layout.Section:
    rows = [
        [
            str(row.epoch),
            str(row.steps),
            str(row.images),
            f"{row.loss:.4f}",
            ", ".join(
                f"{name.removeprefix('loss_')} {loss:.4f}" for name, loss in row.losses.items()
            ),
            units.duration(row.train_s),
            units.per_second(row.images_per_s),
            str(row.unreadable) if row.unreadable else "-",
            "-" if row.allocated is None else units.bytes_(row.allocated),
            "-" if row.resident is None else units.bytes_(row.resident),
        ]
        for row in epochs
    ]
    header = [
        "epoch", "steps", "images", "loss", "losses", "took", "images/s", "unreadable",
        "allocated", "resident",
    ]  # fmt: skip
    return layout.table("Epochs", header, rows, "rrrrlrrrrr")


def _run_parts(record: DetectionRun) -> layout.Section:
    if record.step is None:
        return layout.listed("", [])
    rows = [
        [*cells[:-1], "-" if part.kept is None else units.mebibytes(part.kept, unit=False)]
        for part, cells in zip(
            record.parts, shared.part_cells(record.parts, record.step), strict=True
        )
    ]
    header = ["part", "forward ms", "backward ms", "of the step", "kept MiB"]
    return layout.table("Parts of the detector (means)", header, rows, "l..rr")


def _shares(found: Bottleneck | None) -> layout.Section:
    if found is None:
        return layout.listed("", [])
    rows = [
        [BOTTLENECK_NAMES[kind], units.percent(part, digits=1)]
        for kind, part in found.shares.items()
    ]
    return layout.table(f"Where a step goes ({found.how})", ["", "share"], rows, "lr")


def _operators(record: DetectionRun) -> layout.Section:
    on_device = any(row.device_s is not None for row in record.operators)
    rows: list[list[str]] = []
    for (part, phase), group in groupby(record.operators, key=lambda row: (row.part, row.phase)):
        for number, row in enumerate(list(group)[:OPERATORS]):
            first = number == 0
            rows.append(
                [
                    (part or "-") if first else "",
                    phase if first else "",
                    row.name,
                    f"{row.calls:.0f}" if row.calls >= 1 else f"{row.calls:.1f}",
                    units.milliseconds(row.host_s),
                    *([_device_ms(row)] if on_device else []),
                ]
            )
    header = [
        "part",
        "phase",
        "operator",
        "calls",
        "host ms",
        *(["device ms"] if on_device else []),
    ]
    title = (
        f"Operators by part ({formatting.plural(record.profiled, 'step')} under torch.profiler; a "
        f"step's mean, without what an operator calls; the longest {OPERATORS} of each)"
    )
    return layout.table(title, header, rows, "lllr." + "." * on_device)


def _device_ms(row: OperatorRow) -> str:
    return "-" if row.device_s is None else units.milliseconds(row.device_s)


def _usage(usage: Usage | None) -> layout.Section:
    if usage is None or not usage.samples:
        return layout.listed("", [])
    samples = usage.samples

    def row(name: str, values: Sequence[float], text: str) -> list[str]:
        return [name, *(text.format(value) for value in (min(values), _mean(values), max(values)))]

    rows = [
        row("CPU, this process and its loaders, cores", [s.process_cpu for s in samples], "{:.2f}"),
        row("CPU, whole machine, %", [100 * s.system_cpu for s in samples], "{:.0f}"),
        row("resident, MiB", [s.resident / 2**20 for s in samples], "{:.0f}"),
    ]
    device = [100 * s.device for s in samples if s.device is not None]
    allocated = [s.allocated / 2**20 for s in samples if s.allocated is not None]
    if device:
        rows.append(row("accelerator, %", device, "{:.0f}"))
    if allocated:
        rows.append(row("allocated on it, MiB", allocated, "{:.0f}"))
    title = f"Utilization ({len(samples)} samples, {usage.cores} cores)"
    return layout.table(title, ["", "least", "mean", "most"], rows, "lrrr")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tuning(tuning: Tuning | None) -> layout.Section:
    if tuning is None:
        return layout.listed("", [])
    chosen = (tuning.workers, tuning.prefetch_factor)
    rows = [
        [
            str(point.workers),
            str(point.prefetch_factor) if point.workers else "-",
            formatting.ms(point.step, "median"),
            units.per_second(point.images_per_s),
            units.percent(point.waiting, digits=1),
            "take this" if (point.workers, point.prefetch_factor) == chosen else "",
        ]
        for point in tuning.points
    ]
    header = ["workers", "prefetch factor", "step ms", "images/s", "waiting for data", ""]
    near = units.percent(tuning.within)
    title = (
        f"Settings of the loader (the smallest that waits at most {near} of the time, or is within "
        f"{near} of the best)"
    )
    return layout.table(title, header, rows, "rr.rrl")


def _run_notes(record: DetectionRun) -> list[str]:
    notes = []
    if record.parts_ratio is not None:
        notes.append(
            "the parts' forward and backward, and "
            f"{units.seconds(record.outside_s)} of adding the losses and autograd's start, add up "
            f"to {record.parts_ratio:.6f} of these phases"
        )
    if record.trained.proposals is not None:
        notes.append(
            f"proposals that the heads learn from, an image: {record.trained.proposals:.0f}"
        )
    if record.profiled_s is not None and record.step is not None:
        slower = record.profiled_s / record.step.mean
        notes.append(f"under torch.profiler a step took {slower:.2f} times as long")
    if record.usage is not None and record.usage.no_device:
        notes.append(record.usage.no_device)
    return notes
