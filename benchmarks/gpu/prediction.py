"""Whether memory for training is predicted alike whether a GPU is to be seen or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.gpu.device_queue import host_s
from benchmarks.gpu.step import Figures, Settings
from layerbench import units

BATCH = 8
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


@dataclass
class Predicted:
    """One prediction.

    Attributes:
        model: what trains.
        seconds: that it took.
        peak, reserved: bytes.
        notes: of the record.
    """

    model: str
    seconds: float
    peak: int
    reserved: int
    notes: list[str]


@dataclass
class Predictions(Figures):
    """Predictions with the device to be seen, and in a process that sees none."""

    seen: list[Predicted] = field(default_factory=list)
    hidden: list[Predicted] = field(default_factory=list)

    def headline(self) -> str:
        """Whether they are the same, and how long each took."""
        took = sum(one.seconds for one in self.seen)
        text = f"{len(self.seen)} predictions in {units.seconds(took)}"
        if not self.hidden:
            return text
        alike = sum(
            (one.peak, one.reserved) == (other.peak, other.reserved)
            for one, other in zip(self.seen, self.hidden, strict=False)
        )
        alone = units.seconds(sum(one.seconds for one in self.hidden))
        return f"{text}, {alike} of {len(self.hidden)} the same without a device ({alone})"

    def table(self) -> list[list[str]]:
        """A row a prediction."""
        header = ["model, training", "device", "peak", "reserved", "took"]
        return [
            header,
            *(
                [
                    one.model,
                    where,
                    units.bytes_(one.peak),
                    units.bytes_(one.reserved),
                    units.seconds(one.seconds),
                ]
                for where, several in (("seen", self.seen), ("hidden", self.hidden))
                for one in several
            ),
        ]


def run(settings: Settings) -> Iterator[Predictions]:
    """Here, then in a process of its own."""
    figures = Predictions()
    for model in settings.models:
        figures.seen.append(_predicted(model, settings.size))
        yield figures
    if settings.opened().kind != "cuda":
        figures.absent["hidden"] = "there is no device that a variable of the environment hides"
        yield figures
        return
    figures.hidden = _elsewhere(settings.models, settings.size)
    yield figures


def _predicted(model: str, size: int | None) -> Predicted:
    import layerbench

    estimates = []

    def predict() -> None:
        shape = None if size is None else f"3x{size}x{size}"
        estimates.append(layerbench.estimate_memory(model, shape, batch=BATCH, training=True))

    seconds = host_s(predict)
    (record,) = estimates
    return Predicted(model, seconds, record.peak_bytes, record.reserved_bytes, list(record.notes))


def _elsewhere(models: Sequence[str], size: int | None) -> list[Predicted]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.prediction", json.dumps([list(models), size])],
        env={**os.environ, **HIDDEN},
        capture_output=True,
        text=True,
        check=True,
    )
    return [Predicted(**values) for values in json.loads(done.stdout.splitlines()[-1])]


if __name__ == "__main__":
    asked, side = json.loads(sys.argv[1])
    print(json.dumps([asdict(_predicted(name, side)) for name in asked]))
