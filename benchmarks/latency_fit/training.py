"""Networks fitted through the sum over a model's operators to the published time of the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import silu

from benchmarks.latency_fit.published import Published
from benchmarks.latency_fit.traces import Traces
from layerbench.environment import cards
from layerbench.profilers.latency import network as of_package
from layerbench.profilers.latency.features import features_of
from layerbench.profilers.latency.kinds import KINDS
from layerbench.profilers.latency.network import Network
from layerbench.profilers.latency.whole import OVERLAP

EPOCHS, EPOCHS_ANY_CARD = 20, 5
"""Passes over the rows. With more of them the cards are learned by heart, which serves no other."""

BATCH = 128
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-3
ROBUST = 0.05
"""Below this error the loss is a square, above it the error's size: some times are odd."""

WEIGHTS = {"nvidia": 6.0}
"""How often a row counts: one publisher has few."""

OPTIMIZER = KINDS.index("optimizer")

FORGOTTEN = 0.3
"""Part of the rows whose card a network that answers for others is not told: it learns then what is
its cards' own, and leaves it out."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Rows to fit to, with the features of their operators one behind the other.

    Attributes:
        rows: published times.
        inputs, compute_ms, memory_ms, counts: of the operators.
        ends: where each row's operators end.
        launched: operators of each row.
        log_ms: of each row.
        weights: of each row.
    """

    rows: Sequence[Published]
    inputs: torch.Tensor
    compute_ms: torch.Tensor
    memory_ms: torch.Tensor
    counts: torch.Tensor
    ends: Indices
    launched: torch.Tensor
    log_ms: torch.Tensor
    weights: torch.Tensor

    def indices(self, wanted: Sequence[bool]) -> Indices:
        """Of the rows that are wanted."""
        return np.flatnonzero(np.array(wanted))


def dataset_of(rows: Sequence[Published], traces: Traces) -> Dataset:
    """Of the rows that have a trace."""
    rows = [row for row in rows if row.traced in traces]
    parts = []
    for row in rows:
        table, counts = traces.of(row.traced)
        features = features_of(
            table,
            row.batch,
            cards.get(row.card),
            precision=row.precision,  # type: ignore[arg-type]
            channels_last=row.channels_last,
        )
        parts.append((features, counts))

    def joined(arrays: list[NDArray[np.float64]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(np.float32))

    return Dataset(
        rows=rows,
        inputs=joined([features.inputs for features, _ in parts]),
        compute_ms=joined([features.compute_s * 1e3 for features, _ in parts]),
        memory_ms=joined([features.memory_s * 1e3 for features, _ in parts]),
        counts=joined([counts for _, counts in parts]),
        ends=np.cumsum([len(counts) for _, counts in parts]),
        launched=torch.tensor(
            [float(counts[features.kinds != OPTIMIZER].sum()) for features, counts in parts]
        ),
        log_ms=torch.tensor([math.log(row.seconds * 1e3) for row in rows]),
        weights=torch.tensor([WEIGHTS.get(row.source, 1.0) for row in rows]),
    )


class Learner(nn.Module):
    """One member of `layerbench.profilers.latency.network.Network`, as it learns."""

    def __init__(self, inputs: int, known: Sequence[str]) -> None:
        super().__init__()
        width, card = of_package.WIDTH, of_package.CARD_WIDTH
        self.known = [*known]
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)
        self.card = nn.Embedding(len(known) + 1, card)
        self.card_in = nn.Linear(card, width, bias=False)
        # Of a launch on the hosts of each publisher, microseconds.
        self.launch = nn.ParameterDict(
            {"nvidia": nn.Parameter(torch.tensor(43.0).log()),
             "timm": nn.Parameter(torch.tensor(12.0).log())}
        )  # fmt: skip
        nn.init.normal_(self.card.weight, 0, 0.1)
        nn.init.zeros_(self.last.weight)
        self.last.bias.data = torch.tensor([0.0, 0.5, -6.0])

    def forward(
        self, data: Dataset, indices: Indices, forget: NDArray[np.bool_] | None = None
    ) -> torch.Tensor:
        """Logarithms of milliseconds, of the rows at ``indices``."""
        begins = np.where(indices > 0, data.ends[indices - 1], 0)
        lengths = data.ends[indices] - begins
        places = np.repeat(begins - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        taken = torch.from_numpy(places + np.arange(lengths.sum()))
        of_row = torch.from_numpy(np.repeat(np.arange(len(indices)), lengths))
        told = np.array([self._place(data.rows[i]) for i in indices])
        if forget is not None:
            told[forget] = 0
        kernels = self._kernels(data, taken, torch.from_numpy(told)[of_row]) * data.counts[taken]
        device = torch.zeros(len(indices)).index_add(0, of_row, kernels)
        host = data.launched[torch.from_numpy(indices)] * self._launch_ms(data, indices)
        both = torch.stack([device.log(), host.log()]) * OVERLAP
        return both.logsumexp(0) / OVERLAP

    def _kernels(self, data: Dataset, taken: torch.Tensor, card: torch.Tensor) -> torch.Tensor:
        hidden = silu(self.first(data.inputs[taken]) + self.card_in(self.card(card)))
        out = self.last(silu(self.second(hidden)))
        p, m = of_package.POWER, of_package
        compute = data.compute_ms[taken] / (out[:, 0].sigmoid() * m.MOST_COMPUTE + m.LEAST_COMPUTE)
        memory = data.memory_ms[taken] / (out[:, 1].sigmoid() * m.MOST_MEMORY + m.LEAST_MEMORY)
        besides = out[:, 2].clamp(m.SHORTEST_LOG_MS, m.LONGEST_LOG_MS).exp()
        return (compute**p + memory**p + 1e-12) ** (1 / p) + besides

    def _place(self, row: Published) -> int:
        return 1 + self.known.index(row.card) if row.card in self.known else 0

    def _launch_ms(self, data: Dataset, indices: Indices) -> torch.Tensor:
        return torch.stack([self.launch[data.rows[i].source] for i in indices]).exp() / 1e3


@dataclass(frozen=True)
class Fit:
    """An ensemble.

    Attributes:
        members: that were fitted to the same rows from other beginnings.
    """

    members: Sequence[Learner]

    def errors(self, data: Dataset, indices: Indices) -> NDArray[np.float64]:
        """Logarithms of predicted over published times.

        Args:
            data: that has the rows.
            indices: of the rows.
        """
        with torch.no_grad():
            times = [member(data, indices).exp() for member in self.members]
        published = data.log_ms[torch.from_numpy(indices)]
        return (torch.stack(times).mean(0).log() - published).double().numpy()

    @property
    def launch_us(self) -> dict[str, float]:
        """Microseconds of a launch by publisher, the mean of the members."""
        return {
            source: float(np.mean([member.launch[source].exp().item() for member in self.members]))
            for source in ("nvidia", "timm")
        }

    def network(self) -> Network:
        """The weights for the package."""

        def of(take: str) -> NDArray[np.float32]:
            tensors = [member.get_parameter(take).detach() for member in self.members]
            return torch.stack(tensors).numpy()

        return Network(
            cards=np.array(self.members[0].known),
            card=of("card.weight"),
            card_in=of("card_in.weight"),
            first=of("first.weight"),
            first_bias=of("first.bias"),
            second=of("second.weight"),
            second_bias=of("second.bias"),
            last=of("last.weight"),
            last_bias=of("last.bias"),
            launch_s=np.array(self.launch_us["nvidia"] * 1e-6),
        )


def fit(
    data: Dataset, indices: Indices, *, any_card: bool = False, epochs: int | None = None
) -> Fit:
    """Fit an ensemble to the rows at ``indices``.

    Args:
        data: that has the rows.
        indices: of the rows.
        any_card: whether it is to answer for cards that it has not seen: it is told no card.
        epochs: passes over the rows.
    """
    cards_seen = {data.rows[i].card for i in indices if data.rows[i].source == "timm"}
    known = sorted(cards_seen)
    epochs = epochs or (EPOCHS_ANY_CARD if any_card else EPOCHS)
    return Fit(
        [
            _fit(data, indices, known, seed, epochs, FORGOTTEN if any_card else 0.0)
            for seed in range(of_package.MEMBERS)
        ]
    )


def _fit(
    data: Dataset, indices: Indices, known: list[str], seed: int, epochs: int, forgotten: float
) -> Learner:
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    learner = Learner(data.inputs.shape[1], known)
    optimizer = torch.optim.AdamW(learner.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(indices) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(epochs):
        shuffled = generator.permutation(indices)
        for begin in range(0, len(shuffled), BATCH):
            part = shuffled[begin : begin + BATCH]
            places = torch.from_numpy(part)
            error = (
                learner(data, part, generator.random(len(part)) < forgotten) - data.log_ms[places]
            )
            loss = (error.square() + ROBUST**2).sqrt() * data.weights[places]
            optimizer.zero_grad()
            (loss.sum() / data.weights[places].sum()).backward()
            optimizer.step()
            schedule.step()
    return learner
