"""The document of estimates for detectors."""

from __future__ import annotations

from layerbench import units
from layerbench.records.detection_estimate import DetectionEstimates, DetectorEstimate
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared


def document(record: DetectionEstimates) -> layout.Document:
    """Every detector in a row of each table; of one alone also phases and latencies."""
    height, width = record.size
    made_up = record.data == "synthetic"
    images = f"made up, {height}x{width} as handed over" if made_up else record.data
    alone = len(record.rows) == 1
    fields = [
        ("Training", f"batch {record.batch}, {record.precision}, SGD with momentum"),
        ("Images", images),
        *shared.surroundings(record.environment),
    ]
    return layout.Document(
        title=f"Detection: what {formatting.plural(record.epochs, 'epoch')} of "
        f"{units.count(record.samples)} images will take",
        head=[layout.Fields(fields)],
        sections=[
            _estimates(record),
            _intervals(record),
            *([_phases_of(record.rows[0]), _points(record.rows[0])] if alone else []),
            _parts_of_all(record),
            _content(record),
            layout.listed("Not measured", [f"{row.model}: {row.why}" for row in record.failures]),
            layout.listed("Assumed", record.assumptions),
            layout.listed("Warnings", record.environment.warnings),
            layout.listed("Notes", [*_notes(record), *record.notes]),
        ],
    )


def _estimates(record: DetectionEstimates) -> layout.Section:
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
    return layout.table(title, header, rows, "lrrrrrrrrrr")


def _memory(row: DetectorEstimate) -> list[str]:
    if row.memory is None:
        return ["-", "-", "-"]
    sizes = (row.memory.parameters, row.memory.activations, row.memory.peak)
    return [units.mebibytes(size, unit=False) for size in sizes]


def _intervals(record: DetectionEstimates) -> layout.Section:
    rows = [
        [
            row.model,
            str(row.step.n),
            shared.known(row.epoch),
            shared.known(row.training),
            shared.known(row.inference),
        ]
        for row in record.rows
    ]
    header = ["model", "steps", "an epoch", "training", "inference with all images once"]
    return layout.table("Durations with their intervals", header, rows, "lrlll")


def _phases_of(row: DetectorEstimate) -> layout.Section:
    return shared.phase_table(
        f"A step ({row.warmup} warm-up + {row.step.n} measured)", row.phases, row.step
    )


def _parts_of_all(record: DetectionEstimates) -> layout.Section:
    rows = [
        [estimate.model if number == 0 else "", *cells]
        for estimate in record.rows
        for number, cells in enumerate(shared.part_cells(estimate.parts, estimate.step))
    ]
    header = ["model", "part", "forward ms", "backward ms", "of the step", "inference ms"]
    title = f"Parts: in training, and in inference with a batch of {record.batch} (means)"
    return layout.table(title, header, rows, "ll..r.")


def _content(record: DetectionEstimates) -> layout.Section:
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
    return layout.table(title, header, rows, "lrrrrrrrr")


def _points(row: DetectorEstimate) -> layout.Section:
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
    return layout.table("Latency of one image by what is found", header, rows, "rr..l")


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
