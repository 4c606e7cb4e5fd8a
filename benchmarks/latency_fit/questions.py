"""How wrong predictions were, by kinds of questions: what the package says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.latency_fit.held_out import Prediction
from layerbench.profilers.latency.checked import ANY_BATCH, LARGE

COVERAGE = 0.9

Wanted = Callable[[Prediction], bool]

QUESTIONS: Mapping[str, Wanted] = {
    "family seen": lambda one: one.held_out == "model" and one.row.mode == "infer",
    "family unseen": lambda one: (
        one.held_out == "family" and one.row.mode == "infer" and one.row.batch >= LARGE
    ),
    "family unseen, few images": lambda one: (
        one.held_out == "family" and one.row.mode == "infer" and one.row.batch < LARGE
    ),
    "card unseen": lambda one: (
        one.held_out == "card" and one.row.source == "timm" and one.row.mode == "infer"
    ),
    f"{ANY_BATCH}, amp": lambda one: _nvidia(one) and one.row.precision == "amp",
    f"{ANY_BATCH}, fp32": lambda one: _nvidia(one) and one.row.precision == "fp32",
    "training, family seen": lambda one: one.held_out == "model" and one.row.mode == "train",
    "training, family unseen": lambda one: one.held_out == "family" and one.row.mode == "train",
    "training, card unseen": lambda one: (
        one.held_out == "card" and one.row.source == "nvidia" and one.row.mode == "train"
    ),
}
"""Kinds of questions, and the predictions that tell of each."""


def _nvidia(one: Prediction) -> bool:
    return one.held_out == "card" and one.row.source == "nvidia" and one.row.mode == "infer"


def answers(predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """Of each kind of question: rows, models, errors, and the interval that holds 90 %.

    ``low`` and ``high`` are factors of the predicted time. They are quantiles of published over
    predicted times, stretched so far that those of the other parts hold 90 % of each part's rows.
    """
    return {
        name: _answer([one for one in predictions if wanted(one)])
        for name, wanted in QUESTIONS.items()
    }


def by_card(predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """How wrong predictions for each card were, where the fit had not seen the card."""
    held_out: dict[str, list[float]] = {}
    for one in predictions:
        if one.held_out == "card":
            held_out.setdefault(one.row.card, []).append(one.off)
    return {
        card: {"rows": len(off), "median_error": round(float(np.median(off)), 4)}
        for card, off in sorted(held_out.items())
    }


def _answer(chosen: Sequence[Prediction]) -> dict[str, Any]:
    ratios = np.array([-one.error for one in chosen])
    parts = np.array([one.part for one in chosen])
    off = np.array([one.off for one in chosen])
    stretch, within = _stretch(ratios, parts)
    low, high = _interval(ratios, stretch)
    return {
        "rows": len(chosen),
        "models": len({one.row.model for one in chosen}),
        "median_error": round(float(np.median(off)), 4),
        "mean_error": round(float(off.mean()), 4),
        "within": round(within, 3),
        "low": round(float(np.exp(low)), 4),
        "high": round(float(np.exp(high)), 4),
    }


def held(predictions: Sequence[Prediction]) -> list[bool]:
    """Whether each was held by an interval made of the errors of the other parts alone."""
    result = [False] * len(predictions)
    for wanted in QUESTIONS.values():
        places = [at for at, one in enumerate(predictions) if wanted(one)]
        if not places:
            continue
        ratios = np.array([-predictions[at].error for at in places])
        parts = np.array([predictions[at].part for at in places])
        stretch, _ = _stretch(ratios, parts)
        for at, one in zip(places, _held(ratios, parts, stretch), strict=True):
            result[at] = bool(one)
    return result


def _held(ratios: Any, parts: Any, stretch: float) -> Any:
    if len({*parts}) < 2:
        return _within(ratios, *_interval(ratios, stretch))
    result = np.zeros(len(ratios), dtype=bool)
    for part in {*parts}:
        inside = parts == part
        result[inside] = _within(ratios[inside], *_interval(ratios[~inside], stretch))
    return result


def _interval(ratios: Any, stretch: float) -> tuple[float, float]:
    edge = (1 - COVERAGE) / 2
    low, middle, high = np.quantile(ratios, [edge, 0.5, 1 - edge])
    return float(middle + stretch * (low - middle)), float(middle + stretch * (high - middle))


def _stretch(ratios: Any, parts: Any) -> tuple[float, float]:
    """How far quantiles must be stretched, and how much of other parts' rows they hold then."""
    if len({*parts}) < 2:
        return 1.0, float(_held(ratios, parts, 1.0).mean())
    within = 0.0
    for stretch in np.arange(0.8, 3.0, 0.02):
        within = float(_held(ratios, parts, float(stretch)).mean())
        if within >= COVERAGE:
            break
    return float(stretch), within


def _within(ratios: Any, low: float, high: float) -> Any:
    return (ratios >= low) & (ratios <= high)
