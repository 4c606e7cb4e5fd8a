"""Latency, throughput and memory over batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from layerbench import zoo
from layerbench.api.bars import heard
from layerbench.api.inputs import threads_of
from layerbench.environment import devices
from layerbench.errors import at_least
from layerbench.profilers.progress import Progress
from layerbench.profilers.sweep import run_sweep
from layerbench.records.sweep import Sweep
from layerbench.records.workload import DType, Precision


def sweep(
    models: Sequence[str],
    *,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32),
    sizes: Sequence[int] | None = None,
    precision: Precision | None = None,
    dtype: DType | None = None,
    channels_last: bool = False,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    seconds: float = 20.0,
    runs: str | Path | None = None,
    progress: Progress | bool | None = None,
    so_far: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Latency, memory and FLOPs of models over input sizes and batch sizes.

    Args:
        models: model specs.
        batches: images a forward; each climb ends at the first that does not fit.
        sizes: heights and widths; ``None`` for what each model is meant for.
        precision, dtype, channels_last, device, threads: as in `profile`.
        checkpoint: as in `profile`, where there is one model.
        seconds: for each point, about.
        runs: a folder with finished trainings.
        progress: ``True`` shows a bar, in a notebook, too; or what hears of each point.
        so_far: gets the record after each model and size but the last, its notes say what is to
            come: an hour's work need not be lost.

    Raises:
        LayerbenchError: one of `layerbench.errors`, with one line that says what to do.
    """
    with heard(progress) as listener:
        return run_sweep(
            models,
            sorted(at_least("batches", batch, 1) for batch in batches),
            None if sizes is None else [at_least("sizes", size, 1) for size in sizes],
            devices.get(device),
            precision=zoo.chosen_precision(precision, dtype),
            memory_format="channels_last" if channels_last else "contiguous",
            checkpoint=checkpoint,
            threads=threads_of(threads),
            seconds=seconds,
            runs=None if runs is None else Path(runs),
            progress=listener,
            so_far=so_far,
        )
