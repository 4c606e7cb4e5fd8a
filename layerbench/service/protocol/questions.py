"""Questions to the service: names of known architectures, never code. Nothing else is accepted."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from layerbench.records.bounds import is_none
from layerbench.records.defaults import MEASURED_ITERATIONS, WARMUP_ITERATIONS
from layerbench.records.workload import DType, Mode, Precision

TaskType = Literal["detection", "instance", "classification", "segmentation"]
ApplicationType = Literal["training", "inference"]

Side = Annotated[int, Field(ge=1, le=8192)]
# JSON has lists and no tuples; what is in them is taken as strictly as all else.
Sides = Annotated[tuple[Side, Side], Field(strict=False)]
# As `layerbench.environment.devices` names them.
PLACE = r"^[a-z][a-z0-9_]{0,19}(:[0-9]{1,3})?$"
# A torchvision name, or a name of another library's: no path, no model of a hub, and no colon but a
# library's own. smp: names an encoder, and open_clip: may name a tower.
NAME = (
    r"^((timm:)?[A-Za-z0-9_.\-]{1,120}|hf:[A-Za-z0-9_\-]{1,120}|"
    r"smp:[A-Za-z0-9]{1,40}/[A-Za-z0-9_.\-]{1,120}|open_clip:[A-Za-z0-9_.\-]{1,120}(/visual)?)$"
)

# As people write a card's name; nothing that could be a file's.
CARD = r"^[A-Za-z0-9][A-Za-z0-9 _\-]{0,79}$"

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
VIEWED: JsonDict = {"architecture": "resnet18", "batch_size": 1, "image_size": [224, 224]}
PROFILED: JsonDict = {**VIEWED, "warmup": 25, "iterations": 300}

# What the result of a question depends on.
MEASURED = (
    "task_type",
    "architecture",
    "batch_size",
    "image_size",
    "application_type",
    "precision",
    "threading",
)
# What most classifiers take, where nothing is said.
USUAL: tuple[int, int] = (224, 224)
# So that nothing of an address or a line is too long.
MOST_SPEC = 400


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
        precision: what is computed in; ``None`` for float32.
        device: a GPU that the figures are predicted for, of those that ``GET /api/v1/server``
            lists; ``None`` to measure here.
        threading: look at the hardware at fixed intervals, from a thread of its own; else step by
            step: before, after forward, backward and optimizer.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [EXAMPLE]}
    )
    what: ClassVar[str] = "measurement"

    task_type: TaskType
    architecture: str = Field(pattern=NAME)
    parameters: int | None = Field(default=None, ge=0, le=2**53)
    dataset_size: int = Field(default=1000, ge=1, le=2**53)
    batch_size: int = Field(ge=1, le=65536)
    image_size: Sides
    application_type: ApplicationType = "training"
    epochs: int = Field(default=1, ge=1, le=1_000_000)
    precision: Precision | None = Field(default=None, exclude_if=is_none)
    device: str | None = Field(default=None, pattern=CARD, exclude_if=is_none)
    threading: bool = False

    @property
    def pixels(self) -> int:
        """Of a whole batch, as the model works on them: detectors resize images."""
        return pixels(self.batch_size, self.image_size, resized=self.task_type in RESIZED)

    def depends_on(self) -> dict[str, Any]:
        """What the result depends on, of what is asked."""
        return self.model_dump(mode="json", include=set(MEASURED))


class ViewQuestion(BaseModel):
    """A model to be looked at.

    Attributes:
        architecture: its name, a family's shorthand such as ``vit``, or a spec that the server was
            started with.
        batch_size: images of a forward.
        image_size: height and width; ``None`` for the model's usual input.
        precision: what is computed in; ``None`` for float32, or the formats of a model that is the
            server's own.
        dtype: the older name of a precision that converts.
        channels_last: whether the memory format is NHWC.
        mode: ``eval`` or ``train``, of a forward.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [VIEWED]}
    )

    architecture: str = Field(min_length=1, max_length=MOST_SPEC)
    batch_size: int = Field(default=1, ge=1, le=65536)
    image_size: Sides | None = None
    precision: Precision | None = None
    dtype: DType | None = None
    channels_last: bool = False
    mode: Mode = "eval"

    @property
    def named(self) -> bool:
        """Whether the architecture is written as a name, and not as a place of code."""
        return re.fullmatch(NAME, self.architecture) is not None

    def pixels(self, *, resized: bool) -> int:
        """Of a whole batch; of a model that resizes images, as it works on them."""
        return pixels(self.batch_size, self.image_size or USUAL, resized=resized)


class ProfileQuestion(ViewQuestion):
    """A model to be measured, layer by layer.

    Attributes:
        warmup, iterations: rounds, each of an untouched forward and an instrumented one.
        threads: intra-op CPU threads; ``None`` for PyTorch's choice.
        device: one of the server's; ``None`` for its usual one.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [PROFILED]}
    )
    what: ClassVar[str] = "profile"

    warmup: int = Field(default=WARMUP_ITERATIONS, ge=0, le=10_000)
    iterations: int = Field(default=MEASURED_ITERATIONS, ge=1, le=10_000)
    threads: int | None = Field(default=None, ge=1, le=1024)
    device: str | None = Field(default=None, pattern=PLACE)

    def depends_on(self) -> dict[str, Any]:
        """What the result depends on, of what is asked; the device goes by what it is."""
        return {"what": self.what, **self.model_dump(mode="json", exclude={"device"})}


def pixels(batch: int, size: tuple[int, int], *, resized: bool) -> int:
    """Of a whole batch, as a model works on them that resizes images, or does not."""
    short, long = sorted(size)
    if resized:
        scale = min(SHORT / short, LONG / long)
        short, long = round(short * scale), round(long * scale)
    return batch * short * long
