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

Size = tuple[int, int]

SIZE = (6.4, 4.0)
LONGEST_NAME = 40
LONGEST_TITLE = 70
# A model's sizes are shades of its colour, the largest the full one; markers repeat it.
PALEST = 0.45
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
    looks = _looks([(point.model, point.size) for point in points])

    def draw(axes: Axes) -> None:
        for line in _lines(points):
            look = looks[line[0].model, line[0].size]
            medians = [point.latency.median / MILLISECOND for point in line]
            below = [(p.latency.median - p.latency.ci_low) / MILLISECOND for p in line]
            above = [(p.latency.ci_high - p.latency.median) / MILLISECOND for p in line]
            batches = [point.batch for point in line]
            label = _line_name(line[0])
            axes.errorbar(batches, medians, [below, above], capsize=3, label=label, **look)
        _batch_axis(axes)
        _log_axis(axes)
        axes.set_ylabel("latency of a forward, ms")

    return _png(draw, title)


def memory_against_batch(points: Sequence[SweepPoint], title: str) -> bytes:
    """Memory at the peak over the batch size: allocated as a line, reserved dashed."""
    looks = _looks([(point.model, point.size) for point in points])

    def draw(axes: Axes) -> None:
        for line in _lines(points):
            look = looks[line[0].model, line[0].size]
            sized = [point for point in line if point.allocated is not None]
            batches = [point.batch for point in sized]
            allocated = [(p.allocated or 0) / MEBIBYTE for p in sized]
            axes.plot(batches, allocated, label=_line_name(line[0]), **look)
            reserved = [p for p in sized if p.reserved is not None]
            axes.plot(
                [p.batch for p in reserved],
                [(p.reserved or 0) / MEBIBYTE for p in reserved],
                linestyle="--",
                color=look["color"],
            )
        predicted = any(point.memory == "predicted" for point in points)
        _batch_axis(axes)
        _log_axis(axes)
        where = "predicted for a GPU" if predicted else "measured"
        axes.set_ylabel(f"memory at the peak, MiB\n({where})")
        axes.plot([], [], color="grey", label="allocated")
        axes.plot([], [], color="grey", linestyle="--", label="reserved")

    return _png(draw, title)


def accuracy_against_flops(runs: Sequence[FinishedRun], title: str) -> bytes:
    """The best validation accuracy of finished runs over the FLOPs of one image."""
    looks = _looks([(run.model, run.size) for run in runs])

    def draw(axes: Axes) -> None:
        for run in runs:
            gflops = run.flops / 1e9
            name = canvas.tail(run.model, LONGEST_NAME)
            label = f"{name}, {canvas.shortened(run.data, LONGEST_NAME)} {units.by_x(run.size)}"
            axes.plot(
                gflops, 100 * run.accuracy, linestyle="", label=label, **looks[run.model, run.size]
            )
        axes.set_xscale("log")
        canvas.log_ticks(axes.xaxis)
        low, high = axes.get_ylim()
        # Room for a marker at 100, but no figure beyond it.
        axes.set_ylim(max(low, 0), min(high, 101))
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100])
        axes.set_ylim(max(low, 0), min(high, 101))
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
        # Behind the training's own, which mostly lies on it.
        machine = [100 * sample.system_cpu for sample in samples]
        pale = canvas.shade(canvas.ORANGE, PALEST)
        axes.fill_between(at, machine, color=pale, linewidth=0, label="CPU, whole machine, %")
        axes.plot(at, own, color=canvas.BLUE, label=f"CPU, this training, % of {cores} cores")
        sampled = [sample for sample in samples if sample.device is not None]
        if sampled:
            busy = [100 * (sample.device or 0) for sample in sampled]
            times = [sample.at_s for sample in sampled]
            axes.plot(times, busy, color=canvas.GREEN, label="accelerator, %")
        axes.set_xlabel("seconds since the first step")
        axes.set_ylabel("busy, %")
        memory: Any = axes.twinx()
        resident = [sample.resident / MEBIBYTE for sample in samples]
        memory.plot(at, resident, color=canvas.BLACK, linestyle="--", linewidth=0.9)
        # Above the other lines.
        axes.set_ylim(0, 125)
        axes.set_yticks(range(0, 101, 20))
        memory.set_ylim(0, max(resident, default=1) * 1.05)
        memory.set_ylabel("resident, MiB")
        axes.plot([], [], color=canvas.BLACK, linestyle="--", label="resident, MiB (right)")

    return _png(draw, f"{record.recipe.model} on {record.recipe.data}, batch {record.recipe.batch}")


# --- drawing -------------------------------------------------------------------------------


@canvas.styled
def _png(draw: Callable[[Axes], None], title: str) -> bytes:
    figure, axes = canvas.blank(*SIZE)
    draw(axes)
    axes.set_title(canvas.shortened(title, LONGEST_TITLE), fontsize="medium")
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        # Below the picture, where it hides no line.
        figure.legend(fontsize="small", loc="outside lower center", ncols=2)
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


def _lines(points: Sequence[SweepPoint]) -> list[list[SweepPoint]]:
    """The points of each model and size."""
    lines: dict[tuple[str, Size], list[SweepPoint]] = {}
    for point in points:
        lines.setdefault((point.model, point.size), []).append(point)
    return list(lines.values())


def _line_name(point: SweepPoint) -> str:
    return f"{canvas.tail(point.model, LONGEST_NAME)}, {units.by_x(point.size)}"


def _looks(drawn: Sequence[tuple[str, Size]]) -> dict[tuple[str, Size], dict[str, Any]]:
    """A colour for each model, and a shade of it and a marker for each of the sizes."""
    models = list(dict.fromkeys(model for model, _ in drawn))
    sizes = sorted({size for _, size in drawn}, key=lambda size: (size[0] * size[1], size))
    looks: dict[tuple[str, Size], dict[str, Any]] = {}
    for model, size in drawn:
        own = [one for one in sizes if (model, one) in drawn]
        part = 1 - (1 - PALEST) * (len(own) - 1 - own.index(size)) / max(len(own) - 1, 1)
        looks[model, size] = {
            "color": canvas.shade(canvas.PALETTE[models.index(model) % len(canvas.PALETTE)], part),
            "marker": MARKERS[sizes.index(size) % len(MARKERS)],
        }
    return looks


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    canvas.log_ticks(axes.yaxis)


def _batch_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("images a batch")
    axes.xaxis.set_major_formatter("{x:.0f}")
