"""A record of every kind but profiles and bundles, most of them those that are committed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import layerbench
from layerbench.records.latency_estimate import Checked, LatencyEstimate
from layerbench.records.memory import MemoryEstimate
from layerbench.store import reading
from tests.models import Small
from tests.support.paths import ROOT
from tests.support.sample_comparisons import one_slower

Make = Callable[[], layerbench.Record]


def stored(path: str) -> layerbench.Record:
    (found,) = ROOT.glob(path)
    return reading.read(found)


def predicted() -> MemoryEstimate:
    import torch

    return layerbench.estimate_memory(Small(), torch.zeros(2, 3, 8, 8), gpu_memory="2GiB")


def known_cards() -> layerbench.Record:
    from layerbench.api.devices import devices

    return devices()


CHECKED = Checked(question="a training step", rows=100, median_error=0.08, within=0.91)


@cache
def latency(device: str) -> LatencyEstimate:
    """Of a training step; checked, as none of so small a model is."""
    import torch

    estimate = layerbench.estimate_latency(
        Small(), torch.zeros(2, 3, 8, 8), device=device, mode="train", optimizer="adamw"
    )
    return estimate.model_copy(update={"checked": CHECKED, "notes": ()})


def compared_latency() -> layerbench.Record:
    return layerbench.compare(latency("t4"), latency("rtx4090"))


def cards_side_by_side() -> layerbench.Record:
    from layerbench.profilers.card_estimates import side_by_side

    return side_by_side([latency("t4"), latency("rtx4090")])


RECORDS: dict[str, Make] = {
    "latency estimate": lambda: latency("rtx4090"),
    "latency comparison": compared_latency,
    "card estimates": cards_side_by_side,
    "cards": known_cards,
    "structure": lambda: stored("model_structures/resnet101_cityscapes.json"),
    "memory": lambda: stored("memory_reports/mobilenet_v2_pascal.json"),
    "memory estimate": predicted,
    "comparison": one_slower,
    "training profile": lambda: stored("examples/training/amd-epyc-2c/resnet18_*.json"),
    "training run": lambda: stored("examples/training/outputs/*/run.json"),
    "training forecast": lambda: stored("examples/training/amd-epyc-2c/training-time_*.json"),
    "sweep": lambda: stored("examples/training/sweep/sweep.json"),
    "detection run": lambda: stored("examples/detection/outputs/*/detection.json"),
    "detection estimates": lambda: stored("examples/detection/amd-epyc-2c/*.json"),
}
