"""The document of a training run."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench import units
from layerbench.records.recipes import EPS_FLOAT16, Recipe
from layerbench.records.training_run import EpochRow, RankTimes, TrainingRun
from layerbench.records.view import USUAL, View
from layerbench.records.workload import unusual_arithmetic
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout, shared


def document(record: TrainingRun, view: View = USUAL) -> layout.Document:
    """One epoch after the other, and what a step of the last one took."""
    recipe, best = record.recipe, record.best
    outcome: str = record.outcome
    if best is not None:
        outcome = (
            f"{outcome}; best validation accuracy {units.percent(best.val_accuracy, digits=2)} in "
            f"epoch {best.epoch} of {len(record.epochs)}"
        )
    fields = [
        ("Model", _model(record)),
        ("Data", _data(record)),
        ("Recipe", _recipe(recipe)),
        *shared.surroundings(record.environment),
        ("Resumed", _resumed(record)),
    ]
    return layout.Document(
        title=f"Training {recipe.model} on {recipe.data}",
        head=[
            *shared.weaknesses(record.environment, record.step, *_slow_devices(record)),
            layout.Fields([("Outcome", outcome), ("Epochs", _in_all(record))]),
            layout.Text(_ran(record)),
            shared.phase_table("A step (last epoch, first process)", record.phases, record.step),
            shared.phases_summed(record, view.width, _besides(record)),
        ],
        sections=[
            _epochs(record),
            _epoch_times(record),
            _ranks(record),
            _points(record),
            layout.listed("Images that could not be read", record.unreadable),
            layout.listed("Warnings of other processes", list(_slow_devices(record))),
            *shared.warnings_and_notes(record),
            layout.what_ran(fields),
        ],
    )


def _in_all(record: TrainingRun) -> str:
    """What all epochs took, and how fast the last one was."""
    if not record.epochs:
        return ""
    took = units.duration(sum(row.train_s + row.validation_s for row in record.epochs))
    last = units.per_second(record.epochs[-1].images_per_s)
    epochs = formatting.plural(len(record.epochs), "epoch")
    return f"{epochs} in {took}, {last} images/s in the last one"


def _besides(record: TrainingRun) -> str:
    """What the epochs take besides steps, and the slowest process its gradients' way."""
    validated = sum(row.validation_s for row in record.epochs)
    whole = validated + sum(row.train_s for row in record.epochs)
    parts = []
    if whole:
        parts.append(f"validation {units.percent(validated / whole, digits=1)} of the epochs")
    shares = [
        rank.all_reduce.mean / rank.step.mean
        for rank in record.ranks
        if rank.all_reduce is not None and rank.step.mean
    ]
    if shares:
        parts.append(f"all-reduce up to {units.percent(max(shares), digits=1)} of a step")
    return ", ".join(parts)


def _ran(record: TrainingRun) -> str:
    recipe = record.recipe
    size = f"{units.by_x(recipe.size)}, batch {recipe.batch}"
    step = formatting.step_options(recipe)
    computed = unusual_arithmetic(recipe.precision)
    ranks = formatting.plural(recipe.ranks, "process")
    place = record.environment.device.name
    return shared.ran(record.model_type, record.parameters, size, *computed, *step, ranks, place)


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
        *formatting.step_options(recipe),
        f"{formatting.plural(recipe.epochs, 'epoch')}",
        f"AdamW, learning rate {recipe.lr:g} after {recipe.warmup_epochs:g} epochs of "
        f"warm-up, then falling to 0, weight decay {recipe.weight_decay:g}"
        + (
            f", eps {EPS_FLOAT16:g}, as 1e-08 is 0 in float16" if recipe.precision == "fp16" else ""
        ),
        formatting.precision(recipe.precision),
        f"patience {recipe.patience}" if recipe.patience else "no early stopping",
        f"at most {_most_steps(recipe)} steps an epoch" if recipe.limit else "",
        f"seed {recipe.seed}",
    ]
    return "; ".join(part for part in parts if part)


def _most_steps(recipe: Recipe) -> int:
    return (recipe.limit or 0) // recipe.gradient_accumulation


def _resumed(record: TrainingRun) -> str:
    if not record.resumed_after:
        return ""
    return "after epoch " + ", ".join(map(str, record.resumed_after))


def _epochs(record: TrainingRun) -> layout.Section:
    rows = [
        {
            "epoch": str(row.epoch),
            "rate": f"{row.lr:.2e}",
            "loss": f"{row.train_loss:.4f}",
            "accuracy": shared.percent(row.train_accuracy),
            "val loss": f"{row.val_loss:.4f}",
            "val accuracy": shared.percent(row.val_accuracy),
            "top 5": formatting.dash(row.val_top5, shared.percent),
            "unreadable": str(row.unreadable) if row.unreadable else "-",
            "": "kept" if row.epoch == record.best_epoch else "",
        }
        for row in record.epochs
    ]
    return layout.table("Epochs: what was learned", rows, "rrrrrrrrl")


def _epoch_times(record: TrainingRun) -> layout.Section:
    # Those that any epoch has, in the order in which they come.
    names = dict.fromkeys(name for row in record.epochs for name in row.phases_s)
    columns = {name: shared.PHASE_NAMES[name].removesuffix(" to the device") for name in names}
    rows = [
        {
            "epoch": str(row.epoch),
            "steps": str(row.steps),
            "training s": f"{row.train_s:.2f}",
            "validation s": f"{row.validation_s:.2f}",
            "images/s": units.per_second(row.images_per_s),
            **{
                f"{column} s": formatting.dash(row.phases_s.get(name), "{:.2f}".format)
                for name, column in columns.items()
            },
            "allocated": formatting.dash(row.allocated, units.bytes_),
            "reserved": formatting.dash(row.reserved, units.bytes_),
            "resident": formatting.dash(row.resident, units.bytes_),
        }
        for row in record.epochs
    ]
    return layout.table("Epochs: what they took", rows, "r" * (8 + len(names)))


def _slow_devices(record: TrainingRun) -> Iterator[str]:
    """The low clocks of other processes' accelerators; that of the first is in the environment."""
    for times in record.ranks:
        if times.rank and times.conditions and times.conditions.warning:
            yield f"Process {times.rank} ({times.device}): {times.conditions.warning}"


def _clock(times: RankTimes) -> str:
    seen = times.conditions
    return formatting.dash(seen.clock_median_hz if seen else None, units.frequency)


def _ranks(record: TrainingRun) -> layout.Section:
    clocks = any(times.conditions for times in record.ranks)
    rows = [
        {
            "rank": str(times.rank),
            "machine": str(times.machine),
            "device": times.device,
            "step mean ms": formatting.ms(times.step, "mean"),
            "median": formatting.ms(times.step, "median"),
            "p95": formatting.ms(times.step, "p95"),
            "all-reduce ms": formatting.ms(times.all_reduce, "mean"),
            "of step": shared.share(times.all_reduce, times.step),
            **({"clock": _clock(times)} if clocks else {}),
        }
        for times in record.ranks
    ]
    align = "rrl....r" + "r" * clocks
    return layout.table("Processes (last epoch)", rows if len(rows) > 1 else [], align)


def _points(record: TrainingRun) -> layout.Section:
    predicted = any(point.memory == "predicted" for point in record.points)
    rows = [
        {
            "batch": str(point.batch),
            "latency ms": formatting.ms(point.latency, "median"),
            "an image ms": units.milliseconds(point.per_image_s),
            "": point.latency.verdict,
            "allocated (predicted for a GPU)" if predicted else "allocated": formatting.dash(
                point.allocated, units.bytes_
            ),
            "reserved": formatting.dash(point.reserved, units.bytes_),
        }
        for point in record.points
    ]
    return layout.table("Inference with the trained model", rows, "r..lrr")


def cautions(record: TrainingRun) -> list[str]:
    """What voids or weakens the times, the gravest first."""
    return shared.every_weakness(record.environment, record.step, *_slow_devices(record))


def rows(record: TrainingRun) -> cells.Rows:
    """A row an epoch."""
    ran = cells.fields(record.recipe, "model", "data", "batch", "ranks")
    return shared.epochs(ran, EpochRow, record.epochs)
