"""Where the reports of a record lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeAlias

from layerbench.records.workload import (
    OWN_WEIGHTS,
    Plan,
    ReadFile,
    StepOptions,
    Workload,
    unusual_arithmetic,
)
from layerbench.store.writing import AnyPath
from layerbench.units import by_x

if TYPE_CHECKING:
    from layerbench.records.bundle import Bundle
    from layerbench.records.card_estimates import CardEstimates
    from layerbench.records.cluster_nodes import ClusterNodes
    from layerbench.records.comparison import Comparison
    from layerbench.records.detection_estimate import DetectionEstimates
    from layerbench.records.device_sweeps import DeviceSweeps
    from layerbench.records.environment import DeviceInfo
    from layerbench.records.latency_comparison import LatencyComparison
    from layerbench.records.latency_estimate import LatencyEstimate
    from layerbench.records.memory import MemoryEstimate, MemoryReport
    from layerbench.records.structure import Structure
    from layerbench.records.sweep import Sweep
    from layerbench.records.timing import Profile
    from layerbench.records.training_estimate import TrainingEstimate
    from layerbench.records.training_step import TrainingProfile

    Placed: TypeAlias = (
        Bundle
        | Comparison
        | CardEstimates
        | ClusterNodes
        | DetectionEstimates
        | DeviceSweeps
        | LatencyComparison
        | LatencyEstimate
        | MemoryEstimate
        | MemoryReport
        | Structure
        | Sweep
        | TrainingEstimate
        | TrainingProfile
    )


# Characters that checkpointed modules have in a file's name.
MOST_PATHS = 40


@dataclass(frozen=True)
class Places:
    """Paths of a profile's two reports, without the ending of a format; they hold no dot.

    Attributes:
        whole: of the whole-model report.
        layers: of the report on every layer.
    """

    whole: Path
    layers: Path


def places(profile: Profile, out: AnyPath) -> Places:
    """``<out>/<device>/<base>`` for the whole model and ``<out>/<device>/layers/<base>``."""
    folder = Path(out) / profile.environment.device.slug
    base = base_name(profile)
    return Places(whole=folder / base, layers=folder / "layers" / base)


def place(record: Placed, out: AnyPath) -> Path:
    """``<out>/<base>``, without the ending of a format: these do not depend on the machine.

    A training profile, a forecast and estimates do, and lie in their device's folder. A bundle lies
    beside its profile's own report.
    """
    device: DeviceInfo | None = None
    if record.record == "sweep":
        name = "sweep"
    elif record.record == "cluster nodes":
        name = "cluster"
    elif record.record == "device sweeps":
        name = "sweep_devices"
    elif record.record == "bundle":
        profile = record.profile
        name = f"{base_name(profile) if profile else work_name(record.workload)}_joined"
        device = profile.environment.device if profile else None
    elif record.record == "detection estimates":
        name = _detectors_name(record)
        device = record.environment.device
    elif record.record == "training profile":
        name = f"{work_name(record.workload)}_{record.optimizer}{_threads(record.plan)}"
        device = record.environment.device
    elif record.record == "training forecast":
        name = f"training-time_{_forecast_name(record)}"
        device = record.environment.device
    elif record.record == "latency estimate":
        of_step = [] if record.optimizer is None else [record.optimizer]
        name = "_".join(
            [work_name(record.workload), *of_step, model_name(record.card.name), "time"]
        )
    elif record.record == "card estimates":
        name = f"{work_name(record.workload)}_cards"
    elif record.record == "latency comparison":
        devices = [model_name(side.device) for side in (record.baseline, record.contender)]
        name = f"comparison_{work_name(record.contender.workload)}_{'_vs_'.join(devices)}"
    elif record.record == "comparison":
        names = [work_name(side.workload) for side in (record.baseline, record.contender)]
        name = f"comparison_{'_vs_'.join(dict.fromkeys(names))}"
    else:
        name = _dissected_name(record)
    return Path(out, *([] if device is None else [device.slug]), name)


def _forecast_name(record: TrainingEstimate) -> str:
    recipe, workload = record.recipe, record.workload
    if workload is not None and record.batches == "own inputs":
        return work_name(workload)
    parts = [model_name(recipe.model), recipe.data, by_x(recipe.size), f"b{recipe.batch}"]
    if workload is not None and workload.checkpoint is not None:
        parts.append(_checkpoint_variant(workload.checkpoint))
    parts += unusual_arithmetic(recipe.precision)
    return "_".join([*parts, *_step_variants(recipe)])


def _detectors_name(record: DetectionEstimates) -> str:
    models = [row.model for row in record.rows] + [row.model for row in record.failures]
    what = (models or ["none"])[0] + (f"-and-{len(models) - 1}-more" if len(models) > 1 else "")
    name = f"detection_{model_name(what)}_{record.data}_{by_x(record.size)}_b{record.batch}"
    size = [] if record.min_size is None else [f"min{record.min_size}"]
    return "_".join([name, *unusual_arithmetic(record.precision), *size])


def _dissected_name(record: Structure | MemoryReport | MemoryEstimate) -> str:
    parts = [work_name(record.workload)]
    if record.record == "memory estimate":
        parts.append(record.device)
    if record.record != "structure" and record.optimizer is not None:
        parts.append(record.optimizer)
    if record.record == "memory" and record.environment.device.kind != "cpu":
        parts.append(record.environment.device.slug)
    return "_".join(parts)


def work_name(workload: Workload) -> str:
    """A workload as a file name: model, input, and every choice that is not the default."""
    return "_".join([model_name(workload.model), _input_name(workload), *_variants(workload)])


def base_name(profile: Profile) -> str:
    """A file name for a profile: the workload, and the threads where they were named.

    Two profiles of different work, or with different threads, have different names. What
    only says how thoroughly it was measured (iterations, granularity) is not in it.

    Example:
        ``mobilenet_v2_pascal``, ``resnet50_8x3x224x224_bfloat16_4-threads``
    """
    partial = "_partial" if profile.stop == "interrupted" else ""
    return work_name(profile.workload) + _threads(profile.plan) + partial


def _threads(plan: Plan) -> str:
    if plan.threads is None:
        return ""
    return f"_{plan.threads}-thread{'s' if plan.threads > 1 else ''}"


def model_name(model: str) -> str:
    """A model spec as part of a file name: ``timm:vit.a1`` is ``timm-vit-a1``.

    Of ``path/to/file.py:callable`` and other files it keeps the relative folders, of an absolute
    path the file.
    """
    family, colon, place = model.partition(":")
    if PurePath(place).is_absolute():  # a folder with a saved model
        return _safe(f"{family}{colon}{PurePath(place).name}")
    source, colon, name = model.rpartition(":")
    if not source.endswith(".py"):
        return _safe(PurePath(model).name if PurePath(model).is_absolute() else model)
    path = PurePath(source[: -len(".py")])
    shown = path.name if path.is_absolute() else path.as_posix()
    return _safe(f"{shown}{colon}{name}")


def _input_name(workload: Workload) -> str:
    says_batch = workload.input == by_x(workload.shape)
    batch = "" if says_batch or workload.batch == 1 else f"-b{workload.batch}"
    return _safe(workload.input) + batch


def _variants(workload: Workload) -> Iterator[str]:
    if workload.arithmetic != "float32":
        yield workload.arithmetic.replace(" ", "-")
    if workload.memory_format != "contiguous":
        yield _safe(workload.memory_format).replace("_", "-")
    if workload.mode != "eval":
        yield workload.mode
    if workload.compile:
        yield "compiled" if workload.compile == "default" else f"compiled-{workload.compile}"
    if workload.cuda_graph:
        yield "cuda-graph"
    if workload.ddp:
        yield "ddp"
    yield from _step_variants(workload)
    if workload.weights not in (None, OWN_WEIGHTS):
        yield f"weights-{_safe(str(workload.weights)).lower()}"
    if workload.checkpoint is not None:
        yield _checkpoint_variant(workload.checkpoint)
    # The name of the inputs is said already, and so is the model's.
    yield from (file.digest for file in (workload.inputs, workload.file) if file is not None)
    if workload.seed != 0:
        yield f"seed-{workload.seed}"


def _checkpoint_variant(file: ReadFile) -> str:
    return f"checkpoint-{_of_file(file)}"


def _of_file(file: ReadFile) -> str:
    return f"{_safe(PurePath(file.name).stem)}-{file.digest}"


def _step_variants(step: StepOptions) -> Iterator[str]:
    paths = step.checkpoint_activations
    if paths is not None:
        # Of many modules a name would be too long for a file.
        named = _safe("-".join(paths))[:MOST_PATHS] if paths else "blocks"
        yield f"checkpointed-{named}"
    if step.gradient_accumulation > 1:
        yield f"accumulated-{step.gradient_accumulation}"


def _safe(text: str) -> str:
    # No dot either: `Path.with_suffix` would take the end of "resnet50.a1_in1k" for an ending.
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "unnamed"
