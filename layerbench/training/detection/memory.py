"""The memory that a detector's tensors need, and that the machine has."""

from __future__ import annotations

from pathlib import Path

import psutil
from torch import nn

from layerbench.datasets import boxed
from layerbench.datasets.boxed import BoxedDatasetOptions
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.errors import UsageError, at_least
from layerbench.profilers.memory.measured import profile_memory
from layerbench.records.detection_estimate import DetectorMemory
from layerbench.records.environment import DeviceInfo
from layerbench.records.recipes import TrainingPrecision
from layerbench.records.workload import FORMATS, OWN_WEIGHTS, Frozen, Workload, computed_in
from layerbench.training.detection import models
from layerbench.training.detection.batches import BoxedBatch, ForModel, collate
from layerbench.zoo import Built


class ModelMemory(Frozen):
    """Bytes of a detector's tensors in a training step, and the machine at this moment.

    Attributes:
        model_type: the class of the detector.
        batch: images of the step; ``input_size``: channels, height and width of each.
        parameters, activations: bytes apart; ``total``: together.
        training: all categories, and the peak.
        device: what it would run on; ``device_bytes``: its memory, of which ``device_free``.
        cpu_percent: of all cores, over the last moment.
        ram_bytes: of the machine; ``ram_percent`` of it is in use.
    """

    model_type: str
    batch: int
    input_size: tuple[int, int, int]
    parameters: int
    activations: int
    total: int
    training: DetectorMemory
    device: DeviceInfo
    device_bytes: int
    device_free: int
    cpu_percent: float
    ram_bytes: int
    ram_percent: float


# How long the CPU is watched.
MOMENT_S = 0.2


def get_model_memory_usage(
    batch_size: int,
    model: str | nn.Module,
    input_size: tuple[int, int, int] = (3, 224, 224),
) -> ModelMemory:
    """What a detector's parameters and activations need in a training step.

    Two steps run with the life of every tensor traced, with several boxes an image (and masks or
    keypoints for those that learn from them).

    Args:
        batch_size: images of the step.
        model: a detector, which stays as it is, or a detector's name.
        input_size: channels, height and width of the images handed over.

    Raises:
        ValueError: torchvision has no such detection model.
        LayerbenchError: the detector does not take such images, or they need too much memory.
    """
    check_input(batch_size, input_size)
    name = model if isinstance(model, str) else type(model).__name__
    module = models.build(models.check(model)) if isinstance(model, str) else model
    device = devices.of_module(module)
    images = made_up(module, batch_size, input_size[1:]).to(device.torch_device)
    step = detector_memory(name, module, images, device)
    busy = psutil.cpu_percent(interval=MOMENT_S)
    ram = psutil.virtual_memory()
    there = device.memory()
    return ModelMemory(
        model_type=type(module).__name__,
        batch=batch_size,
        input_size=input_size,
        parameters=step.parameters,
        activations=step.activations,
        total=step.parameters + step.activations,
        training=step,
        device=device.describe(),
        device_bytes=there.total_bytes,
        device_free=there.free_bytes,
        cpu_percent=busy,
        ram_bytes=ram.total,
        ram_percent=ram.percent,
    )


def check_input(batch: int, input_size: tuple[int, int, int]) -> None:
    """Refuse what no detector takes.

    Raises:
        UsageError: a batch or a side that is not positive, or not three channels.
    """
    at_least("the batch", batch, 1)
    if len(input_size) != 3 or input_size[0] != 3 or min(input_size) < 1:
        raise UsageError(
            f"the input size is channels, height and width, such as (3, 224, 224), got {input_size}"
        )


def made_up(model: nn.Module, batch: int, size: tuple[int, int]) -> BoxedBatch:
    """A batch of made-up images with boxes, as this detector learns from them."""
    masks = models.wants_masks(model)
    options = BoxedDatasetOptions(root=Path(), size=size, samples=batch, masks=masks)
    images = ForModel(boxed.get("synthetic").open(options).train, model)
    return collate([images[number] for number in range(batch)])


def detector_memory(
    name: str,
    model: nn.Module,
    images: BoxedBatch,
    device: Device,
    precision: TrainingPrecision = "fp32",
) -> DetectorMemory:
    """Bytes of tensors in a training step with SGD with momentum.

    Args:
        name: as the report calls the detector.
        model: stays as it is; a copy is trained.
        images: of the step, on the device.
        device: where the model is.
        precision: what is computed in; model and images have its format.

    Raises:
        LayerbenchError: the step cannot be run.
    """
    batch = len(images.images)
    workload = Workload(
        model=name,
        input="images with boxes",
        shape=(batch, *images.images[0].shape),
        batch=batch,
        dtype=FORMATS[precision],
        precision=computed_in(precision),
        memory_format="contiguous",
        mode="train",
        seed=0,
        weights=OWN_WEIGHTS,
    )
    report = profile_memory(
        workload,
        device,
        optimizer="momentum",
        subject=Built(model, (images.images, images.targets)),
    )
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return DetectorMemory(
        parameters=report.parameters.bytes,
        buffers=report.buffers.bytes,
        gradients=trained,
        # Momentum: one number for each that is trained.
        optimizer=trained,
        activations=sum(row.self_kept or 0 for row in report.rows),
        peak=report.peak.bytes,
    )
