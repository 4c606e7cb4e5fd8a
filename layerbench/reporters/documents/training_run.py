"""The document of a training run."""

from __future__ import annotations

from layerbench import units
from layerbench.records.training_run import Recipe, TrainingRun
from layerbench.records.training_step import StepPhase
from layerbench.reporters import formatting
from layerbench.reporters.documents import layout, shared


def document(record: TrainingRun) -> layout.Document:
    """One epoch after the other, and what a step of the last one took."""
    recipe, best = record.recipe, record.best
    outcome: str = record.outcome
    if best is not None:
        outcome = (
            f"{outcome}; best validation accuracy {units.percent(best.val_accuracy, digits=2)} in "
            f"epoch {best.epoch} of {len(record.epochs)}"
        )
    fields = [
        ("Outcome", outcome),
        ("Model", _model(record)),
        ("Data", _data(record)),
        ("Recipe", _recipe(recipe)),
        *shared.surroundings(record.environment),
        ("Resumed", _resumed(record)),
    ]
    return layout.Document(
        title=f"Training {recipe.model} on {recipe.data}",
        head=[layout.Fields(fields)],
        sections=[
            shared.phase_table("A step (last epoch, first process)", record.phases, record.step),
            _epochs(record),
            _epoch_times(record),
            _ranks(record),
            _points(record),
            layout.listed("Images that could not be read", record.unreadable),
            layout.listed("Warnings", record.environment.warnings),
            layout.listed("Notes", record.notes),
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


def _epochs(record: TrainingRun) -> layout.Section:
    rows = [
        [
            str(row.epoch),
            f"{row.lr:.2e}",
            f"{row.train_loss:.4f}",
            shared.percent(row.train_accuracy),
            f"{row.val_loss:.4f}",
            shared.percent(row.val_accuracy),
            "-" if row.val_top5 is None else shared.percent(row.val_top5),
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
    return layout.table("Epochs: what was learned", [*header, ""], rows, "rrrrrrrrl")


def _epoch_times(record: TrainingRun) -> layout.Section:
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
    phases = [shared.PHASE_NAMES[name].removesuffix(" to the device") + " s" for name in names]
    return layout.table(
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


def _ranks(record: TrainingRun) -> layout.Section:
    alone = len(record.ranks) < 2
    rows = [
        [
            str(times.rank),
            str(times.machine),
            times.device,
            *(formatting.ms(times.step, name) for name in ("mean", "median", "p95")),
            formatting.ms(times.all_reduce, "mean"),
            shared.share(times.all_reduce, times.step),
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
    return layout.table("Processes (last epoch)", header, [] if alone else rows, "rrl....r")


def _points(record: TrainingRun) -> layout.Section:
    rows = [
        [
            str(point.batch),
            formatting.ms(point.latency, "median"),
            units.milliseconds(point.per_image_s),
            point.latency.verdict,
            *shared.memory_cells(point.allocated, point.reserved),
        ]
        for point in record.points
    ]
    predicted = any(point.memory == "predicted" for point in record.points)
    where = " (predicted for a GPU)" if predicted else ""
    return layout.table(
        "Inference with the trained model",
        ["batch", "latency ms", "an image ms", "", f"allocated{where}", "reserved"],
        rows,
        "r..lrr",
    )
