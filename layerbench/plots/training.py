"""Pictures of a training run or a sweep, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from layerbench import units
from layerbench.plots import canvas
from layerbench.records.detection_run import DetectionRun
from layerbench.records.sweep import FinishedRun, Sweep, SweepPoint
from layerbench.records.training_run import EpochRow, TrainingRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (6.4, 4.0)
# A longer legend stands below the picture, where it hides no line.
MOST_INSIDE = 3
MEBIBYTE = 2**20
MILLISECOND = 1e-3


def loss(record: TrainingRun) -> bytes:
    """Loss of training and validation over the epochs."""

    def draw(axes: Axes) -> None:
        _over_epochs(axes, record.epochs, "training", lambda row: row.train_loss)
        _over_epochs(axes, record.epochs, "validation", lambda row: row.val_loss)
        axes.set_ylabel("cross-entropy")

    return _png(draw, _title(record))


def accuracy(record: TrainingRun) -> bytes:
    """Accuracy of training and validation over the epochs; the epoch that was kept is marked."""

    def draw(axes: Axes) -> None:
        _over_epochs(axes, record.epochs, "training", lambda row: 100 * row.train_accuracy)
        _over_epochs(axes, record.epochs, "validation", lambda row: 100 * row.val_accuracy)
        best = record.best
        if best is not None:
            label = f"kept: {units.percent(best.val_accuracy, digits=1)}"
            axes.plot(best.epoch, 100 * best.val_accuracy, "o", color="black", label=label)
        axes.set_ylabel("accuracy, %")

    return _png(draw, _title(record))


def of_sweep(record: Sweep) -> dict[str, bytes]:
    """All pictures of a sweep, by file name without an ending."""
    pictures: dict[str, bytes] = {}
    device = record.environment.device.name
    if record.points:
        pictures["latency_vs_batch"] = latency_against_batch(record.points, device)
        pictures["memory_vs_batch"] = memory_against_batch(record.points, device)
    if record.runs:
        pictures["accuracy_vs_gflops"] = accuracy_against_flops(record.runs, "Finished trainings")
    return pictures


def latency_against_batch(points: Sequence[SweepPoint], title: str) -> bytes:
    """Latency of a forward over the batch size, with its 95 % interval; a line each model, size."""

    def draw(axes: Axes) -> None:
        for name, line in _lines(points).items():
            medians = [point.latency.median / MILLISECOND for point in line]
            below = [(p.latency.median - p.latency.ci_low) / MILLISECOND for p in line]
            above = [(p.latency.ci_high - p.latency.median) / MILLISECOND for p in line]
            batches = [point.batch for point in line]
            axes.errorbar(batches, medians, [below, above], marker="o", capsize=3, label=name)
        _batch_axis(axes)
        axes.set_yscale("log")
        axes.set_ylabel("latency of a forward, ms")

    return _png(draw, title)


def memory_against_batch(points: Sequence[SweepPoint], title: str) -> bytes:
    """Memory at the peak over the batch size: allocated as a line, reserved dashed."""

    def draw(axes: Axes) -> None:
        for name, line in _lines(points).items():
            sized = [point for point in line if point.allocated is not None]
            batches = [point.batch for point in sized]
            (drawn,) = axes.plot(
                batches, [(p.allocated or 0) / MEBIBYTE for p in sized], marker="o", label=name
            )
            reserved = [p for p in sized if p.reserved is not None]
            axes.plot(
                [p.batch for p in reserved],
                [(p.reserved or 0) / MEBIBYTE for p in reserved],
                linestyle="--",
                color=drawn.get_color(),
            )
        predicted = any(point.memory == "predicted" for point in points)
        _batch_axis(axes)
        axes.set_yscale("log")
        where = "predicted for a GPU" if predicted else "measured"
        axes.set_ylabel(f"memory at the peak, MiB ({where})")
        axes.plot([], [], color="grey", label="allocated")
        axes.plot([], [], color="grey", linestyle="--", label="reserved")

    return _png(draw, title)


def accuracy_against_flops(runs: Sequence[FinishedRun], title: str) -> bytes:
    """The best validation accuracy of finished runs over the FLOPs of one image."""

    def draw(axes: Axes) -> None:
        for run in runs:
            gflops = run.flops / 1e9
            label = f"{run.model}, {run.data} {run.size[0]}x{run.size[1]}"
            axes.plot(gflops, 100 * run.accuracy, "o", label=label)
        axes.set_xscale("log")
        axes.set_xlabel("GFLOPs of one image")
        axes.set_ylabel("validation accuracy, %")

    return _png(draw, title)


def utilization(record: DetectionRun) -> bytes:
    """How busy CPU and accelerator were while a detector was trained, and the memory it held."""
    usage = record.usage
    samples = () if usage is None else usage.samples
    cores = 1 if usage is None else usage.cores

    def draw(axes: Axes) -> None:
        at = [sample.at_s for sample in samples]
        own = [100 * sample.process_cpu / cores for sample in samples]
        axes.plot(at, own, label=f"CPU, this training, % of {cores} cores")
        axes.plot(
            at, [100 * s.system_cpu for s in samples], linewidth=0.8, label="CPU, whole machine, %"
        )
        sampled = [sample for sample in samples if sample.device is not None]
        if sampled:
            busy = [100 * (sample.device or 0) for sample in sampled]
            axes.plot([sample.at_s for sample in sampled], busy, label="accelerator, %")
        axes.set_ylim(0, 105)
        axes.set_xlabel("seconds since the first step")
        axes.set_ylabel("busy, %")
        memory: Any = axes.twinx()
        resident = [sample.resident / MEBIBYTE for sample in samples]
        memory.plot(at, resident, color="grey", linestyle="--")
        memory.set_ylim(0, None)
        memory.set_ylabel("resident, MiB")
        axes.plot([], [], color="grey", linestyle="--", label="resident, MiB (right)")

    return _png(draw, f"{record.recipe.model} on {record.recipe.data}, batch {record.recipe.batch}")


# --- drawing -------------------------------------------------------------------------------


def _png(draw: Callable[[Axes], None], title: str) -> bytes:
    figure, axes = canvas.blank(*SIZE)
    draw(axes)
    axes.set_title(title, fontsize="medium")
    axes.grid(visible=True, alpha=0.3)
    drawn = axes.get_legend_handles_labels()[0]
    if len(drawn) > MOST_INSIDE:
        figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    elif drawn:
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    # Without the version, which would make equal pictures differ.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _title(record: TrainingRun) -> str:
    recipe = record.recipe
    height, width = recipe.size
    return f"{recipe.model} on {recipe.data}, {height}x{width}, batch {recipe.batch}"


def _over_epochs(
    axes: Axes, rows: Sequence[EpochRow], label: str, value: Callable[[EpochRow], float]
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot([row.epoch for row in rows], [value(row) for row in rows], marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _lines(points: Sequence[SweepPoint]) -> dict[str, list[SweepPoint]]:
    lines: dict[str, list[SweepPoint]] = {}
    for point in points:
        name = f"{point.model}, {point.size[0]}x{point.size[1]}"
        lines.setdefault(name, []).append(point)
    return lines


def _batch_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("images a batch")
    axes.xaxis.set_major_formatter("{x:.0f}")
