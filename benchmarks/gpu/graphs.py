"""Forwards that Python does not launch one by one: a CUDA graph's replay, and compiled code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.step import Figures, Settings, tried
from layerbench import units
from layerbench.api.timing import measure
from layerbench.environment.devices import Device
from layerbench.records.timing import Profile
from layerbench.records.workload import Plan

ITERATIONS = 40
# The cheap one of all models first: a compilation may take as long as the step has.
WAYS: dict[str, dict[str, Any]] = {
    "CUDA graph": {"cuda_graph": True},
    "default": {"compile": "default"},
    "reduce-overhead": {"compile": "reduce-overhead"},
}
_COMPILED_ON = ("cpu", "cuda", "xpu")


@dataclass
class Point:
    """One model at batch 1 in one way; medians in seconds.

    Attributes:
        way: of `WAYS`.
        eager_s: without the graph; ``None`` for compiled code.
        rows_s: the rows' self times added up.
        attributed: part of the kernels' time that belongs to known layers.
        why: why layers have no times; empty where they have.
        compile_s: of the first call.
        notes: of the record.
    """

    model: str
    way: str
    whole_s: float
    host_s: float | None
    blocked_s: float | None
    eager_s: float | None
    rows_s: float | None
    kernels: int | None
    attributed: float | None
    why: str
    compile_s: float | None
    notes: tuple[str, ...]

    @property
    def rows_over_blocked(self) -> float | None:
        """1 where the layers explain what the device needs."""
        return self.rows_s / self.blocked_s if self.rows_s and self.blocked_s else None


@dataclass
class Graphs(Figures):
    """A point for each model and way."""

    points: list[Point] = field(default_factory=list)

    def headline(self) -> str:
        """In how many layers have times, and how these add up."""
        timed = [point for point in self.points if not point.why]
        ratios = [point.rows_over_blocked for point in timed if point.rows_over_blocked]
        parts = [f"{len(timed)} of {len(self.points)} have layers"] * bool(self.points)
        if ratios:
            parts.append(f"rows / blocked {units.ratio(min(ratios))} to {units.ratio(max(ratios))}")
        return ", ".join(parts)

    def table(self) -> list[list[str]]:
        """A row a point, times in milliseconds."""
        header = [
            *("model", "way", "whole", "host", "blocked", "without the graph", "rows' sum"),
            *("kernels", "known", "compiled in s", "without layers, for"),
        ]
        return [header, *map(_row, self.points)]


def _row(point: Point) -> list[str]:
    times = (point.whole_s, point.host_s, point.blocked_s, point.eager_s, point.rows_s)
    return [
        point.model,
        point.way,
        *("-" if time is None else units.milliseconds(time) for time in times),
        "-" if point.kernels is None else str(point.kernels),
        "-" if point.attributed is None else units.percent(point.attributed, digits=1),
        "-" if point.compile_s is None else f"{point.compile_s:.1f}",
        point.why or "-",
    ]


def run(settings: Settings) -> Iterator[Graphs]:
    """Every way of every model, at batch 1."""
    figures, device = Graphs(), settings.opened()
    for way in WAYS:
        for model in settings.models:
            point = tried(figures, f"{way} of {model}", _point, settings, model, way, device)
            if point is not None:
                figures.points.append(point)
            yield figures


def _point(settings: Settings, model: str, way: str, device: Device) -> Point:
    """A profile as a user gets it, with fewer rounds; the record is kept."""
    if "compile" in WAYS[way] and device.kind not in _COMPILED_ON:
        raise NotImplementedError(f"Inductor writes no code for {device.kind} here")
    plan = Plan(warmup=settings.either(10, 1), iterations=settings.either(ITERATIONS, 2))
    workload = settings.workload(model, 1).model_copy(update=WAYS[way])
    record = measure(workload, plan, device).profile
    folder = settings.out / "records"
    folder.mkdir(exist_ok=True)
    name = f"{model.rpartition(':')[2]}_{way.replace(' ', '-').lower()}.json"
    record.save(folder / name)
    return point_of(record, way)


def point_of(record: Profile, way: str) -> Point:
    """What a record says of one way."""
    rounds, made, beside = record.device_rounds, record.compilation, record.cuda_graph
    own = [row.self_.median for row in record.layers if row.self_ and row.kind == "module"]
    return Point(
        model=record.workload.model,
        way=way,
        whole_s=record.whole.median,
        host_s=record.whole_host.median if record.whole_host else None,
        blocked_s=rounds.blocked.median if rounds and rounds.blocked else None,
        eager_s=beside.eager.median if beside else None,
        rows_s=sum(own) if own else None,
        kernels=record.layers[0].kernels if record.layers else None,
        attributed=made.attributed if made else None,
        why=record.absent.get("layers", ""),
        compile_s=made.seconds if made else None,
        notes=record.notes,
    )
