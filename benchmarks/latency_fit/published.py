"""Published times of whole models on cards, and which of them a trace of today stands for."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layerbench.profilers.latency.checked import family_of

DATA = Path(__file__).parent.parent / "data"
STEP_TIMES = DATA / "gpu_step_times.csv"
LATENCIES = DATA / "gpu_latencies_nvidia.csv"

# A training step whose published throughput names no batch: as the publisher's recipes have it.
TRAINING_BATCH = 128
NVIDIA_MODEL = "legacy_seresnext101_32x4d"
# timm's benchmark of PyTorch 2.9 merged the branches of such models before it timed them.
MERGED = re.compile(
    "byo|repvgg|mobileone|fastvit|ghostnet|iformer|lcnetv2|levit|nextvit|repvit|shvit|tiny_vit|"
    "efficientvit_m|efficientvim|repghost"
)
# How far apart two versions of one model may be, as a logarithm, to be the same model.
SAME = 0.08


@dataclass(frozen=True)
class Published:
    """One published time.

    Attributes:
        source: ``timm`` or ``nvidia``.
        card, software, precision, mode, model: as published; ``mode`` is ``infer`` or ``train``.
        channels_last: whether tensors lay so.
        size: of the images' sides.
        batch: images.
        seconds: of a forward, or a training step.
    """

    source: str
    card: str
    software: str
    precision: str
    mode: str
    model: str
    channels_last: bool
    size: int
    batch: int
    seconds: float

    @property
    def traced(self) -> str:
        """The name of the trace that stands for it."""
        return f"{self.model}-{self.size}-{self.mode}-{self.precision}"

    @cached_property
    def family(self) -> str:
        """The letters that a model's name begins with."""
        return family_of(self.model)


def published() -> list[Published]:
    """All times that a trace of eager PyTorch can stand for."""
    return [*_timm(), *_nvidia()]


def _rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [*csv.DictReader(line for line in lines if not line.startswith("#"))]


def _timm() -> Iterator[Published]:
    rows = [row for row in _rows(STEP_TIMES) if row["compiled"] == "0"]
    other = _of_other_version(rows)
    for row in rows:
        version, merged = row["torch"][:3], MERGED.search(row["model"]) is not None
        if merged and version == "2.9":
            continue
        if not merged and version == "2.4" and (row["model"], row["image_size"]) in other:
            continue
        yield Published(
            source="timm",
            card=row["gpu"],
            software=version,
            precision=row["precision"],
            mode=row["mode"],
            model=row["model"],
            channels_last=row["layout"] == "nhwc",
            size=int(row["image_size"]),
            batch=int(row["batch"]),
            seconds=float(row["step_ms"]) / 1e3,
        )


def _of_other_version(rows: list[dict[str, str]]) -> set[tuple[str, str]]:
    """Models that were another code with the older version: their times on one card differ."""
    by_model: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["gpu"] == "rtx4090" and row["layout"] == "nchw" and row["mode"] == "infer":
            times = by_model.setdefault((row["model"], row["image_size"]), {})
            times[row["torch"][:3]] = float(row["step_ms"]) / int(row["batch"])
    return {
        model
        for model, times in by_model.items()
        if len(times) == 2 and abs(math.log(times["2.4"] / times["2.9"])) > SAME
    }


def _nvidia() -> Iterator[Published]:
    cards = {"a100 80": "a100-80", "v100 16": "v100", "v100 32": "v100-32"}
    for row in _rows(LATENCIES):
        train = row["mode"].startswith("train")
        value, batch = float(row["value"]), int(row["batch"] or TRAINING_BATCH)
        yield Published(
            source="nvidia",
            card=cards.get(row["gpu"], row["gpu"]),
            software=row["torch"],
            precision=row["precision"],
            mode="train" if train else "infer",
            model=NVIDIA_MODEL,
            channels_last=False,
            size=int(row["image_size"]),
            batch=batch,
            seconds=batch / value if train else value / 1e3,
        )
