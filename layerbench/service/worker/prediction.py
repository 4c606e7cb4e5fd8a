"""One prediction for a card that is not here, made by the resident process. Loads torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from importlib.resources import files

from layerbench._version import __version__
from layerbench.environment import cards
from layerbench.environment.run_context import torch_version
from layerbench.errors import UsageError
from layerbench.profilers import latency
from layerbench.profilers.latency.checked import ERRORS
from layerbench.profilers.latency.network import WEIGHTS, WEIGHTS_ANY_CARD
from layerbench.profilers.latency.operators import OperatorTrace, trace_operators
from layerbench.profilers.latency.predicted import check_format, of_trace
from layerbench.profilers.memory.largest_batch import with_fit
from layerbench.profilers.memory.predicted import estimated
from layerbench.profilers.memory.run_for_gpu import FakeDoesNotSuffice, RunForGpu, run_fake
from layerbench.profilers.memory.runs_by_batch import with_batch
from layerbench.records.card import Card
from layerbench.records.latency_estimate import COVERAGE, LatencyEstimate
from layerbench.records.memory import MemoryEstimate, Optimizer, Phase
from layerbench.records.workload import Workload
from layerbench.reporters.documents.latency_estimate import checked
from layerbench.service.protocol.questions import Question
from layerbench.service.protocol.results import CardPrediction, CardSurroundings, PredictedFigure
from layerbench.service.worker.estimate import workload_of
from layerbench.units import bytes_, percent

CUDNN = "nvidia-cudnn-frontend"


def predict(question: Question) -> CardPrediction:
    """The memory and the times of a question on the card that it names; nothing runs.

    Raises:
        UsageError: the card lacks the format, or the model would have to run for real.
        LayerbenchError: as `layerbench.zoo.resolve` and `run_fake` do.
    """
    card, workload = cards.get(question.device or ""), workload_of(question)
    training = question.application_type == "training"
    optimizer: Optimizer | None = "momentum" if training else None
    try:
        check_format(card, workload)
    except UsageError as error:
        raise UsageError(str(error).replace("--precision ", "precision ")) from None
    run = _run(workload, optimizer)
    memory = with_fit(
        estimated(workload, optimizer, run, card), card.memory_bytes, run=run, look=False
    )
    trace = trace_operators(workload, optimizer=optimizer)
    estimate = of_trace(trace, workload, card, optimizer)
    one = None if training else _of_one_image(trace, workload, card)
    reserved = memory.reserved_interval
    return CardPrediction(
        parameters=estimate.rows[0].parameters,
        forward=_phase(estimate, "forward") if training else None,
        backward=_phase(estimate, "backward") if training else None,
        batch=None if training else _time(estimate, estimate.seconds),
        one_image=None if one is None else _time(one, one.seconds),
        gpu_memory_peak=PredictedFigure(
            value=memory.reserved_bytes, low=reserved.low, high=reserved.high
        ),
        environment=CardSurroundings(card=card, torch=torch_version(), layerbench=__version__),
        notes=tuple(dict.fromkeys(_notes(memory, [estimate, *([] if one is None else [one])]))),
    )


def made_of() -> str:
    """A name for all that predictions are made of besides the code, from its content.

    These are the fitted weights, the errors behind the intervals, the data sheets, and cuDNN.
    """
    digest = hashlib.sha256()
    for name in (WEIGHTS, WEIGHTS_ANY_CARD, ERRORS):
        digest.update((files(latency) / name).read_bytes())
    for card in cards.known():
        digest.update(card.model_dump_json().encode())
    with suppress(metadata.PackageNotFoundError):
        digest.update(metadata.version(CUDNN).encode())
    return digest.hexdigest()[:16]


def _run(workload: Workload, optimizer: Optimizer | None) -> RunForGpu:
    try:
        return run_fake(workload, optimizer, None)
    except FakeDoesNotSuffice:
        raise UsageError(
            f"{workload.model} looks at values as it computes, so that nothing is predicted of it "
            "without a run: leave device out to have it measured here, or have its memory "
            "predicted with `layerbench mem --device`"
        ) from None


def _of_one_image(trace: OperatorTrace, workload: Workload, card: Card) -> LatencyEstimate:
    one = with_batch(workload, 1)
    return of_trace(trace if trace.batch is None else trace_operators(one), one, card, None)


def _phase(estimate: LatencyEstimate, phase: Phase) -> PredictedFigure:
    return _time(estimate, estimate.phases.get(phase, 0.0))


def _time(estimate: LatencyEstimate, seconds: float) -> PredictedFigure:
    """A part of an estimate; its bounds are as far from it as those of the whole."""
    share = seconds / estimate.seconds if estimate.seconds else 0.0
    between = estimate.interval
    return PredictedFigure(value=seconds, low=share * between.low, high=share * between.high)


def _notes(memory: MemoryEstimate, estimates: list[LatencyEstimate]) -> Iterator[str]:
    card = estimates[0].card
    yield f"predicted for {card.title}, without it; intervals of times: {percent(COVERAGE)}"
    for estimate in estimates:
        yield f"times: {checked(estimate.checked)}"
    if memory.fit is not None and memory.fit.fits != "yes":
        fits = "does not fit" if memory.fit.fits == "no" else "may not fit"
        yield (
            f"the batch {fits}: with CUDA's context it takes {bytes_(memory.total_bytes)} of "
            f"{bytes_(card.memory_bytes)}"
        )
    yield from memory.notes
    for estimate in estimates:
        yield from estimate.notes
