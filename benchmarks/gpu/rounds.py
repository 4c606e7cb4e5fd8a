"""The kinds of rounds for real: untouched, host, blocked, device, and a CUDA graph beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gpu.device_queue import span_s
from benchmarks.gpu.perturbation import Interval, perturbation
from benchmarks.gpu.step import Figures, Settings, forward_of, tried
from layerbench import units
from layerbench.api.timing import measure
from layerbench.environment.devices import Device
from layerbench.errors import first_line
from layerbench.records.timing import Profile, Summary
from layerbench.records.workload import Plan
from layerbench.zoo import Built

BATCHES = (1, 64)
ITERATIONS = 60
FUNCTION_ITERATIONS = 4
REPLAYS, REPEATS = 20, 9
CAPTURE_WARMUP = 3


@dataclass
class Point:
    """One model at one batch; medians in seconds.

    Attributes:
        untouched_s, host_s: the untouched forward on the device's clock and on the host's.
        layers_host_s: the forward with host marks around each module, on the host's clock.
        overhead: instrumented over untouched, with its interval, as the record states it.
        blocked_s: the untouched forward when all its work waits in the queue already.
        kernels_s, idle_s: of a device round: kernels added up, and the time between them.
        rows_s: the rows' self times added up.
        graph_s: a replay of the forward captured as a CUDA graph.
        perturbed: an untouched forward among the other rounds over one among its like, with its
            interval; ``perturbed_host`` the same in processor time of the host.
        kernels: how many a forward launches.
    """

    model: str
    batch: int
    untouched_s: float
    host_s: float | None
    layers_host_s: float | None
    overhead: Interval | None
    blocked_s: float | None
    kernels_s: float | None
    idle_s: float | None
    rows_s: float | None
    kernels: int | None
    graph_s: float | None = None
    perturbed: Interval | None = None
    perturbed_host: Interval | None = None

    @property
    def kernels_over_graph(self) -> float | None:
        """1 where the kernels' own times explain what the device needs."""
        return None if not self.kernels_s or not self.graph_s else self.kernels_s / self.graph_s


@dataclass
class Rounds(Figures):
    """A point for each model and batch."""

    points: list[Point] = field(default_factory=list)

    def headline(self) -> str:
        """How far kernels are from graphs, and the untouched forward from undisturbed."""
        ratios = [p.kernels_over_graph for p in self.points if p.kernels_over_graph]
        moved = [p.perturbed for p in self.points if p.perturbed]
        parts = [f"{len(self.points)} workloads"]
        if ratios:
            low, high = units.ratio(min(ratios)), units.ratio(max(ratios))
            parts.append(f"kernels / graph {low} to {high}")
        if moved:
            most = max(moved, key=lambda ratio: abs(ratio[0] - 1))
            parts.append(f"untouched among the others / alone {interval(most)} at the most")
        return ", ".join(parts)

    def table(self) -> list[list[str]]:
        """A row a point, times in milliseconds."""
        header = [
            *("model", "batch", "untouched", "host", "host rounds", "blocked", "kernels' sum"),
            *("idle", "graph", "kernels / graph", "perturbed"),
        ]
        return [header, *map(_row, self.points)]


def _row(point: Point) -> list[str]:
    times = [
        *(point.untouched_s, point.host_s, point.layers_host_s, point.blocked_s),
        *(point.kernels_s, point.idle_s, point.graph_s),
    ]
    ratio = point.kernels_over_graph
    return [
        point.model,
        str(point.batch),
        *("-" if time is None else units.milliseconds(time) for time in times),
        "-" if ratio is None else units.ratio(ratio),
        "-" if point.perturbed is None else interval(point.perturbed),
    ]


def interval(ratio: Interval) -> str:
    """A ratio with its interval: ``1.001 [0.998, 1.004]``."""
    middle, low, high = map(units.ratio, ratio)
    return f"{middle} [{low}, {high}]"


def run(settings: Settings) -> Iterator[Rounds]:
    """The small batch of every model first: there launching costs most."""
    device = settings.opened()
    figures = Rounds()
    for batch in settings.either(BATCHES, (2,)):
        for model in settings.models:
            try:
                figures.points.append(_profiled(settings, model, batch, device))
            except Exception as error:
                figures.absent[f"{model}, batch {batch}"] = first_line(error)
                continue
            yield figures
            _complete(figures, settings, device)
            yield figures


def _profiled(settings: Settings, model: str, batch: int, device: Device) -> Point:
    """A profile as a user gets it, with fewer rounds; the record is kept."""
    plan = Plan(
        warmup=settings.either(25, 1),
        iterations=settings.either(ITERATIONS, 2),
        function_iterations=settings.either(FUNCTION_ITERATIONS, 1),
    )
    record = measure(settings.workload(model, batch), plan, device).profile
    folder = settings.out / "records"
    folder.mkdir(exist_ok=True)
    record.save(folder / f"{model.rpartition(':')[2]}_{batch}.json")
    return point_of(record)


def point_of(record: Profile) -> Point:
    """What a record says of the rounds."""
    rounds, reconciled = record.device_rounds, record.reconciliation
    root = record.layers[0]
    idle = _median(rounds.idle if rounds else None)
    span = _median(rounds.span if rounds else None)
    return Point(
        model=record.workload.model,
        batch=record.workload.shape[0],
        untouched_s=record.whole.median,
        host_s=_median(record.whole_host),
        layers_host_s=_median(root.host_inclusive),
        overhead=(reconciled.overhead, reconciled.overhead_low, reconciled.overhead_high)
        if reconciled
        else None,
        blocked_s=_median(rounds.blocked if rounds else None),
        kernels_s=None if idle is None or span is None else span - idle,
        idle_s=idle,
        rows_s=sum(row.self_.median for row in record.layers if row.self_ and row.kind == "module"),
        kernels=root.kernels,
    )


def _median(summary: Summary | None) -> float | None:
    return None if summary is None else summary.median


def _complete(figures: Rounds, settings: Settings, device: Device) -> None:
    """Add to the last point what a profile does not have."""
    point = figures.points[-1]
    name = f"{point.model}, batch {point.batch}"
    workload = settings.workload(point.model, point.batch)
    stretches, forwards = settings.either((8, 8), (2, 2))
    moved = tried(
        figures, f"perturbation of {name}", perturbation, workload, device, stretches, forwards
    )
    if moved is not None:
        point.perturbed, point.perturbed_host = moved.time, moved.host
    point.graph_s = tried(figures, f"graph of {name}", _graph_s, settings, point, device)
    device.forget_freed()


def _graph_s(settings: Settings, point: Point, device: Device) -> float:
    """The median time of a replay among replays that follow each other."""
    if device.kind != "cuda":
        raise NotImplementedError(f"{device.kind} has no graphs here")
    return replay_s(settings.built(point.model, point.batch), device)


def replay_s(built: Built, device: Device) -> float:
    """Capture a forward as a CUDA graph and time its replays."""
    forward = forward_of(built)
    graph = captured(forward)

    def replays() -> None:
        for _ in range(REPLAYS):
            graph.replay()

    replays()
    return statistics.median(span_s(device, replays) / REPLAYS for _ in range(REPEATS))


def captured(forward: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """The forward as a graph; on a side stream first, as capturing asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(CAPTURE_WARMUP):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    return graph
