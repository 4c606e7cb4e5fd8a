"""Plain text, made to be read in a pull request and searched with grep."""

from __future__ import annotations

from functools import singledispatch

from layerbench.records import (
    Comparison,
    MemoryEstimate,
    MemoryReport,
    Profile,
    Structure,
    Sweep,
    TrainingForecast,
    TrainingProfile,
    TrainingRun,
)
from layerbench.reporters.text import (
    comparison,
    document,
    estimate,
    memory,
    profile,
    structure,
    training,
)
from layerbench.workload import Frozen

NAME = "txt"
SUFFIX = ".txt"


@singledispatch
def render(record: Frozen) -> str:
    """The whole report of a record of any kind."""
    raise TypeError(f"no text report for a {type(record).__name__}")


render.register(Profile, profile.render)
render.register(Structure, structure.render)
render.register(MemoryReport, memory.render)
render.register(MemoryEstimate, estimate.render)
render.register(Comparison, comparison.render)
render.register(TrainingProfile, training.render)
for _kind in (TrainingRun, TrainingForecast, Sweep):
    render.register(_kind, document.render)
