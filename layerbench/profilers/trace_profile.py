"""Profiles of traces that torch.profiler has made. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from layerbench.analysis.trace_profile import profiled
from layerbench.environment.collection import no_collection
from layerbench.records.trace_profile import TraceProfile
from layerbench.store import kineto
from layerbench.store.writing import AnyPath


def profile_trace(path: AnyPath) -> TraceProfile:
    """What a trace says by module.

    Args:
        path: of the JSON that ``prof.export_chrome_trace`` or ``tensorboard_trace_handler`` wrote,
            compressed by gzip or not.

    Raises:
        RecordError: there is none, it is damaged, or of another program.
    """
    # A million events are millions of values, of which none holds itself.
    with no_collection():
        return profiled(kineto.read(path), Path(path).name)
