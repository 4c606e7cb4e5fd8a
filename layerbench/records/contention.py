"""How far a measurement had to share its cores, and from where on its times mean nothing. No torch.

A thread that waits for a core adds the wait to whatever is timed. The median of the forwards does
not move as long as few of them waited; once most did, it is a time of the machine's other work.
Two threads that meet after every operation fare worst: each waits for the other's core, too.

Where an accelerator's kernels are seen on its own clock, their times hold none of this: the host's
waits move the gaps between kernels.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.workload import Frozen
from layerbench.units import percent

# From here on waits widen the spread: said, and nothing else.
SOME = 0.1
# From here on the median is that of a forward that waited.
MOST = 0.5
# Threads and other processes together may want this much more than there is before a record that
# holds no waits is taken for one of a machine that was too busy.
CROWDED = 1.15


Holding = Literal["every", "launching", "host"]
"""Which times hold the host's waits: every one, as on a CPU; those that hold launching, not those
of kernels; or those on the host's clock alone, as the device always had work in its queue."""

_VOID: dict[Holding, str] = {
    "every": "The machine was too busy to be measured on.",
    "launching": (
        "The host was too busy to be measured on: the whole and host times hold its waits; device "
        "times of kernels do not."
    ),
    "host": (
        "The host was too busy to be measured on: host times hold its waits; device times do not."
    ),
}


class Waits(Frozen):
    """How much the process's threads waited for a core, with nothing attached to the model.

    Attributes:
        rounds: share of the rounds in which they waited.
        time: of the time of all rounds, the share that was waited, all threads added up but at
            most the whole of a round.
    """

    rounds: float = Field(ge=0, le=1)
    time: float = Field(ge=0, le=1)


def too_busy(waits: Waits | None, threads: int | None, holding: Holding = "every") -> str:
    """Why times mean nothing, which, and what to do, in a few sentences; empty where they do."""
    if waits is None or waits.rounds <= MOST:
        return ""
    return refusal(waits, threads, holding)


def refusal(waits: Waits, threads: int | None, holding: Holding = "every") -> str:
    """The message that the machine was too busy, with its evidence and advice."""
    return f"{_VOID[holding]} {_told(waits)} {_advice(threads)}"


def crowded(other_work: float | None, threads: int | None, cores: int) -> str:
    """The same for a record without waits, by the cores that other processes used.

    Args:
        other_work: of all cores' time, the share that other processes used.
        threads: of the measured process.
        cores: of the machine.
    """
    if other_work is None or threads is None:
        return ""
    if other_work + min(threads, cores) / cores <= CROWDED:
        return ""
    return (
        f"{_VOID['every']} Other processes used "
        f"{percent(other_work)} of the cores' time. {_advice(threads)}"
    )


def shared(others: int | None) -> str:
    """Why times on an accelerator tell nothing: other processes used it; empty if none did."""
    if not others:
        return ""
    used = f"{others} other process{'es' if others > 1 else ''} used it"
    return (
        f"The accelerator was disturbed: {used}. Device times hold that; host times do not. "
        "Stop what else runs on it and measure again."
    )


def warning(waits: Waits | None, threads: int | None, holding: Holding = "every") -> str:
    """What a report says of its waits; empty where there were few."""
    if waits is None or waits.rounds <= SOME:
        return ""
    return too_busy(waits, threads, holding) or f"{_told(waits)} {_advice(threads)}"


def missed(waits: Waits | None) -> str:
    """The criterion that a verdict on times missed because of waits; empty if none."""
    if waits is None or waits.rounds <= MOST:
        return ""
    return f"rounds that waited for a core {percent(waits.rounds, beyond=MOST)} > {percent(MOST)}"


def _told(waits: Waits) -> str:
    return (
        f"In {percent(waits.rounds)} of the rounds the process waited for a core, "
        f"{percent(waits.time)} of their time."
    )


def _advice(threads: int | None) -> str:
    fewer = ", or use --threads 1," if threads is not None and threads > 1 else ""
    return f"Close other programs{fewer} and measure again."
