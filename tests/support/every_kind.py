"""A record of every kind but profiles and bundles, most of them those that are committed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

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


def devices_side_by_side() -> layerbench.Record:
    from layerbench.records.device_sweeps import DeviceColumn, DeviceSweeps, MissingPoint

    sweep = stored("examples/training/sweep/sweep.json")
    assert isinstance(sweep, layerbench.Sweep)
    first = sweep.points[0]
    missing = [
        MissingPoint(model=point.model, size="32", batch=point.batch, why="no node with t4 is left")
        for point in sweep.points[1:]
    ]
    return DeviceSweeps(
        columns=(
            DeviceColumn(name="a100", torch="2.14.1", nodes=("a (10.0.0.1, 1f)",), sweep=sweep),
            DeviceColumn(
                name="t4",
                torch="2.14.1",
                nodes=("b (10.0.0.2, 2f)", "c (10.0.0.3, 3f)"),
                sweep=sweep.model_copy(update={"points": (first,)}),
                missing=tuple(missing),
            ),
            DeviceColumn(name="v100", torch="2.11.0", nodes=(), sweep=None, missing=missing[:1]),
        )
    )


def nodes() -> layerbench.Record:
    from layerbench.records.cluster_nodes import ClusterNode, ClusterNodes, NodeDevice

    cpu = NodeDevice(place="cpu", kind="cpu", name="AMD EPYC", slug="amd-epyc-2c")
    a100 = NodeDevice(
        place="cuda:0", kind="cuda", name="NVIDIA A100-SXM4-40GB", slug="a100", card="a100"
    )
    versions = {"layerbench": layerbench.__version__, "python": "3.11.7", "torch": "2.14.1"}
    return ClusterNodes(
        address="auto",
        nodes=(
            ClusterNode(
                id="1f" * 28,
                address="10.0.0.1",
                host="a",
                labels=("fast",),
                devices=(a100, cpu),
                versions=versions,
            ),
            ClusterNode(
                id="2f" * 28,
                address="10.0.0.2",
                host="b",
                devices=(cpu,),
                versions={**versions, "torch": "2.11.0"},
            ),
            ClusterNode(
                id="3f" * 28,
                address="10.0.0.3",
                host="c",
                problem="has no layerbench: install it for /usr/bin/python3",
            ),
        ),
    )


def traced() -> layerbench.Record:
    from tests.support.sample_traces import cuda_trace, profiled

    with TemporaryDirectory() as folder:
        return profiled(Path(folder), cuda_trace())


RECORDS: dict[str, Make] = {
    "trace profile": traced,
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
    "cluster nodes": nodes,
    "device sweeps": devices_side_by_side,
    "sweep": lambda: stored("examples/training/sweep/sweep.json"),
    "detection run": lambda: stored("examples/detection/outputs/*/detection.json"),
    "detection estimates": lambda: stored("examples/detection/amd-epyc-2c/*.json"),
}
