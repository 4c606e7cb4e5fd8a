"""Documents of training runs, sweeps and forecasts."""

from __future__ import annotations

from functools import singledispatch

from layerbench import units
from layerbench.records.sweep import Sweep
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_run import Recipe, TrainingRun
from layerbench.records.training_step import StepPhase
from layerbench.records.workload import Frozen
from layerbench.reporters import formatting
from layerbench.reporters.documents.shared import (
    PHASE_NAMES,
    Document,
    Table,
    known,
    memory_cells,
    percent,
    phase_table,
    share,
    surroundings,
)


@singledispatch
def document(record: Frozen) -> Document:
    """The document of a record.

    Raises:
        TypeError: there is none of such a record.
    """
    raise TypeError(f"no document for a {type(record).__name__}")


# --- a training run ------------------------------------------------------------------------


@document.register
def _(record: TrainingRun) -> Document:
    recipe, best = record.recipe, record.best
    outcome: str = record.outcome
    if best is not None:
        outcome = (
            f"{outcome}; best validation accuracy {units.percent(best.val_accuracy, digits=2)} in "
            f"epoch {best.epoch} of {len(record.epochs)}"
        )
    return Document(
        title=f"Training {recipe.model} on {recipe.data}",
        fields=[
            ("Outcome", outcome),
            ("Model", _model(record)),
            ("Data", _data(record)),
            ("Recipe", _recipe(recipe)),
            *surroundings(record.environment),
            ("Resumed", _resumed(record)),
        ],
        tables=[
            phase_table("A step (last epoch, first process)", record.phases, record.step),
            _epochs(record),
            _epoch_times(record),
            _ranks(record),
            _points(record),
        ],
        lists=[
            ("Images that could not be read", record.unreadable),
            ("Warnings", record.environment.warnings),
            ("Notes", record.notes),
        ],
    )


def _model(record: TrainingRun) -> str:
    flops = "" if record.flops is None else f", {units.flops(record.flops)} an image's forward"
    published = record.recipe.weights
    weights = f"published weights {published}" if published else "random weights"
    return (
        f"{record.recipe.model} ({record.model_type}), {units.count(record.parameters)} parameters"
        f"{flops}, from {weights}"
    )


def _data(record: TrainingRun) -> str:
    height, width = record.recipe.size
    return (
        f"{record.recipe.data}, {units.count(record.train_images)} images to train on and "
        f"{units.count(record.val_images)} to validate, {record.classes} classes, {height}x{width}"
    )


def _recipe(recipe: Recipe) -> str:
    parts = [
        f"batch {recipe.batch}" + (f" in each of {recipe.ranks} processes" * (recipe.ranks > 1)),
        f"{formatting.plural(recipe.epochs, 'epoch')}",
        f"AdamW, learning rate {recipe.lr:g} after {recipe.warmup_epochs:g} epochs of "
        f"warm-up, then falling to 0, weight decay {recipe.weight_decay:g}",
        recipe.precision,
        f"patience {recipe.patience}" if recipe.patience else "no early stopping",
        f"at most {recipe.limit} steps an epoch" if recipe.limit else "",
        f"seed {recipe.seed}",
    ]
    return "; ".join(part for part in parts if part)


def _resumed(record: TrainingRun) -> str:
    if not record.resumed_after:
        return ""
    return "after epoch " + ", ".join(map(str, record.resumed_after))


def _epochs(record: TrainingRun) -> Table:
    rows = [
        [
            str(row.epoch),
            f"{row.lr:.2e}",
            f"{row.train_loss:.4f}",
            percent(row.train_accuracy),
            f"{row.val_loss:.4f}",
            percent(row.val_accuracy),
            "-" if row.val_top5 is None else percent(row.val_top5),
            str(row.unreadable) if row.unreadable else "-",
            "kept" if row.epoch == record.best_epoch else "",
        ]
        for row in record.epochs
    ]
    header = [
        "epoch",
        "rate",
        "loss",
        "accuracy",
        "val loss",
        "val accuracy",
        "top 5",
        "unreadable",
    ]
    return Table("Epochs: what was learned", [*header, ""], rows, "rrrrrrrrl")


def _epoch_times(record: TrainingRun) -> Table:
    names = _phase_names(record)
    rows = [
        [
            str(row.epoch),
            str(row.steps),
            f"{row.train_s:.2f}",
            f"{row.validation_s:.2f}",
            units.per_second(row.images_per_s),
            *(_in_seconds(row.phases_s.get(name)) for name in names),
            "-" if row.allocated is None else units.bytes_(row.allocated),
            "-" if row.reserved is None else units.bytes_(row.reserved),
            "-" if row.resident is None else units.bytes_(row.resident),
        ]
        for row in record.epochs
    ]
    phases = [PHASE_NAMES[name].removesuffix(" to the device") + " s" for name in names]
    return Table(
        "Epochs: what they took",
        ["epoch", "steps", "training s", "validation s", "images/s", *phases,
         "allocated", "reserved", "resident"],
        rows,
        "rrrrr" + "r" * len(phases) + "rrr",
    )  # fmt: skip


def _phase_names(record: TrainingRun) -> list[StepPhase]:
    """Those that any epoch has, in the order in which they come."""
    return list(dict.fromkeys(name for row in record.epochs for name in row.phases_s))


def _in_seconds(time: float | None) -> str:
    return "-" if time is None else f"{time:.2f}"


def _ranks(record: TrainingRun) -> Table:
    alone = len(record.ranks) < 2
    rows = [
        [
            str(times.rank),
            str(times.machine),
            times.device,
            *(formatting.ms(times.step, name) for name in ("mean", "median", "p95")),
            formatting.ms(times.all_reduce, "mean"),
            share(times.all_reduce, times.step),
        ]
        for times in record.ranks
    ]
    header = [
        "rank",
        "machine",
        "device",
        "step mean ms",
        "median",
        "p95",
        "all-reduce ms",
        "of step",
    ]
    return Table("Processes (last epoch)", header, [] if alone else rows, "rrl....r")


def _points(record: TrainingRun) -> Table:
    rows = [
        [
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            point.latency.verdict,
            *memory_cells(point.allocated, point.reserved),
        ]
        for point in record.points
    ]
    predicted = any(point.memory == "predicted" for point in record.points)
    where = " (predicted for a GPU)" if predicted else ""
    return Table(
        "Inference with the trained model",
        ["batch", "latency ms", "an image ms", "", f"allocated{where}", "reserved"],
        rows,
        "r..lrr",
    )


# --- a sweep -------------------------------------------------------------------------------


@document.register
def _(record: Sweep) -> Document:
    rows = [
        [
            point.model,
            f"{point.size[0]}x{point.size[1]}",
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            units.per_second(1 / point.per_image_s) if point.per_image_s else "-",
            point.latency.verdict,
            "-" if point.flops is None else f"{point.flops / 1e9:.2f}",
            *memory_cells(point.allocated, point.reserved),
            point.memory,
        ]
        for point in record.points
    ]
    header = ["model", "size", "batch", "latency ms", "an image ms", "images/s", "", "GFLOPs"]
    return Document(
        title="Latency and memory against batch size",
        fields=surroundings(record.environment),
        tables=[
            Table("Points", [*header, "allocated", "reserved", ""], rows, "llr...lrrrl"),
            _finished(record),
        ],
        lists=[
            ("Where the climb ended", [_end(record, index) for index in range(len(record.ends))]),
            ("Warnings", record.environment.warnings),
            ("Notes", record.notes),
        ],
    )


def _end(record: Sweep, index: int) -> str:
    end = record.ends[index]
    verb = "was not measured" if end.fits else "does not fit"
    where = f"{end.model}, {end.size[0]}x{end.size[1]}: a batch of {end.batch}"
    return f"{where} {verb}: {end.why}"


def _finished(record: Sweep) -> Table:
    rows = [
        [
            run.model,
            run.data,
            f"{run.size[0]}x{run.size[1]}",
            f"{run.flops / 1e9:.2f}",
            units.count(run.parameters, short=True),
            percent(run.accuracy),
        ]
        for run in record.runs
    ]
    header = ["model", "data", "size", "GFLOPs an image", "parameters", "val accuracy"]
    return Table("Finished trainings", header, rows, "lllrrr")


# --- a forecast ----------------------------------------------------------------------------


@document.register
def _(record: TrainingEstimate) -> Document:
    recipe = record.recipe
    height, width = recipe.size
    return Document(
        title=f"How long training {recipe.model} on {recipe.data} will take",
        fields=[
            ("Total", f"{known(record.total)} for {formatting.plural(recipe.epochs, 'epoch')}"),
            ("An epoch", f"{known(record.epoch)} for {formatting.plural(record.steps, 'step')}"),
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
        ],
        tables=[
            phase_table(
                f"A step ({record.warmup} warm-up + {record.step.n} measured)",
                record.phases,
                record.step,
            )
        ],
        lists=[
            ("Assumed", record.assumptions),
            ("Warnings", record.environment.warnings),
            ("Notes", record.notes),
        ],
    )
