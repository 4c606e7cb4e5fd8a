"""Pictures of records. Matplotlib is loaded when one is drawn; torch is not.

`training` draws a training run or a sweep, as PNG. `icicle`, `bars`, `roofline`, `memory` and
`graph` draw a record for ``layerbench plot``: each returns a figure, and `encoded` makes PNG or SVG
of it.

Known limitation: the bytes depend on matplotlib's version and fonts.
"""

from __future__ import annotations

from layerbench.plots.bars import bars
from layerbench.plots.canvas import ENDINGS, encoded
from layerbench.plots.cards import of_cards
from layerbench.plots.graph import graph
from layerbench.plots.icicle import icicle
from layerbench.plots.roofline import roofline
from layerbench.plots.timeline import memory
from layerbench.plots.training import (
    accuracy,
    accuracy_against_flops,
    latency_against_batch,
    loss,
    memory_against_batch,
    of_sweep,
    utilization,
)
from layerbench.records.tree import Metric

__all__ = [
    "ENDINGS",
    "Metric",
    "accuracy",
    "accuracy_against_flops",
    "bars",
    "encoded",
    "graph",
    "icicle",
    "latency_against_batch",
    "loss",
    "memory",
    "memory_against_batch",
    "of_cards",
    "of_sweep",
    "roofline",
    "utilization",
]
