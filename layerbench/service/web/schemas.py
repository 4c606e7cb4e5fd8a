"""What the service answers: the models behind its OpenAPI document. Loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import MeasurementResult
from layerbench.service.web.tables import State

UNITS = {"time": "seconds", "memory": "bytes", "utilization": "share, 0 to 1"}


class Answer(BaseModel):
    """Base: keys with spaces are aliases, and answers are written with them."""

    model_config = ConfigDict(frozen=True)


class Parameters(Answer):
    """Whether the architecture has as many parameters as the asker believes."""

    asked: int | None
    found: int
    matches: bool | None


class About(Answer):
    """How the figures came about.

    Attributes:
        units: of each kind of figure.
        method: of each figure: measured, replayed, analytic, or predicted for a card.
        interval: the 95 % bounds of each figure that has some; the 90 % bounds of a predicted time.
        stored: whether it was measured, or predicted, for an earlier request.
        device: the card that the figures are predicted for, or the cluster's device that they were
            measured on; null where they were measured here.
        measured_at: UTC; of a prediction, when it was made.
        job: that measured it, if this request waited for it.
        steps: measured; 0 of a prediction.
        content: of a detector, proposals and detections for an image.
        environment: the device, the machine, versions; of a prediction the card and versions.
        notes: what the reader should know; of a prediction, how wrong such ones were.
        unsteady: why the figures are not kept for the next one who asks; empty where they are.
    """

    units: dict[str, str] = Field(default_factory=lambda: dict(UNITS))
    method: dict[str, str]
    interval: dict[str, tuple[float, float]]
    stored: bool
    device: str | None = None
    measured_at: str
    job: str | None = None
    steps: int
    parameters: Parameters
    content: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, Any]
    notes: tuple[str, ...] = ()
    unsteady: str = ""


class BatchTime(Answer):
    """Seconds of a step's forward and backward; ``None`` where none was run."""

    forward_pass: float | None
    backward_pass: float | None


class ResourceAnswer(Answer):
    """What a job needs of the hardware; null is what nobody measured or predicted."""

    gpu_memory: float | None = Field(serialization_alias="Peak GPU Memory")
    gpu_utilization: float | None = Field(serialization_alias="Peak GPU Utilization")
    ram: float | None = Field(serialization_alias="Peak RAM Memory")
    cpu: float | None = Field(serialization_alias="Peak CPU Utilization")
    batch_time: BatchTime = Field(serialization_alias="Batch Time")
    ram_before: float | None = Field(serialization_alias="RAM before training")
    vram_before: float | None = Field(serialization_alias="VRAM before training")
    about: About


class TrainingParts(Answer):
    """The terms of a training's time."""

    forward_pass: float
    backward_pass: float
    batches: int
    epochs: int


class TrainingTimeAnswer(Answer):
    """(forward + backward) x batches x epochs."""

    total: float = Field(serialization_alias="Total Training Time")
    parts: TrainingParts
    about: About


class InferenceTimeAnswer(Answer):
    """Seconds of a forward with one image, and with a batch."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "properties": {
                "1-Image Inference Time": {"type": "number"},
                "about": {"$ref": "#/components/schemas/About"},
            },
            "patternProperties": {"^Batch of [0-9]+ Inference Time$": {"type": "number"}},
            "required": ["1-Image Inference Time", "about"],
        },
    )


class Problem(Answer):
    """The reason for a refusal, in one line."""

    detail: str


class JobAnswer(Answer):
    """How far a job is: ``queued``, ``running``, or how it ended and why."""

    id: str
    state: State
    reason: str
    # As it was asked, perhaps of another version of this program.
    question: dict[str, Any]
    created_at: str
    started_at: str | None
    ended_at: str | None


class ServerAnswer(Answer):
    """Where the service measures and stores.

    Attributes:
        device: the usual one.
        devices: that a profile's question may name: what each is, by its name.
        cards: GPUs that an estimate may be predicted for: each one's title, by its name.
        cluster: devices of the cluster that an estimate may be measured on: how many there are, by
            name; null where the server has no cluster.
        database: the file of jobs and results, as the server was told.
    """

    device: str
    devices: dict[str, str]
    cards: dict[str, str]
    cluster: dict[str, int] | None = None
    database: str


class StoredResult(Answer):
    """One of the results that are stored: what was asked, and all that was found."""

    key: str
    question: Question
    found: MeasurementResult
    measured_at: str


class Status(Answer):
    """Of the service."""

    status: Literal["live", "ready"]
