"""The learning rate over a run: it climbs, then falls to 0, both linearly."""

from __future__ import annotations


def factor(step: int, *, warmup: int, total: int) -> float:
    """What the largest learning rate is multiplied with in a step.

    Warm-up as Goyal et al. (2017): the first step has ``1 / warmup`` of it, the step ``warmup``
    (counted from 1) all of it. From there it falls so that the step after the last would have 0.

    Args:
        step: from 0.
        warmup: steps in which the rate climbs; 0 for none.
        total: steps of the run.
    """
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))
