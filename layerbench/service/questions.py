"""What may be asked. Names of known architectures only, never code; unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

TaskType = Literal["detection", "instance", "classification", "segmentation"]
ApplicationType = Literal["training", "inference"]

Side = Annotated[int, Field(ge=1, le=8192)]
# A torchvision name, or a name of timm's: no path, no colon but timm's own.
NAME = r"^(timm:)?[A-Za-z0-9_.\-]{1,120}$"

# What torchvision's detectors resize images to: a shorter side, and at most so long a longer one.
RESIZED = ("detection", "instance")
SHORT, LONG = 800, 1333

EXAMPLE: JsonDict = {
    "task_type": "detection",
    "architecture": "fasterrcnn_resnet50_fpn",
    "parameters": 25000000,
    "dataset_size": 1000,
    "batch_size": 4,
    "image_size": [256, 256],
    "application_type": "training",
    "epochs": 3,
    "threading": False,
}


class Question(BaseModel):
    """What a job would run.

    Attributes:
        task_type: what the model is for; it must be one for that.
        architecture: its name.
        parameters: that the asker believes it has; a mismatch is reported.
        dataset_size: images of an epoch.
        batch_size: images of a step, or of a forward.
        image_size: height and width.
        application_type: whether steps are measured or forwards.
        epochs: of a training.
        threading: look at the hardware at fixed intervals, from a thread of its own; else step by
            step: before, after forward, backward and optimizer.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    task_type: TaskType
    architecture: str = Field(pattern=NAME)
    parameters: int | None = Field(default=None, ge=0, le=2**53)
    dataset_size: int = Field(default=1000, ge=1, le=2**53)
    batch_size: int = Field(ge=1, le=65536)
    image_size: tuple[Side, Side]
    application_type: ApplicationType = "training"
    epochs: int = Field(default=1, ge=1, le=1_000_000)
    threading: bool = False

    @property
    def pixels(self) -> int:
        """Of a whole batch, as the model works on them: detectors resize images."""
        short, long = sorted(self.image_size)
        if self.task_type in RESIZED:
            scale = min(SHORT / short, LONG / long)
            short, long = round(short * scale), round(long * scale)
        return self.batch_size * short * long
