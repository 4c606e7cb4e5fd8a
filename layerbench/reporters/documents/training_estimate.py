"""The document of an estimate of a training's time."""

from __future__ import annotations

from layerbench import units
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.reporters import formatting
from layerbench.reporters.documents.parts import Document, Fields, listed
from layerbench.reporters.documents.shared import known, phase_table, surroundings


def document(record: TrainingEstimate) -> Document:
    """The answer with its interval first, then what it is made of."""
    recipe = record.recipe
    height, width = recipe.size
    fields = [
        (
            "Total",
            f"{known(record.total)} for {formatting.plural(recipe.epochs, 'epoch')}",
        ),
        (
            "An epoch",
            f"{known(record.epoch)} for {formatting.plural(record.steps, 'step')}",
        ),
        (
            "Once",
            f"{units.seconds(record.once_s)}, part of the total: what the first steps take "
            "longer than later ones",
        ),
        (
            "Model",
            f"{recipe.model} ({record.model_type}), {units.count(record.parameters)} "
            f"parameters, {height}x{width}, batch {recipe.batch}",
        ),
        *surroundings(record.environment),
    ]
    return Document(
        title=f"How long training {recipe.model} on {recipe.data} will take",
        head=[Fields(fields)],
        sections=[
            phase_table(
                f"A step ({record.warmup} warm-up + {record.step.n} measured)",
                record.phases,
                record.step,
            ),
            listed("Assumed", record.assumptions),
            listed("Warnings", record.environment.warnings),
            listed("Notes", record.notes),
        ],
    )
