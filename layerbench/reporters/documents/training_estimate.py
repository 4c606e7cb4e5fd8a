"""The document of an estimate of a training's time."""

from __future__ import annotations

from layerbench import units
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared


def document(record: TrainingEstimate, view: View = USUAL) -> layout.Document:
    """The total with its interval first, then its terms."""
    recipe = record.recipe
    height, width = recipe.size
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
    ]
    ran = [
        (
            "Model",
            f"{recipe.model} ({record.model_type}), {units.count(record.parameters)} "
            f"parameters, {height}x{width}, batch {recipe.batch}"
            + "".join(f", {said}" for said in formatting.step_options(recipe)),
        ),
        *shared.surroundings(record.environment),
    ]
    return layout.Document(
        title=f"How long training {recipe.model} on {recipe.data} will take",
        head=[
            *shared.weaknesses(record.environment, record.step),
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


def _besides(record: TrainingEstimate) -> str:
    """What an epoch takes besides its steps."""
    if record.validation_step_s is None or not record.epoch.value:
        return ""
    part = record.val_steps * record.validation_step_s / record.epoch.value
    return f"validation {units.percent(part, digits=1)} of an epoch"


def _ran(record: TrainingEstimate) -> str:
    size = f"{units.by_x(record.recipe.size)}, batch {record.recipe.batch}"
    place = record.environment.device.name
    step = formatting.step_options(record.recipe)
    return shared.ran(record.model_type, record.parameters, size, *step, place)


def cautions(record: TrainingEstimate) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, record.step)


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
