"""Events of a profiler's trace in columns: what a reader of files hands to who makes rows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
NONE = -1
"""In a column: the event does not have it."""

OPERATOR, FRAME, RANGE, LAUNCH, KERNEL = range(5)
"""Kinds of events: operators of the host, calls of Python, the user's ranges, calls of an
accelerator's runtime, and what ran on the accelerator."""


@dataclass(frozen=True)
class TraceEvents:
    """What has a beginning and a length, in the order of the file.

    Attributes:
        labels: kind and name, each pair once.
        threads: as many as there are on the host; of kernels, the queues.
        label, thread: by event, numbers of the two.
        start_ns, duration_ns: by event.
        external: the number that an operator and what it launches have in common.
        correlation: that of a launch and its kernel.
        sequence: that of a forward's operator and its node in the backward.
        forward_thread: of a node in the backward, the thread of its forward, by autograd's count;
            0 or `NONE` elsewhere.
        total: events in the file, with those that are in no column.
        frames: calls of Python that are no modules, and in no column.
        broken: events without a time, or with one that cannot be.
        categories: how many events of each there are.
        header: what the file says besides events.
    """

    labels: Sequence[tuple[int, str]]
    threads: int
    label: Integers
    thread: Integers
    start_ns: Integers
    duration_ns: Integers
    external: Integers
    correlation: Integers
    sequence: Integers
    forward_thread: Integers
    total: int
    frames: int
    broken: int
    categories: Mapping[str, int]
    header: Mapping[str, Any]
