"""What the routes answer, made from what was measured or predicted. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from pydantic import ValidationError

from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import (
    CardPrediction,
    Figure,
    MeasurementResult,
    PredictedFigure,
)
from layerbench.service.web.schemas import (
    About,
    Answer,
    BatchTime,
    JobAnswer,
    Parameters,
    ResourceAnswer,
    StoredResult,
    TrainingParts,
    TrainingTimeAnswer,
)
from layerbench.service.web.tables import Job, Result
from layerbench.training.estimate import duration, of_two_processes

# Standard deviations of the logarithm, from process to process, as `benchmarks/service.py
# intervals` measures them; of a GPU's figures none has been measured.
RAM_APART, CPU_APART = 0.02, 0.10


Found = MeasurementResult | CardPrediction
AnyFigure = Figure | PredictedFigure


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


def resource(
    result: Result, question: Question, job: str | None, stored: bool | None = None
) -> dict[str, Any]:
    """Of ``estimate-resource``.

    Args:
        result: that was found for the question.
        question: what is asked.
        job: that measured it, if this request waited for it.
        stored: whether it was found for an earlier request; ``None``: so where there is no job.
    """
    measurement = _found(result)
    figures: dict[str, AnyFigure | None] = {"Peak GPU Memory": measurement.gpu_memory_peak}
    if question.application_type == "training":
        figures |= {"forward_pass": measurement.forward, "backward_pass": measurement.backward}
        times = BatchTime(
            forward_pass=_value(measurement.forward), backward_pass=_value(measurement.backward)
        )
    else:
        figures |= {"forward_pass": measurement.batch}
        times = BatchTime(forward_pass=_value(measurement.batch), backward_pass=None)
    of_devices = {
        "Peak GPU Utilization": measurement.gpu_peak,
        "VRAM before training": measurement.vram_before,
    }
    measured = tuple(name for name, value in of_devices.items() if value is not None)
    figures |= {
        "Peak RAM Memory": _of_one_process(measurement.ram_peak, RAM_APART),
        "RAM before training": _of_one_process(measurement.ram_before, RAM_APART),
        "Peak CPU Utilization": _of_one_process(measurement.cpu_peak, CPU_APART, most=1.0),
    }
    answer = ResourceAnswer(
        gpu_memory=_value(measurement.gpu_memory_peak),
        gpu_utilization=measurement.gpu_peak,
        ram=measurement.ram_peak,
        cpu=measurement.cpu_peak,
        batch_time=times,
        ram_before=measurement.ram_before,
        vram_before=measurement.vram_before,
        about=_about(result, measurement, question, figures, job, stored, measured),
    )
    return answer.model_dump(mode="json", by_alias=True)


def training_time(
    result: Result, question: Question, job: str | None, stored: bool | None = None
) -> dict[str, Any]:
    """Of ``estimate-training-time``; arguments as of `resource`."""
    measurement = _found(result)
    assert measurement.forward is not None
    assert measurement.backward is not None
    batches = math.ceil(question.dataset_size / question.batch_size)
    total = _total(question.epochs, batches, measurement.forward, measurement.backward)
    figures: dict[str, AnyFigure | None] = {
        "Total Training Time": total,
        "forward_pass": measurement.forward,
        "backward_pass": measurement.backward,
    }
    answer = TrainingTimeAnswer(
        total=total.value,
        parts=TrainingParts(
            forward_pass=measurement.forward.value,
            backward_pass=measurement.backward.value,
            batches=batches,
            epochs=question.epochs,
        ),
        about=_about(result, measurement, question, figures, job, stored),
    )
    return answer.model_dump(mode="json", by_alias=True)


def inference_time(
    result: Result, question: Question, job: str | None, stored: bool | None = None
) -> dict[str, Any]:
    """Of ``estimate-inference-time``; arguments as of `resource`."""
    measurement = _found(result)
    one, batch = "1-Image Inference Time", f"Batch of {question.batch_size} Inference Time"
    figures = {one: measurement.one_image, batch: measurement.batch}
    about = _about(result, measurement, question, figures, job, stored)
    return {
        one: _value(measurement.one_image),
        batch: _value(measurement.batch),
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
            found=MeasurementResult.model_validate(result.found),
            measured_at=_moment(result.measured_at),
        )
    except ValidationError:
        return None


def _found(result: Result) -> Found:
    """What was measured, or predicted.

    Raises:
        pydantic.ValidationError: it is neither, as where the store was damaged.
    """
    if result.what == CardPrediction.what:
        return CardPrediction.model_validate(result.found)
    return MeasurementResult.model_validate(result.found)


def _about(
    result: Result,
    measurement: Found,
    question: Question,
    figures: Mapping[str, AnyFigure | None],
    job: str | None,
    stored: bool | None,
    measured: tuple[str, ...] = (),
) -> About:
    available = {name: figure for name, figure in figures.items() if figure is not None}
    return About(
        method={
            **{name: figure.method for name, figure in available.items()},
            **dict.fromkeys(measured, "measured"),
        },
        interval={
            name: (figure.low, figure.high)
            for name, figure in available.items()
            if figure.low is not None and figure.high is not None
        },
        stored=job is None if stored is None else stored,
        device=question.device,
        measured_at=_moment(result.measured_at),
        job=job,
        steps=measurement.steps,
        parameters=Parameters(
            asked=question.parameters,
            found=measurement.parameters,
            matches=(
                None
                if question.parameters is None
                else question.parameters == measurement.parameters
            ),
        ),
        content=measurement.content,
        environment=measurement.environment.model_dump(mode="json"),
        notes=measurement.notes,
        unsteady=measurement.unsteady,
    )


def _of_one_process(value: float | None, apart: float, most: float = math.inf) -> Figure | None:
    """With what another process may find in its place, up to the most that there is."""
    if value is None:
        return None
    factor = math.exp(of_two_processes(apart))
    return Figure(value=value, low=value / factor, high=min(most, value * factor))


def _total(epochs: int, batches: int, *phases: AnyFigure) -> AnyFigure:
    """Of a training whose steps have these phases, with bounds where all of them have some."""

    def of(bounds: list[float | None]) -> float | None:
        if None in bounds:
            return None
        return duration(epochs, batches, sum(filter(None, bounds)))[1]

    return type(phases[0])(
        value=duration(epochs, batches, sum(phase.value for phase in phases))[1],
        low=of([phase.low for phase in phases]),
        high=of([phase.high for phase in phases]),
    )


def _value(figure: AnyFigure | None) -> float | None:
    return None if figure is None else figure.value


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
