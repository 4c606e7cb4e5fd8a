"""From forwards whose modules were timed by events to samples and facts of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerbench.instruments.attach import NAMED_AT_MOST
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.kernels import KernelForward
from layerbench.instruments.step_events import StepEventTimer
from layerbench.instruments.step_kernels import KernelStep, stacked
from layerbench.records import samples
from layerbench.records.samples import Samples
from layerbench.units import NANOSECOND

SHORT_PIECES = "longer than the clock's resolution, but made up of pieces of work that are not"
NO_FUNCTIONS = "nobody sees which kernels an operator launches on this device"

_UNKNOWN = (samples.IDLE, samples.KERNELS)


def event_facts(timer: EventTimer) -> dict[str, Any]:
    """Where device times come from, and what they can tell; fields of `samples.RunFacts`."""
    shortest = timer.resolution_ns * NANOSECOND
    return {"device_times": "events", "resolution_s": shortest or None}


def without_kernels(arrays: Mapping[str, Samples]) -> dict[str, Samples]:
    """The samples without those that nobody knows who sees no kernels."""
    return {name: array for name, array in arrays.items() if name not in _UNKNOWN}


def note_on_short_pieces(
    timer: EventTimer, traced: Sequence[KernelForward], paths: Sequence[str]
) -> tuple[str, ...]:
    """The rows that only look long enough for the clock; a report marks shorter ones itself.

    Args:
        timer: of the forwards.
        traced: the forwards.
        paths: of the modules, by their indices.
    """
    if not traced:
        return ()
    times = np.stack([forward.inclusive_ns for forward in traced])
    below = timer.below_resolution(traced)
    named = _made_up_of_short(times, below, timer.resolution_ns, paths)
    return (f"{SHORT_PIECES}: {named}",) if named else ()


def notes_on_short_pieces_of_steps(
    timer: StepEventTimer, steps: Sequence[KernelStep], paths: Sequence[str]
) -> tuple[str, ...]:
    """The same of training steps, forward and backward.

    Args:
        timer: of the steps.
        steps: at least one.
        paths: of the modules, by their rows.
    """
    named = {
        phase: _made_up_of_short(
            stacked(steps, f"{phase}_inclusive_ns"), below, timer.resolution_ns, paths
        )
        for phase, below in zip(("forward", "backward"), timer.below_resolution(steps), strict=True)
    }
    return tuple(f"{phase} {SHORT_PIECES}: {rows}" for phase, rows in named.items() if rows)


def _made_up_of_short(
    times: NDArray[np.int64], below: Sequence[int], resolution_ns: int, paths: Sequence[str]
) -> str:
    """Those of the rows below the clock's resolution that are as long as it, by name."""
    medians = np.median(times, axis=0)
    named = [paths[row] or "the model itself" for row in below if medians[row] >= resolution_ns]
    more = len(named) - NAMED_AT_MOST
    others = f" and {more} more" if more > 0 else ""
    return f"{', '.join(named[:NAMED_AT_MOST])}{others}"
