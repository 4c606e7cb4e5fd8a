"""The document of a detector's training, taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice

from layerbench import units
from layerbench.records.detection_run import (
    Bottleneck,
    DetectionEpoch,
    DetectionRun,
    Tuning,
    Usage,
)
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared

# Of each part and phase, so many operators are listed.
OPERATORS = 5
BOTTLENECK_NAMES = {
    "data": "waiting for data",
    "copy": "copying to the device",
    "launch": "launching: Python and PyTorch between the operators",
    "compute": "computing",
}


def document(record: DetectionRun, view: View = USUAL) -> layout.Document:
    """The bottleneck first, then what it was found in."""
    fields = [
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
        head=[
            *shared.weaknesses(record.environment, record.step),
            layout.Fields([("Verdict", _bottleneck(record.bottleneck)), ("A step", _step(record))]),
            layout.Text(_ran(record)),
            _parts(record),
            layout.Fields(
                [
                    ("Phases", shared.phases_line(record.phases, record.step, view.width)),
                    ("Advice", _first_advice(record.bottleneck)),
                ]
            ),
        ],
        sections=[
            _epochs(record.epochs),
            shared.phase_table(
                f"A step ({record.measured} measured)",
                record.phases,
                record.step,
                recomputation=record.recomputation,
            ),
            _shares(record.bottleneck),
            _operators(record),
            _usage(record.usage),
            _tuning(record.tuning),
            layout.listed("Advice", () if record.bottleneck is None else record.bottleneck.advice),
            layout.listed("Images that could not be read", record.unreadable),
            *shared.warnings_and_notes(record, *_notes(record)),
            layout.what_ran(fields),
        ],
    )


def _step(record: DetectionRun) -> str:
    if record.step is None:
        return ""
    rate = units.per_second(record.epochs[-1].images_per_s) if record.epochs else "-"
    return shared.answer(record.step, "each", f"{rate} images/s")


def _ran(record: DetectionRun) -> str:
    return shared.ran(
        record.model_type,
        record.parameters,
        f"batch {record.recipe.batch}",
        formatting.precision(record.recipe.precision),
        record.environment.device.name,
        formatting.plural(record.measured, "step") + " measured",
    )


def _first_advice(bottleneck: Bottleneck | None) -> str:
    return bottleneck.advice[0] if bottleneck and bottleneck.advice else ""


def _bottleneck(bottleneck: Bottleneck | None) -> str:
    if bottleneck is None:
        return ""
    part = units.percent(bottleneck.shares[bottleneck.kind], digits=0)
    name = BOTTLENECK_NAMES[bottleneck.kind].partition(":")[0]
    return f"the bottleneck is {name}: {part} of a step"


def _data(record: DetectionRun) -> str:
    recipe = record.recipe
    boxes = "" if record.boxes is None else f", {record.boxes:.1f} boxes an image"
    labels = f" (boxes from {recipe.boxes}, {recipe.labels})" if recipe.data == "pets" else ""
    return f"{recipe.data}{labels}, {units.count(record.images)} images to train on{boxes}"


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
        formatting.precision(recipe.precision),
        formatting.checkpointed(recipe.checkpoint_activations),
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
        {
            "epoch": str(row.epoch),
            "steps": str(row.steps),
            "images": str(row.images),
            "loss": f"{row.loss:.4f}",
            "losses": ", ".join(
                f"{name.removeprefix('loss_')} {loss:.4f}" for name, loss in row.losses.items()
            ),
            "took": units.duration(row.train_s),
            "images/s": units.per_second(row.images_per_s),
            "unreadable": str(row.unreadable) if row.unreadable else "-",
            "allocated": formatting.dash(row.allocated, units.bytes_),
            "resident": formatting.dash(row.resident, units.bytes_),
        }
        for row in epochs
    ]
    return layout.table("Epochs", rows, "rrrrlrrrrr")


def _parts(record: DetectionRun) -> layout.Section:
    if record.step is None:
        return layout.listed("", [])
    again = record.recomputation is not None
    rows = [
        {
            **shared.part_cells(part, record.step, again=again),
            "kept MiB": formatting.mebibytes(part.kept),
        }
        for part in record.parts
    ]
    return layout.table("Parts of the detector (means)", rows, f"l..{'.' * again}rr")


def _shares(bottleneck: Bottleneck | None) -> layout.Section:
    if bottleneck is None:
        return layout.listed("", [])
    rows = [
        {"": BOTTLENECK_NAMES[kind], "share": units.percent(part, digits=1)}
        for kind, part in bottleneck.shares.items()
    ]
    return layout.table(f"Where a step goes ({bottleneck.how})", rows, "lr")


def _operators(record: DetectionRun) -> layout.Section:
    on_device = any(row.device_s is not None for row in record.operators)
    rows = []
    for (part, phase), group in groupby(record.operators, key=lambda row: (row.part, row.phase)):
        for number, row in enumerate(islice(group, OPERATORS)):
            cells = {
                "part": (part or "-") if number == 0 else "",
                "phase": phase if number == 0 else "",
                "operator": row.name,
                "calls": f"{row.calls:.0f}" if row.calls >= 1 else f"{row.calls:.1f}",
                "host ms": units.milliseconds(row.host_s),
            }
            if on_device:
                cells["device ms"] = formatting.dash(row.device_s, units.milliseconds)
            rows.append(cells)
    title = (
        f"Operators by part ({formatting.plural(record.profiled, 'step')} under torch.profiler; a "
        f"step's mean, without what an operator calls; the longest {OPERATORS} of each)"
    )
    return layout.table(title, rows, "llcr." + "." * on_device, names=3)


def _usage(usage: Usage | None) -> layout.Section:
    if usage is None or not usage.samples:
        return layout.listed("", [])
    samples = usage.samples
    figures: list[tuple[str, str, list[float]]] = [
        ("CPU, this process and its loaders, cores", ".2f", [s.process_cpu for s in samples]),
        ("CPU, whole machine, %", ".0f", [100 * s.system_cpu for s in samples]),
        ("resident, MiB", ".0f", [s.resident / 2**20 for s in samples]),
        (
            "accelerator, recently, %",
            ".0f",
            [100 * s.device for s in samples if s.device is not None],
        ),
        (
            "allocated on it, MiB",
            ".0f",
            [s.allocated / 2**20 for s in samples if s.allocated is not None],
        ),
        (
            "reserved on it, MiB",
            ".0f",
            [s.reserved / 2**20 for s in samples if s.reserved is not None],
        ),
    ]
    rows = [
        {
            "": name,
            "least": format(min(values), digits),
            "mean": format(sum(values) / len(values), digits),
            "most": format(max(values), digits),
        }
        for name, digits, values in figures
        if values
    ]
    return layout.table(f"Utilization ({len(samples)} samples, {usage.cores} cores)", rows, "lrrr")


def _tuning(tuning: Tuning | None) -> layout.Section:
    if tuning is None:
        return layout.listed("", [])
    best = (tuning.workers, tuning.prefetch_factor)
    rows = [
        {
            "workers": str(point.workers),
            "prefetch factor": str(point.prefetch_factor) if point.workers else "-",
            "step ms": formatting.ms(point.step, "median"),
            "images/s": units.per_second(point.images_per_s),
            "waiting for data": units.percent(point.waiting, digits=1),
            "": "take this" if (point.workers, point.prefetch_factor) == best else "",
        }
        for point in tuning.points
    ]
    near = units.percent(tuning.within)
    title = (
        f"Settings of the loader (the smallest that waits at most {near} of the time, or is within "
        f"{near} of the best)"
    )
    return layout.table(title, rows, "rr.rrl")


def _notes(record: DetectionRun) -> list[str]:
    notes = []
    both = "forward and backward"
    if record.recomputation is not None:
        both = "forward, backward and recomputation"
    if record.parts_ratio is not None:
        notes.append(
            f"the parts' {both}, and "
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


def cautions(record: DetectionRun) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, record.step)


def rows(record: DetectionRun) -> cells.Rows:
    """A row an epoch, with the losses by name."""
    ran = cells.fields(record.recipe, "model", "data", "batch")
    return shared.epochs(ran, DetectionEpoch, record.epochs)
