"""A sweep over several models on the first device of its kind: are peaks those of each alone?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.gpu.step import Figures, Settings
from layerbench import units
from layerbench.api.sweep import sweep
from layerbench.environment.devices import Device
from layerbench.records.sweep import Sweep

SMALL, LARGE = "resnet18", "vgg11"
BATCHES = (1, 8)
SECONDS = 1.0


@dataclass
class Peak:
    """One point.

    Attributes:
        model, batch: what ran.
        latency_s: its median.
        allocated, reserved: bytes at its peak; ``None`` where they are not known.
        measured: whether they were counted, or predicted.
    """

    model: str
    batch: int
    latency_s: float
    allocated: int | None
    reserved: int | None
    measured: bool


@dataclass
class Peaks(Figures):
    """Points of a sweep over a small model, a large one, and the small one again."""

    device: str = ""
    points: list[Peak] = field(default_factory=list)

    def headline(self) -> str:
        """The small model's peaks after the large one, over those before."""
        # The small model is measured twice at each batch, unless the sweep was stopped before.
        first = [point for point in self.points if point.model == self.points[0].model]
        pairs = [
            (one, other)
            for number, one in enumerate(first)
            for other in first[number + 1 :]
            if other.batch == one.batch
        ]
        ratios = [
            f"batch {before.batch} {units.ratio(after.allocated / before.allocated)} allocated, "
            f"{units.ratio(after.reserved / before.reserved)} reserved"
            for before, after in pairs
            if before.allocated and before.reserved and after.allocated and after.reserved
        ]
        return f"after / before a larger model: {'; '.join(ratios)}" if ratios else ""

    def table(self) -> list[list[str]]:
        """A row a point."""
        return [
            ["model", "batch", "latency", "allocated", "reserved", "peaks"],
            *(
                [
                    point.model,
                    str(point.batch),
                    units.seconds(point.latency_s),
                    "-" if point.allocated is None else units.bytes_(point.allocated),
                    "-" if point.reserved is None else units.bytes_(point.reserved),
                    "measured" if point.measured else "predicted",
                ]
                for point in self.points
            ),
        ]


def run(settings: Settings) -> Iterator[Peaks]:
    """One sweep; its points as far as they are."""
    figures = Peaks(device=_first(settings.opened()))
    models = settings.either([SMALL, LARGE, SMALL], [settings.models[0]] * 2)
    batches = settings.either(BATCHES, (1,))

    def so_far(record: Sweep) -> None:
        figures.points = _points(record)
        settings.tell(figures)

    record = sweep(
        models,
        batches=batches,
        sizes=None if settings.size is None else [settings.size],
        device=figures.device,
        seconds=settings.either(SECONDS, 0.01),
        so_far=so_far,
    )
    figures.points = _points(record)
    figures.absent |= {f"{end.model}, batch {end.batch}": end.why for end in record.ends}
    yield figures


def _first(device: Device) -> str:
    """``cuda:0``; of a kind without numbers its name."""
    kind = device.torch_device.type
    return kind if kind in ("cpu", "mps") else f"{kind}:0"


def _points(record: Sweep) -> list[Peak]:
    return [
        Peak(
            model=point.model,
            batch=point.batch,
            latency_s=point.latency.median,
            allocated=point.allocated,
            reserved=point.reserved,
            measured=point.memory == "measured",
        )
        for point in record.points
    ]
