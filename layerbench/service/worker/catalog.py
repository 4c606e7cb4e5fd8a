"""The architectures of each task. Loads torch: run by the measuring process only."""

from __future__ import annotations

from layerbench import zoo
from layerbench.environment import devices
from layerbench.errors import LayerbenchError
from layerbench.service.protocol.questions import TaskType
from layerbench.training.detection import models as detectors
from layerbench.zoo import torchvision
from layerbench.zoo.family import LibraryFamily

# Packages of torchvision whose models are for neither of the tasks.
ELSE = ("video", "optical_flow", "quantization")


def device(name: str | None) -> str:
    """What a device is called whichever way it was asked for: its place, and what it is.

    Raises:
        DeviceUnavailable: there is none of that name.
    """
    place = devices.get(name)
    return f"{place.torch_device} {place.describe().slug}"


def devices_for(name: str | None) -> dict[str, str]:
    """What a question may ask for: what each device is called, by its name.

    Args:
        name: of the only one, as the server was told; ``None`` or ``auto`` for all of the machine.
    """
    if name not in (None, "auto"):
        called = device(name)
        return {called.partition(" ")[0]: called}
    return {place: device(place) for place in devices.names()}


def models() -> dict[TaskType, list[str]]:
    """Names by task, as requests give them: torchvision's, and other libraries' with a prefix.

    Of those the ones with a task of these; nothing of them comes from a hub.
    """
    from torchvision.models import detection, get_model_builder, list_models, segmentation

    segmenters = set(list_models(module=segmentation))
    others = {
        name for name in list_models() if get_model_builder(name).__module__.split(".")[2] in ELSE
    }
    classifiers = (
        set(torchvision.FAMILY.names()) - segmenters - others - set(list_models(module=detection))
    )
    return {
        "detection": list(detectors.names()),
        "instance": [name for name in detectors.names() if name.startswith("maskrcnn")],
        "segmentation": sorted(segmenters) + _of_others("segmentation"),
        "classification": sorted(classifiers) + _of_others("image-classification"),
    }


def _of_others(task: str) -> list[str]:
    """Names of all families for a task, but for those whose library is not installed."""
    families = [family for family in zoo.families() if isinstance(family, LibraryFamily)]
    return sorted(name for family in families for name in _installed(family, task))


def _installed(family: LibraryFamily, task: str) -> list[str]:
    try:
        return family.names_for(task)
    except LayerbenchError:
        return []
