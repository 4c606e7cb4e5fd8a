"""What the routes answer, made from what a measurement found. Loads no torch."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import Found, Known
from layerbench.service.protocol.spread import Kind, between
from layerbench.service.web.database import Job, Result, State

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
        method: of each figure: measured, replayed or analytic.
        interval: the 95 % bounds of each figure that has some.
        stored: whether it was measured for an earlier request.
        measured_at: UTC.
        job: that measured it, if this request waited for it.
        steps: measured.
        content: of a detector, proposals and detections for an image.
        environment: the device, the machine, versions.
        unsteady: why the figures are not kept for the next one who asks; empty where they are.
    """

    units: dict[str, str] = Field(default_factory=lambda: dict(UNITS))
    method: dict[str, str]
    interval: dict[str, tuple[float, float]]
    stored: bool
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
    """What a job needs of the hardware."""

    gpu_memory: float | None = Field(serialization_alias="Peak GPU Memory")
    gpu_utilization: float | None = Field(serialization_alias="Peak GPU Utilization")
    ram: float = Field(serialization_alias="Peak RAM Memory")
    cpu: float = Field(serialization_alias="Peak CPU Utilization")
    batch_time: BatchTime = Field(serialization_alias="Batch Time")
    ram_before: float = Field(serialization_alias="RAM before training")
    vram_before: float | None = Field(serialization_alias="VRAM before training")
    about: About


class TrainingParts(Answer):
    """What a training's time was made of."""

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
    """Why there is no answer, in one line."""

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


class StoredResult(Answer):
    """One of the results that are stored: what was asked, and all that was found."""

    key: str
    question: Question
    found: Found
    measured_at: str


class RecordAnswer(Answer):
    """A record that may be looked at.

    Attributes:
        id: its number.
        path: of its file, from the folder that was named on.
        kind: what it records; ``None`` where it cannot be read.
        model, input: what ran.
        device: that it was measured on; ``None`` for what is no measurement.
        measured_at: when that began.
        layers: rows.
        problem: why it cannot be read.
    """

    id: str
    path: str
    kind: str | None = None
    model: str | None = None
    input: str | None = None
    device: str | None = None
    measured_at: str | None = None
    layers: int = 0
    problem: str | None = None


class Status(Answer):
    """Of the service."""

    status: Literal["live", "ready"]


def resource(result: Result, question: Question, job: str | None) -> dict[str, Any]:
    """Of ``estimate-resource``."""
    found = Found.model_validate(result.found)
    figures = {"Peak GPU Memory": found.gpu_memory_peak}
    if question.application_type == "training":
        figures |= {"forward_pass": found.forward, "backward_pass": found.backward}
        times = BatchTime(forward_pass=_value(found.forward), backward_pass=_value(found.backward))
    else:
        figures |= {"forward_pass": found.batch}
        times = BatchTime(forward_pass=_value(found.batch), backward_pass=None)
    told = {"Peak GPU Utilization": found.gpu_peak, "VRAM before training": found.vram_before}
    measured = tuple(name for name, value in told.items() if value is not None)
    figures |= {
        "Peak RAM Memory": _of_one_process(found.ram_peak, "ram"),
        "RAM before training": _of_one_process(found.ram_before, "ram"),
        "Peak CPU Utilization": _of_one_process(found.cpu_peak, "cpu", most=1.0),
    }
    answer = ResourceAnswer(
        gpu_memory=_value(found.gpu_memory_peak),
        gpu_utilization=found.gpu_peak,
        ram=found.ram_peak,
        cpu=found.cpu_peak,
        batch_time=times,
        ram_before=found.ram_before,
        vram_before=found.vram_before,
        about=_about(result, found, question, figures, job, measured),
    )
    return answer.model_dump(mode="json", by_alias=True)


def training_time(result: Result, question: Question, job: str | None) -> dict[str, Any]:
    """Of ``estimate-training-time``."""
    found = Found.model_validate(result.found)
    assert found.forward is not None
    assert found.backward is not None
    batches = math.ceil(question.dataset_size / question.batch_size)
    steps = batches * question.epochs
    total = _sum(steps, found.forward, found.backward)
    figures: dict[str, Known | None] = {
        "Total Training Time": total,
        "forward_pass": found.forward,
        "backward_pass": found.backward,
    }
    answer = TrainingTimeAnswer(
        total=total.value,
        parts=TrainingParts(
            forward_pass=found.forward.value,
            backward_pass=found.backward.value,
            batches=batches,
            epochs=question.epochs,
        ),
        about=_about(result, found, question, figures, job),
    )
    return answer.model_dump(mode="json", by_alias=True)


def inference_time(result: Result, question: Question, job: str | None) -> dict[str, Any]:
    """Of ``estimate-inference-time``."""
    found = Found.model_validate(result.found)
    one, batch = "1-Image Inference Time", f"Batch of {question.batch_size} Inference Time"
    figures = {one: found.one_image, batch: found.batch}
    about = _about(result, found, question, figures, job)
    return {
        one: _value(found.one_image),
        batch: _value(found.batch),
        "about": about.model_dump(mode="json"),
    }


def job_answer(job: Job) -> JobAnswer:
    """Of ``jobs/{id}``."""
    return JobAnswer(
        id=job.id,
        state=job.state,
        reason=job.reason,
        question=job.question,
        created_at=_moment(job.created_at),
        started_at=None if job.started_at is None else _moment(job.started_at),
        ended_at=None if job.ended_at is None else _moment(job.ended_at),
    )


def stored(result: Result) -> StoredResult | None:
    """Of ``results``; ``None`` for one that another version of this program stored in its form."""
    try:
        return StoredResult(
            key=result.key,
            question=Question.model_validate(result.question),
            found=Found.model_validate(result.found),
            measured_at=_moment(result.measured_at),
        )
    except ValidationError:
        return None


def _about(
    result: Result,
    found: Found,
    question: Question,
    figures: dict[str, Known | None],
    job: str | None,
    measured: tuple[str, ...] = (),
) -> About:
    known = {name: figure for name, figure in figures.items() if figure is not None}
    return About(
        method={
            **{name: figure.method for name, figure in known.items()},
            **dict.fromkeys(measured, "measured"),
        },
        interval={
            name: (figure.low, figure.high)
            for name, figure in known.items()
            if figure.low is not None and figure.high is not None
        },
        stored=job is None,
        measured_at=_moment(result.measured_at),
        job=job,
        steps=found.steps,
        parameters=Parameters(
            asked=question.parameters,
            found=found.parameters,
            matches=(
                None if question.parameters is None else question.parameters == found.parameters
            ),
        ),
        content=found.content,
        environment=found.environment.model_dump(mode="json"),
        notes=found.notes,
        unsteady=found.unsteady,
    )


def _of_one_process(value: float, kind: Kind, most: float = math.inf) -> Known:
    """With what another process may find in its place, up to the most that there is."""
    factor = math.exp(between(kind))
    return Known(value=value, low=value / factor, high=min(most, value * factor))


def _sum(times: int, *figures: Known) -> Known:
    """So many times all of them, with bounds where all have some."""
    low = [figure.low for figure in figures if figure.low is not None]
    high = [figure.high for figure in figures if figure.high is not None]
    bounded = len(low) == len(high) == len(figures)
    return Known(
        value=times * sum(figure.value for figure in figures),
        low=times * sum(low) if bounded else None,
        high=times * sum(high) if bounded else None,
    )


def _value(figure: Known | None) -> float | None:
    return None if figure is None else figure.value


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
