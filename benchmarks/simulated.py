"""What layerbench says of layers on the simulated accelerator, where the truth is known.

    python -m benchmarks.simulated

Kernels take what `benchmarks.gpu.simulator.H200` states. With a virtual host every device time
is exact; with the real host the times of the host are this machine's. The truth is read from the
simulator: which kernels ran between a module's entry and its exit, and how long each took.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from tabulate import tabulate

from benchmarks import attribution
from benchmarks.gpu.perturbation import Interval, perturbation
from benchmarks.gpu.rounds import interval
from benchmarks.gpu.simulator import H200
from layerbench import zoo
from layerbench.analysis.statistics import Resampler, paired_ratio
from layerbench.api.timing import Measurement, measure
from layerbench.environment import devices
from layerbench.instruments.layer_timer import LayerTimer
from layerbench.instruments.modules import named_instances
from layerbench.records import samples
from layerbench.records.timing import Profile
from layerbench.records.workload import Plan
from layerbench.units import NANOSECOND
from layerbench.zoo.family import on_device
from tests import simulated

DEVICE = "sim:0"
WORKLOADS = (
    ("mobilenet_v2", 1),
    ("mobilenet_v2", 32),
    ("resnet50", 1),
    ("resnet50", 32),
    ("swin_t", 1),
)
OF_THE_HOST = WORKLOADS[:1]


@dataclass(frozen=True)
class Line:
    """One line of the table: what, the figure, the aim if any, and whether it is reached."""

    what: str
    figure: str
    aim: str = "(for comparison)"
    reached: bool | None = None

    def cells(self) -> list[str]:
        """As the table shows it."""
        return [
            self.what,
            self.figure,
            self.aim,
            {None: "", True: "yes", False: "**no**"}[self.reached],
        ]


# --- the truth -----------------------------------------------------------------------------


def true_ns(model: str, batch: int) -> dict[str, int]:
    """What the kernels of each module take, by path, those of the modules in it included."""
    simulator = simulated.load()
    built = on_device(zoo.build(zoo.resolve(model, None, batch=batch)), torch.device(DEVICE))
    entered: dict[str, int] = {}
    spans: dict[str, list[tuple[int, int]]] = {}

    def enter(path: str) -> None:
        entered[path] = simulator.kernel_count

    def leave(path: str) -> None:
        spans.setdefault(path, []).append((entered[path], simulator.kernel_count))

    for path, module in named_instances(built.module).items():
        module.register_forward_pre_hook(lambda *_, path=path: enter(path))
        module.register_forward_hook(lambda *_, path=path: leave(path))
    with torch.no_grad():
        built.module.eval()(*built.args)
    lengths = [kernel.length_ns for kernel in simulator.kernels()]
    return {
        path: sum(sum(lengths[first:last]) for first, last in together)
        for path, together in spans.items()
    }


def leaves(paths: Sequence[str]) -> list[str]:
    """Those that hold no other."""
    inner = {path.rpartition(".")[0] for path in paths if path} | {""}
    return [path for path in paths if path not in inner]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing their mean rank."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, which, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: np.ndarray = (last - (counts - 1) / 2)[which]
    return mean


# --- the lines -----------------------------------------------------------------------------


def of_layers(workloads: Sequence[tuple[str, int]], iterations: int) -> Iterator[Line]:
    """Ranks of the leaves, and the sum of all rows, against the truth."""
    for model, batch in workloads:
        with simulated.rules(**H200, virtual_host=True, skip=True):
            truth = true_ns(model, batch)
        with simulated.rules(**H200, virtual_host=True, skip=True):
            measured = profiled(model, batch, iterations)
        ranks, total = against(truth, own_times(measured.profile))
        name = f"{model}, batch {batch}"
        yield Line(f"{name}: ranks of the leaves", f"{ranks:.4f}", ">= 0.99", ranks >= 0.99)
        yield Line(f"{name}: rows / truth", f"{total:.4f}", "0.98 to 1.02", 0.98 <= total <= 1.02)
        with simulated.rules(**H200, virtual_host=False, skip=True):
            ranks, total = against(truth, times_by_events(model, batch))
        yield Line(f"{name}: the same by events around layers", f"{ranks:.2f}, {total:.1f}")


def against(truth: Mapping[str, int], times: Mapping[str, float]) -> tuple[float, float]:
    """Rank correlation of the leaves with the truth, and the sum of all rows over it."""
    shown = [path for path in leaves(list(truth)) if path in times]
    ranks = rank_correlation([times[path] for path in shown], [truth[path] for path in shown])
    return ranks, sum(times.values()) / (truth[""] * NANOSECOND)


def times_by_events(model: str, batch: int, forwards: int = 5) -> dict[str, float]:
    """Self times from two events around each module, seconds, by path."""
    device = devices.get(DEVICE)
    built = on_device(zoo.build(zoo.resolve(model, None, batch=batch)), device.torch_device)
    built.module.eval()
    paths = list(named_instances(built.module))
    timer = LayerTimer(built.module, paths, frozenset(paths), device.clock())
    with torch.no_grad():
        # The first makes the events, and computes what later ones skip.
        timed = [timer.run(lambda: built.module(*built.args), 0) for _ in range(forwards + 1)][1:]
    own = np.median([forward.device.self_ns for forward in timed], axis=0) * NANOSECOND
    ran = timed[-1].device.calls > 0
    return {path: float(own[index]) for index, path in enumerate(paths) if ran[index]}


def profiled(model: str, batch: int, iterations: int) -> Measurement:
    """A profile as a user gets it."""
    plan = Plan(warmup=2, iterations=iterations, function_iterations=1)
    return measure(zoo.resolve(model, None, batch=batch), plan, devices.get(DEVICE))


def own_times(record: Profile) -> dict[str, float]:
    """Median self times of the modules that ran, seconds, by path."""
    return {
        row.path: row.self_.median for row in record.layers if row.kind == "module" and row.self_
    }


def of_the_host(workloads: Sequence[tuple[str, int]], iterations: int) -> Iterator[Line]:
    """What the rounds do to each other, with the real host."""
    device = devices.get(DEVICE)
    for model, batch in workloads:
        name = f"{model}, batch {batch}"
        with simulated.rules(**H200, virtual_host=False, skip=True):
            moved = perturbation(
                zoo.resolve(model, None, batch=batch), device, stretches=25, forwards=8
            )
            for of_what, ratio in (("time", moved.time), ("processor time", moved.host)):
                yield Line(
                    f"{name}: untouched among the others / alone, {of_what}",
                    interval(ratio),
                    "interval holds 1",
                    ratio[1] <= 1 <= ratio[2],
                )
            ratio = host_ratio(profiled(model, batch, iterations))
        yield Line(
            f"{name}: host rounds / untouched",
            interval(ratio),
            "<= 1.03",
            ratio[0] <= 1.03,
        )


def host_ratio(measured: Measurement) -> Interval:
    """Host rounds over untouched ones on the host's clock, paired, with the 95 % interval."""
    arrays = measured.runs[0].arrays
    host, untouched = (
        arrays[samples.HOST + name].astype(np.float64)
        for name in (samples.INSTRUMENTED, samples.UNTOUCHED)
    )
    return paired_ratio(host, untouched, Resampler([len(host)]))


def of_attribution(models: Sequence[str]) -> Iterator[Line]:
    """Operators of the CPU stand in for kernels."""
    every = list(attribution.of_all(models))
    share = sum(one.right_ns for one in every) / sum(one.all_ns for one in every)
    least = min(one.share for one in every)
    yield Line(
        f"attribution, {len(every)} classifiers: time in the right module",
        f"{share:.2%}, the least {least:.2%}",
        ">= 99.5 %",
        share >= 0.995,
    )
    count, seconds = attribution.seconds_to_work_out()
    yield Line(
        f"a device round of {count} operators, worked out in",
        f"{seconds * 1e3:.1f} ms",
        "<= 20 ms for 700",
        seconds <= 0.020 * max(count / 700, 1),
    )


def main(
    iterations: Annotated[int, typer.Option(help="Measured rounds of a profile.")] = 20,
    classifiers: Annotated[bool, typer.Option(help="Look at all classifiers, too.")] = True,
) -> None:
    """Print the table, a line as soon as it is known."""
    torch.set_num_threads(1)
    lines: list[Line] = []
    # Before the accelerator is there: afterwards operators of the CPU are no longer all there is.
    if classifiers:
        lines += _told(of_attribution(attribution.classifiers()))
    simulated.load()
    lines += _told(of_layers(WORKLOADS, iterations))
    lines += _told(of_the_host(OF_THE_HOST, 5 * iterations))
    print(
        tabulate([line.cells() for line in lines], ["what", "figure", "aim", "reached"], "github")
    )


def _told(lines: Iterator[Line]) -> list[Line]:
    told = []
    for line in lines:
        print(" | ".join(line.cells()), flush=True)
        told.append(line)
    return told


if __name__ == "__main__":
    typer.run(main)
