"""The document of an estimate of a training's time."""

from __future__ import annotations

from layerbench import units
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.view import USUAL, View
from layerbench.records.workload import unusual_arithmetic
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared


def document(record: TrainingEstimate, view: View = USUAL) -> layout.Document:
    """The total with its interval first, then its terms."""
    recipe = record.recipe
    fields = [
        (
            "Total",
            f"{shared.duration(record.total)} for {formatting.plural(recipe.epochs, 'epoch')}",
        ),
        (
            "An epoch",
            f"{shared.duration(record.epoch)} for {formatting.plural(record.steps, 'step')}",
        ),
        (
            "Once",
            f"{units.seconds(record.once_s)}, part of the total: what the first steps take "
            "longer than later ones",
        ),
        *_own_inputs(record),
    ]
    ran = [
        (
            "Model",
            f"{recipe.model} ({record.model_type}), {units.count(record.parameters)} "
            f"parameters, {', '.join(_what(record))}",
        ),
        *(formatting.files(record.workload) if record.workload else ()),
        *shared.surroundings(record.environment),
    ]
    return layout.Document(
        title=f"How long training {recipe.model} on {_data(record)} will take",
        head=[
            *shared.weaknesses(record.environment, record.step, *_doubts(record)),
            layout.Fields(fields),
            layout.Text(_ran(record)),
            shared.phase_table(
                f"A step ({record.warmup} warm-up + {record.step.n} measured)",
                record.phases,
                record.step,
            ),
            shared.phases_summed(record, view.width, _besides(record)),
        ],
        sections=[
            layout.listed("Assumed", record.assumptions),
            *shared.warnings_and_notes(record),
            layout.what_ran(ran),
        ],
    )


def _doubts(record: TrainingEstimate) -> list[str]:
    return [] if record.not_finite is None else [record.not_finite]


def _besides(record: TrainingEstimate) -> str:
    """What an epoch takes besides its steps."""
    if record.validation_step_s is None or not record.epoch.value:
        return ""
    part = record.val_steps * record.validation_step_s / record.epoch.value
    return f"validation {units.percent(part, digits=1)} of an epoch"


def _own_inputs(record: TrainingEstimate) -> list[tuple[str, str]]:
    """What the figures leave out where nothing is loaded and nothing is labelled."""
    if record.batches == "data set":
        return []
    return [
        ("Data", "one batch that waits in memory; no loading is counted"),
        ("Loss", f"of the output alone: {record.loss}"),
    ]


def _data(record: TrainingEstimate) -> str:
    if record.batches == "data set":
        return record.recipe.data
    given = record.workload.inputs if record.workload else None
    return given.name if given else "inputs of its own"


def _what(record: TrainingEstimate) -> list[str]:
    """The input of a step, and what the step does besides the usual."""
    recipe, workload = record.recipe, record.workload
    if record.batches == "own inputs" and workload is not None:
        given = [units.shape(workload.shape), *formatting.variant(workload)]
        return [one for one in given if one != "train"]
    given = [units.by_x(recipe.size), f"batch {recipe.batch}"]
    if workload is not None and workload.checkpoint is not None:
        given.append(f"checkpoint {workload.checkpoint}")
    given += unusual_arithmetic(recipe.precision)
    return [*given, *formatting.step_options(recipe)]


def _ran(record: TrainingEstimate) -> str:
    place = record.environment.device.name
    return shared.ran(record.model_type, record.parameters, *_what(record), place)


def cautions(record: TrainingEstimate) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, record.step, *_doubts(record))


def rows(record: TrainingEstimate) -> cells.Rows:
    """One row."""
    row = {
        **cells.fields(record.recipe, "model", "data", "batch", "epochs"),
        **cells.fields(record, "samples", "steps"),
        **cells.place(record.environment),
        **{f"{phase.name}_mean_s": phase.time.mean for phase in record.phases},
        "step_mean_s": record.step.mean,
        **cells.durations(record, "epoch", "total"),
    }
    return {}, [row]
