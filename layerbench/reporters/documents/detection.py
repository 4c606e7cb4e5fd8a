"""Documents of estimates for detectors, and of a detector's training taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from itertools import groupby

from layerbench import units
from layerbench.records.detection_estimate import (
    DetectionEstimates,
    DetectorEstimate,
    Found,
    PartRow,
)
from layerbench.records.detection_run import (
    Bottleneck,
    DetectionEpoch,
    DetectionRun,
    OperatorRow,
    Tuning,
    Usage,
)
from layerbench.records.timing import Summary
from layerbench.records.workload import Frozen
from layerbench.reporters import formatting
from layerbench.reporters.documents.shared import (
    Document,
    Table,
    known,
    phase_table,
    surroundings,
)

# Of each part and phase, so many operators are listed.
OPERATORS = 5
BOTTLENECK_NAMES = {
    "data": "waiting for data",
    "copy": "copying to the device",
    "launch": "launching: Python and PyTorch between the operators",
    "compute": "computing",
}


@singledispatch
def document(record: Frozen) -> Document:
    """The document of a record.

    Raises:
        TypeError: there is none of such a record.
    """
    raise TypeError(f"no document for a {type(record).__name__}")


# --- estimates -----------------------------------------------------------------------------


@document.register
def _(record: DetectionEstimates) -> Document:
    height, width = record.size
    made_up = record.data == "synthetic"
    images = f"made up, {height}x{width} as handed over" if made_up else record.data
    alone = len(record.rows) == 1
    return Document(
        title=f"Detection: what {formatting.plural(record.epochs, 'epoch')} of "
        f"{units.count(record.samples)} images will take",
        fields=[
            ("Training", f"batch {record.batch}, {record.precision}, SGD with momentum"),
            ("Images", images),
            *surroundings(record.environment),
        ],
        tables=[
            _estimates(record),
            _intervals(record),
            *([_phases_of(record.rows[0]), _points(record.rows[0])] if alone else []),
            _parts_of_all(record),
            _content(record),
        ],
        lists=[
            ("Not measured", [f"{row.model}: {row.why}" for row in record.failures]),
            ("Assumed", record.assumptions),
            ("Warnings", record.environment.warnings),
            ("Notes", [*_notes(record), *record.notes]),
        ],
    )


def _estimates(record: DetectionEstimates) -> Table:
    rows = [
        [
            row.model,
            units.count(row.parameters, short=True),
            *_memory(row),
            units.seconds(row.forward_s),
            units.seconds(row.backward_s),
            units.seconds(row.step.mean),
            units.duration(row.training.value),
            units.seconds(row.one_image.median),
            units.seconds(row.one_batch.median),
        ]
        for row in record.rows
    ]
    header = [
        "model", "parameters", "weights MiB", "activations MiB", "peak MiB", "forward", "backward",
        "step", "training", "1 image", f"batch of {record.batch}",
    ]  # fmt: skip
    title = "Memory and forward, backward and a step in training (means); inference (medians)"
    return Table(title, header, rows, "lrrrrrrrrrr")


def _memory(row: DetectorEstimate) -> list[str]:
    if row.memory is None:
        return ["-", "-", "-"]
    sizes = (row.memory.parameters, row.memory.activations, row.memory.peak)
    return [units.mebibytes(size, unit=False) for size in sizes]


def _intervals(record: DetectionEstimates) -> Table:
    rows = [
        [row.model, str(row.step.n), known(row.epoch), known(row.training), known(row.inference)]
        for row in record.rows
    ]
    header = ["model", "steps", "an epoch", "training", "inference with all images once"]
    return Table("Durations with their intervals", header, rows, "lrlll")


def _phases_of(row: DetectorEstimate) -> Table:
    return phase_table(
        f"A step ({row.warmup} warm-up + {row.step.n} measured)", row.phases, row.step
    )


def _parts_of_all(record: DetectionEstimates) -> Table:
    rows = [
        [estimate.model if number == 0 else "", *cells]
        for estimate in record.rows
        for number, cells in enumerate(_parts(estimate.parts, estimate.step))
    ]
    header = ["model", "part", "forward ms", "backward ms", "of the step", "inference ms"]
    title = f"Parts: in training, and in inference with a batch of {record.batch} (means)"
    return Table(title, header, rows, "ll..r.")


def _parts(parts: Sequence[PartRow], step: Summary) -> list[list[str]]:
    return [
        [
            part.name,
            formatting.ms(part.forward, "mean"),
            formatting.ms(part.backward, "mean"),
            _of_step(part, step),
            formatting.ms(part.inference, "mean"),
        ]
        for part in parts
    ]


def _of_step(part: PartRow, step: Summary) -> str:
    times = [time.mean for time in (part.forward, part.backward) if time is not None]
    return units.percent(sum(times) / step.mean, digits=1) if times and step.mean else "-"


def _content(record: DetectionEstimates) -> Table:
    rows = [
        [
            row.model,
            f"{row.boxes:.1f}",
            _number(row.trained.proposals),
            _number(row.inferred.proposals),
            _number(row.inferred.detections),
            *(
                ["-"] * 4
                if row.fit is None
                else [
                    units.seconds(row.fit.base_s),
                    _slope(row.fit.per_proposal_s),
                    _slope(row.fit.per_detection_s),
                    units.percent(row.fit.worst),
                ]
            ),
        ]
        for row in record.rows
    ]
    header = [
        "model", "boxes", "proposals in training", "proposals", "detections",
        "1 image: nothing found", "a proposal", "a detection", "worst fit",
    ]  # fmt: skip
    title = "What an image held, and how the latency of one depends on it"
    return Table(title, header, rows, "lrrrrrrrr")


def _points(row: DetectorEstimate) -> Table:
    rows = [
        [
            _number(point.found.proposals),
            _number(point.found.detections),
            formatting.ms(point.latency, "median"),
            "-" if row.fit is None else units.milliseconds(row.fit.latency_s(point.found)),
            point.latency.verdict,
        ]
        for point in row.points
    ]
    header = ["proposals", "detections", "latency ms", "by the fit", ""]
    return Table("Latency of one image by what is found", header, rows, "rr..l")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _slope(value: float | None) -> str:
    return "-" if value is None else units.seconds(value)


def _notes(record: DetectionEstimates) -> list[str]:
    notes = [f"{row.model}: {note}" for row in record.rows for note in row.notes]
    if record.rows:
        worst = max(abs(row.parts_ratio - 1) for row in record.rows)
        notes.append(
            "the parts' forward and backward, and what belongs to none, add up to these phases "
            f"within {units.percent(worst, digits=2)}"
        )
    if any(row.trained.proposals is None for row in record.rows):
        notes.append(
            "proposals of a detector without a proposal network are the candidates that go into "
            "non-maximum suppression"
        )
    return notes


# --- a training ----------------------------------------------------------------------------


@document.register
def _(record: DetectionRun) -> Document:
    return Document(
        title=f"Training {record.recipe.model} on {record.recipe.data}, taken apart",
        fields=[
            ("Verdict", _bottleneck(record.bottleneck)),
            (
                "Model",
                f"{record.recipe.model} ({record.model_type}), {units.count(record.parameters)} "
                f"parameters, {len(record.classes)} classes with the background",
            ),
            ("Data", _data(record)),
            ("Recipe", _recipe(record)),
            *surroundings(record.environment),
        ],
        tables=[
            _epochs(record.epochs),
            phase_table(f"A step ({record.measured} measured)", record.phases, record.step),
            _run_parts(record),
            _shares(record.bottleneck),
            _operators(record),
            _usage(record.usage),
            _tuning(record.tuning),
        ],
        lists=[
            ("Advice", () if record.bottleneck is None else record.bottleneck.advice),
            ("Images that could not be read", record.unreadable),
            ("Warnings", record.environment.warnings),
            ("Notes", [*_run_notes(record), *record.notes]),
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


def _epochs(epochs: Sequence[DetectionEpoch]) -> Table:
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
    return Table("Epochs", header, rows, "rrrrlrrrrr")


def _run_parts(record: DetectionRun) -> Table:
    if record.step is None:
        return Table("", [], [], "")
    rows = [
        [*cells[:-1], "-" if part.kept is None else units.mebibytes(part.kept, unit=False)]
        for part, cells in zip(record.parts, _parts(record.parts, record.step), strict=True)
    ]
    header = ["part", "forward ms", "backward ms", "of the step", "kept MiB"]
    return Table("Parts of the detector (means)", header, rows, "l..rr")


def _shares(found: Bottleneck | None) -> Table:
    if found is None:
        return Table("", [], [], "")
    rows = [
        [BOTTLENECK_NAMES[kind], units.percent(part, digits=1)]
        for kind, part in found.shares.items()
    ]
    return Table(f"Where a step goes ({found.how})", ["", "share"], rows, "lr")


def _operators(record: DetectionRun) -> Table:
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
    return Table(title, header, rows, "lllr." + "." * on_device)


def _device_ms(row: OperatorRow) -> str:
    return "-" if row.device_s is None else units.milliseconds(row.device_s)


def _usage(usage: Usage | None) -> Table:
    if usage is None or not usage.samples:
        return Table("", [], [], "")
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
    return Table(title, ["", "least", "mean", "most"], rows, "lrrr")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tuning(tuning: Tuning | None) -> Table:
    if tuning is None:
        return Table("", [], [], "")
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
    return Table(title, header, rows, "rr.rrl")


def _run_notes(record: DetectionRun) -> list[str]:
    notes = []
    if record.parts_ratio is not None:
        notes.append(
            "the parts' forward and backward, and "
            f"{units.seconds(record.outside_s)} of adding the losses and autograd's start, add up "
            f"to {record.parts_ratio:.6f} of these phases"
        )
    if record.trained.proposals is not None:
        notes.append(f"proposals that the heads learn from, an image: {_found(record.trained)}")
    if record.profiled_s is not None and record.step is not None:
        slower = record.profiled_s / record.step.mean
        notes.append(f"under torch.profiler a step took {slower:.2f} times as long")
    if record.usage is not None and record.usage.no_device:
        notes.append(record.usage.no_device)
    return notes


def _found(found: Found) -> str:
    return _number(found.proposals)
