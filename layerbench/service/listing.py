"""The architectures of each task. Loads torch: run by the measuring process only."""

from __future__ import annotations

from layerbench.detection import models as detectors
from layerbench.service.questions import TaskType
from layerbench.zoo import timm, torchvision

# Packages of torchvision whose models are for neither of the tasks.
ELSE = ("video", "optical_flow", "quantization")


def models() -> dict[TaskType, list[str]]:
    """Names by task, as requests give them: torchvision's, and timm's with ``timm:`` before."""
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
        "segmentation": sorted(segmenters),
        "classification": sorted(classifiers) + sorted(timm.FAMILY.names()),
    }
