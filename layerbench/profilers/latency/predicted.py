"""A latency prediction: operators as on a GPU, a time for each, summed over the layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from layerbench._version import __version__
from layerbench.environment.run_context import torch_version
from layerbench.errors import ModelRunError, UsageError
from layerbench.profilers.latency.checked import checked_of, interval_of, question_of
from layerbench.profilers.latency.fitted import OperatorTime, times
from layerbench.profilers.latency.operators import (
    Operator,
    OperatorTrace,
    trace_operators,
)
from layerbench.profilers.memory.batch_line import PRIME_BATCH
from layerbench.records.bounds import Shape
from layerbench.records.card import Card, Format
from layerbench.records.latency_estimate import (
    Checked,
    LatencyEstimate,
    LatencyRow,
    Limit,
    OfWhole,
    TimeInterval,
)
from layerbench.records.memory import Optimizer, Phase
from layerbench.records.samples import RowFacts
from layerbench.records.tree import Placed, placed
from layerbench.records.workload import Precision, Workload, real_format
from layerbench.zoo import Built

# What PyTorch does on a card without units for a format.
_INSTEAD: Mapping[Format, tuple[str, Precision]] = {
    "bf16": ("PyTorch emulates it there in float32", "fp32"),
    "tf32": ("PyTorch multiplies float32 there as it is", "fp32"),
    "fp16": ("PyTorch computes in float32 there", "fp32"),
    "fp64": ("the card's data sheet states no rate", "fp32"),
}
_FORMATS: Mapping[str, Format] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
}


def predict(
    workload: Workload,
    card: Card,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
) -> LatencyEstimate:
    """Predict the time of a forward, or of a training step, on a card, without it.

    Args:
        workload: what would run; a training workload needs an optimizer.
        card: where.
        optimizer: makes it a training step.
        subject: a model that was handed over, with its inputs; it stays as it was.

    Raises:
        UsageError: the card does not compute in the precision, or the batch is empty.
        ModelRunError: the model does not take the input, or runs no operators.
        NotTraceable: only a real run would show its operators.
    """
    (estimate,) = predict_for_cards(workload, (card,), optimizer=optimizer, subject=subject)
    return estimate


def predict_for_cards(
    workload: Workload,
    cards: Iterable[Card],
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
) -> list[LatencyEstimate]:
    """The same for several cards, from one trace of the model.

    Raises:
        LayerbenchError: as `predict`.
    """
    cards = [*cards]
    for card in cards:
        check_format(card, workload)
    trace = trace_operators(workload, optimizer=optimizer, subject=subject)
    return [of_trace(trace, workload, card, optimizer) for card in cards]


def check_format(card: Card, workload: Workload) -> None:
    """Refuse a precision that a card has no units for.

    Raises:
        UsageError: says what PyTorch does there, and what to take.
    """
    lacked = _lacked(workload, card)
    if lacked:
        raise UsageError(lacked)


def with_format(
    cards: Sequence[Card], workload: Workload
) -> tuple[list[Card], list[tuple[Card, str]]]:
    """The cards that compute in a workload's precision, and the others with the reason.

    Raises:
        UsageError: none of them does.
    """
    lacking = [(card, why) for card in cards if (why := _lacked(workload, card))]
    without = {card.name for card, _ in lacking}
    if len(without) == len(cards):
        raise UsageError(_lacked(workload, *cards))
    return [card for card in cards if card.name not in without], lacking


def _lacked(workload: Workload, *cards: Card) -> str:
    """Why no time is predicted for cards in a precision; empty where one of them has it."""
    format = computed_format(workload)
    if any(format in card.flops for card in cards):
        return ""
    does, instead = _INSTEAD[format]
    names = ", ".join(card.name for card in cards)
    has, it = ("has", "it") if len(cards) == 1 else ("have", "them")
    return (
        f"{names} {has} no {format} units, and {does}: no time is predicted for {it}; take "
        f"--precision {instead}"
    )


def computed_format(workload: Workload) -> Format:
    """What products are computed in."""
    return "tf32" if workload.precision == "tf32" else _FORMATS[real_format(workload)]


@dataclass(frozen=True)
class WholeTime(OfWhole):
    """The time of a forward or step, without its modules; as `records.latency_estimate` has it.

    Attributes:
        workload, optimizer, card, seconds, interval, limits, checked: as of `LatencyEstimate`.
        operators: a time for each.
    """

    workload: Workload
    optimizer: Optimizer | None
    card: Card
    seconds: float
    interval: TimeInterval
    limits: Mapping[Limit, float]
    checked: Checked
    operators: Sequence[OperatorTime]


def whole_of_trace(
    trace: OperatorTrace, workload: Workload, card: Card, optimizer: Optimizer | None
) -> WholeTime:
    """As `of_trace`, without the modules' rows, which take most of the time.

    Raises:
        ModelRunError: nothing runs on the card.
    """
    if not trace.operators:
        raise ModelRunError(
            f"{workload.model}: its forward runs no operators on a GPU: there is no time to predict"
        )
    timed = times(trace.operators, card, workload)
    seconds = fsum(time.seconds for time in timed)
    waiting = fsum(time.waiting_s for time in timed)
    question = question_of(card, workload, optimizer, waiting / seconds)
    return WholeTime(
        workload=workload,
        optimizer=optimizer,
        card=card,
        seconds=seconds,
        interval=interval_of(seconds, question),
        limits=_by_limit(timed),
        checked=checked_of(question),
        operators=timed,
    )


def of_trace(
    trace: OperatorTrace, workload: Workload, card: Card, optimizer: Optimizer | None
) -> LatencyEstimate:
    """The prediction for one card from operators that were traced before.

    Args:
        trace: of this workload with any batch; of its own where it says so.
        workload: what would run.
        card: where.
        optimizer: that the trace is of.

    Raises:
        ModelRunError: nothing runs on the card.
    """
    whole = whole_of_trace(trace, workload, card, optimizer)
    timed = whole.operators
    sums = _Sums(trace, workload.batch, timed)
    return LatencyEstimate(
        workload=workload,
        optimizer=optimizer,
        card=card,
        torch=torch_version(),
        layerbench=__version__,
        model_type=trace.modules[0].type,
        seconds=whole.seconds,
        interval=whole.interval,
        limits=dict(whole.limits),
        phases=_by_phase(trace.operators, timed) if optimizer is not None else {},
        outside_s=sums.outside_s,
        operators=len(trace.operators),
        rows=sums.rows(training=optimizer is not None),
        checked=whole.checked,
        notes=trace.notes,
    )


def _by_limit(timed: Sequence[OperatorTime]) -> dict[Limit, float]:
    sums: dict[Limit, float] = {}
    for time in timed:
        sums[time.limit] = sums.get(time.limit, 0.0) + time.seconds
    return sums


def _by_phase(operators: Sequence[Operator], timed: Sequence[OperatorTime]) -> dict[Phase, float]:
    sums: dict[Phase, float] = {}
    for operator, time in zip(operators, timed, strict=True):
        sums[operator.phase] = sums.get(operator.phase, 0.0) + time.seconds
    return sums


class _Sums:
    """What operators add up to in each module, by itself and with those that it calls.

    Args:
        trace: of the operators.
        batch: images.
        timed: a time for each.

    Attributes:
        outside_s: seconds of those in no module.
    """

    def __init__(self, trace: OperatorTrace, batch: int, timed: Sequence[OperatorTime]) -> None:
        self._trace = trace
        self._batch = batch
        # Figures by node of the tree of calls.
        self._seconds: Counter[int] = Counter()
        self._flops: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()
        self._operators: Counter[int] = Counter()
        self._phases: dict[Phase, Counter[int]] = {}
        self._limits: dict[str, Counter[Limit]] = {}
        outside = []
        for operator, time in zip(trace.operators, timed, strict=True):
            node = self._node(operator)
            if node is None:
                outside.append(time.seconds)
                continue
            self._seconds[node] += time.seconds  # type: ignore[assignment]
            self._flops[node] += operator.flops.at(batch)
            self._bytes[node] += operator.read.at(batch) + operator.written.at(batch)
            self._operators[node] += 1
            of_phase = self._phases.setdefault(operator.phase, Counter())
            of_phase[node] += time.seconds  # type: ignore[assignment]
            limits = self._limits.setdefault(trace.tree.paths[node], Counter())
            limits[time.limit] += time.seconds  # type: ignore[assignment]
        self.outside_s = fsum(outside)

    def _node(self, operator: Operator) -> int | None:
        """The call that it belongs to; if unknown, the owner's first call."""
        if operator.owner is None:
            return None
        return self._trace.tree.home(operator.owner) if operator.place is None else operator.place

    def rows(self, *, training: bool) -> tuple[LatencyRow, ...]:
        """A row for each module, in tree order.

        Args:
            training: whether they have the seconds of each phase.
        """
        figures: dict[str, Mapping[str, Any]] = {}
        for name in ("seconds", "flops", "bytes", "operators"):
            by_node: Counter[int] = getattr(self, f"_{name}")
            figures[name] = self._trace.tree.sums(by_node)
            figures[f"own_{name}"] = self._of_itself(by_node)
        phases = {
            phase: self._trace.tree.sums(by_node)
            for phase, by_node in (self._phases if training else {}).items()
        }
        modules = self._trace.modules
        return tuple(
            self._row(modules[place.row], place, figures, phases) for place in placed(modules)
        )

    def _of_itself(self, by_node: Mapping[int, int]) -> Counter[str]:
        sums: Counter[str] = Counter()
        for node, value in by_node.items():
            sums[self._trace.tree.paths[node]] += value
        return sums

    def _row(
        self,
        row: RowFacts,
        place: Placed,
        figures: Mapping[str, Mapping[str, Any]],
        phases: Mapping[Phase, Mapping[str, int]],
    ) -> LatencyRow:
        path = row.path
        ran = path in self._trace.calls or path in figures["operators"]
        limits = self._limits.get(path)
        values = {name: sums.get(path, 0) for name, sums in figures.items()}
        if not ran:
            values |= {"seconds": None, "own_seconds": None}
        return LatencyRow(
            path=path,
            type=row.type,
            depth=row.depth,
            calls=row.calls,
            block=row.block,
            position=place.position,
            turn=place.turn,
            input_shapes=self._shapes(row.input_shapes),
            output_shapes=self._shapes(row.output_shapes),
            parameters=row.parameters or 0,
            phases={phase: sums[path] for phase, sums in phases.items() if path in sums},
            limit=max(limits, key=lambda limit: limits[limit]) if limits else None,
            note=row.note,
            **values,
        )

    def _shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Shapes with the batch that is asked about, where another one was traced."""
        if self._trace.batch is not None:
            return tuple(shapes)
        return tuple(_with_batch(shape, self._batch) for shape in shapes)


def _with_batch(shape: Shape, batch: int) -> Shape:
    for at, side in enumerate(shape):
        if side and side % PRIME_BATCH == 0:
            return (*shape[:at], side // PRIME_BATCH * batch, *shape[at + 1 :])
    return shape
