"""Predictions of times that a fit has not seen: of a family, of a card, of single models.

Each part is one fit. Parts run in processes of their own, a core each.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.latency_fit.published import Published, published
from benchmarks.latency_fit.traces import Traces
from benchmarks.latency_fit.training import Dataset, dataset_of, fit

FAMILY_PARTS = 5
MODEL_PARTS = 5
LAUNCH_BOUND = 1.0


class Prediction(NamedTuple):
    """A published time, and what was predicted of it by a fit that had not seen it.

    Attributes:
        row: the published time.
        held_out: ``family``, ``card`` or ``model``: what the fit had not seen.
        part: the fit.
        error: logarithm of predicted over published.
    """

    row: Published
    held_out: str
    part: str
    error: float

    @property
    def off(self) -> float:
        """The error as a part of the published time, without its sign."""
        return abs(float(np.expm1(self.error)))


class Part(NamedTuple):
    """One fit: what it must not see, and what it is asked about."""

    held_out: str
    name: str


def predictions(
    *, epochs: int | None = None, said: Callable[[str], object] = print
) -> list[Prediction]:
    """Predictions of all parts.

    Args:
        epochs: of each fit; ``None`` for the usual ones.
        said: hears of each part that is through.
    """
    rows = published()
    parts = [
        *(Part("family", str(at)) for at in range(FAMILY_PARTS)),
        *(Part("card", card) for card in sorted({_kin(row.card) for row in rows})),
        Part("model", "0"),
    ]
    results: list[Prediction] = []
    workers = max(1, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        jobs = [(part, pool.submit(_predict, part, epochs)) for part in parts]
        for part, job in jobs:
            results += job.result()
            said(f"{part.held_out} {part.name}: {len(job.result())} rows")
    return results


def _one_thread() -> None:
    torch.set_num_threads(1)


def _predict(part: Part, epochs: int | None) -> list[Prediction]:
    data = dataset_of(published(), Traces())
    held = _held_out(data, part)
    seen, asked = data.indices([not one for one in held]), data.indices(held)
    fitted = fit(data, seen, any_card=part.held_out == "card", epochs=epochs)
    errors = fitted.errors(data, asked)
    return [
        Prediction(data.rows[i], part.held_out, part.name, float(error))
        for i, error in zip(asked, errors, strict=True)
    ]


def _held_out(data: Dataset, part: Part) -> list[bool]:
    if part.held_out == "card":
        return [_kin(row.card) == part.name for row in data.rows]
    by_family = part.held_out == "family"
    keys = [row.family if by_family else row.model for row in data.rows]
    parts = _parts(keys, FAMILY_PARTS if by_family else MODEL_PARTS)
    return [
        row.source == "timm" and parts[key] == int(part.name)
        for row, key in zip(data.rows, keys, strict=True)
    ]


def _parts(keys: Sequence[str], count: int) -> dict[str, int]:
    names = sorted({*keys})
    random.Random(0).shuffle(names)
    return {name: at % count for at, name in enumerate(names)}


def _kin(card: str) -> str:
    """Cards that differ in their memory alone are one."""
    return card.partition("-")[0]
