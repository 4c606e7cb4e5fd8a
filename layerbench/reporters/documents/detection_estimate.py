"""The document of estimates for detectors."""

from __future__ import annotations

from layerbench import units
from layerbench.records.detection_estimate import (
    DetectionEstimates,
    DetectorEstimate,
    DetectorMemory,
)
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, screens, shared


def document(record: DetectionEstimates, view: View = USUAL) -> layout.Document:
    """Every detector in a row of each table; of one alone also phases and latencies."""
    height, width = record.size
    made_up = record.data == "synthetic"
    images = f"made up, {height}x{width} as handed over" if made_up else record.data
    alone = len(record.rows) == 1
    fields = [
        (
            "Training",
            f"batch {record.batch}, {formatting.precision(record.precision)}, SGD with momentum",
        ),
        ("Images", images),
        *shared.surroundings(record.environment),
    ]
    return layout.Document(
        title=f"Detection: what {formatting.plural(record.epochs, 'epoch')} of "
        f"{units.count(record.samples)} images will take",
        head=[
            *shared.weaknesses(record.environment, None, *_doubts(record)),
            *_quickest(record, view),
        ],
        sections=[
            _estimates(record),
            _intervals(record),
            *([_phases_of(record.rows[0]), _points(record.rows[0])] if alone else []),
            _parts_of_all(record),
            _content(record),
            layout.listed("Not measured", [f"{row.model}: {row.why}" for row in record.failures]),
            layout.listed("Assumed", record.assumptions),
            *shared.warnings_and_notes(record, *_notes(record)),
            layout.what_ran(fields),
        ],
    )


def _doubts(record: DetectionEstimates) -> list[str]:
    fewest = min((row.step.n for row in record.rows), default=shared.FEW_ROUNDS)
    few = [f"few rounds: {formatting.plural(fewest, 'step')} of a detector"]
    left = [f"not measured: {', '.join(row.model for row in record.failures)}"]
    return (few if fewest < shared.FEW_ROUNDS else []) + (left if record.failures else [])


def _quickest(record: DetectionEstimates, view: View) -> list[layout.Part]:
    """The detectors in order of the time that training them takes."""
    if not record.rows:
        return [layout.Text("no detector was measured")]
    quickest = sorted(record.rows, key=lambda row: row.training.value)
    first = quickest[0]
    answer = (
        f"Training takes {shared.duration(first.training)}, inference with all images once "
        f"{shared.duration(first.inference)}: {first.model}"
    )
    more = ", the quickest to train" if len(quickest) > 1 else ""
    height, width = record.size
    ran = (
        f"{formatting.plural(len(quickest), 'detector')}, {height}x{width}, batch {record.batch}, "
        f"{formatting.precision(record.precision)}, {record.environment.device.name}"
    )
    table = screens.table_of(
        [_quick(row) for row in quickest[: view.top]],
        {"model": "l"},
        ("peak", "parameters", "inference"),
        cut="model",
    )
    return [
        layout.Text(answer + more),
        layout.Text(ran),
        layout.Section("Quickest to train", [table]),
    ]


def _quick(row: DetectorEstimate) -> dict[str, str]:
    peak = None if row.memory is None else row.memory.peak
    return {
        "model": row.model,
        "parameters": units.count(row.parameters, short=True),
        "peak": formatting.dash(peak, units.bytes_),
        "step": units.seconds(row.step.mean),
        "training": units.duration(row.training.value),
        "inference": units.duration(row.inference.value),
        "1 image": units.seconds(row.one_image.median),
    }


def _estimates(record: DetectionEstimates) -> layout.Section:
    rows = [
        {
            "model": row.model,
            "parameters": units.count(row.parameters, short=True),
            "weights MiB": formatting.mebibytes(getattr(row.memory, "parameters", None)),
            "activations MiB": formatting.mebibytes(getattr(row.memory, "activations", None)),
            "peak MiB": formatting.mebibytes(getattr(row.memory, "peak", None)),
            "forward": units.seconds(row.forward_s),
            "backward": units.seconds(row.backward_s),
            "step": units.seconds(row.step.mean),
            "training": units.duration(row.training.value),
            "1 image": units.seconds(row.one_image.median),
            f"batch of {record.batch}": units.seconds(row.one_batch.median),
        }
        for row in record.rows
    ]
    title = "Memory and forward, backward and a step in training (means); inference (medians)"
    return layout.table(title, rows, "lrrrrrrrrrr")


def _intervals(record: DetectionEstimates) -> layout.Section:
    rows = [
        {
            "model": row.model,
            "steps": str(row.step.n),
            "an epoch": shared.duration(row.epoch),
            "training": shared.duration(row.training),
            "inference with all images once": shared.duration(row.inference),
        }
        for row in record.rows
    ]
    return layout.table("Durations with their intervals", rows, "lrlll")


def _phases_of(row: DetectorEstimate) -> layout.Section:
    return shared.phase_table(
        f"A step ({row.warmup} warm-up + {row.step.n} measured)", row.phases, row.step
    )


def _parts_of_all(record: DetectionEstimates) -> layout.Section:
    again = any(part.recomputation for row in record.rows for part in row.parts)
    rows = [
        {
            "model": estimate.model if number == 0 else "",
            **shared.part_cells(part, estimate.step, again=again),
            "inference ms": formatting.ms(part.inference, "mean"),
        }
        for estimate in record.rows
        for number, part in enumerate(estimate.parts)
    ]
    title = f"Parts: in training, and in inference with a batch of {record.batch} (means)"
    return layout.table(title, rows, f"ll..{'.' * again}r.")


def _content(record: DetectionEstimates) -> layout.Section:
    rows = [
        {
            "model": row.model,
            "boxes": f"{row.boxes:.1f}",
            "proposals in training": _number(row.trained.proposals),
            "proposals": _number(row.inferred.proposals),
            "detections": _number(row.inferred.detections),
            "1 image: nothing found": formatting.dash(
                getattr(row.fit, "base_s", None), units.seconds
            ),
            "a proposal": formatting.dash(getattr(row.fit, "per_proposal_s", None), units.seconds),
            "a detection": formatting.dash(
                getattr(row.fit, "per_detection_s", None), units.seconds
            ),
            "worst fit": "-" if row.fit is None else units.percent(row.fit.worst),
        }
        for row in record.rows
    ]
    return layout.table(
        "What an image held, and how the latency of one depends on it", rows, "lrrrrrrrr"
    )


def _points(row: DetectorEstimate) -> layout.Section:
    rows = [
        {
            "proposals": _number(point.found.proposals),
            "detections": _number(point.found.detections),
            "latency ms": formatting.ms(point.latency, "median"),
            "by the fit": "-"
            if row.fit is None
            else units.milliseconds(row.fit.latency_s(point.found)),
            "": point.latency.verdict,
        }
        for point in row.points
    ]
    return layout.table("Latency of one image by what is found", rows, "rr..l")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


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


def cautions(record: DetectionEstimates) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, None, *_doubts(record))


def rows(record: DetectionEstimates) -> cells.Rows:
    """A row a detector."""
    options = {
        **cells.fields(record, "batch", "epochs", "samples"),
        "height": record.size[0],
        "width": record.size[1],
        "data": record.data,
        **cells.place(record.environment),
    }
    sizes = DetectorMemory.model_fields
    detectors: list[cells.Cells] = [
        {
            "model": row.model,
            "parameters": row.parameters,
            **{f"{name}_bytes": getattr(row.memory, name, None) for name in sizes},
            **{f"{phase.name}_mean_s": phase.time.mean for phase in row.phases},
            "step_mean_s": row.step.mean,
            "one_image_median_s": row.one_image.median,
            "one_batch_median_s": row.one_batch.median,
            "boxes": row.boxes,
            **cells.fields(row.inferred, "proposals", "detections"),
            **cells.durations(row, "epoch", "training", "inference"),
        }
        for row in record.rows
    ]
    return options, detectors
