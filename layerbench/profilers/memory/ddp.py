"""What PyTorch's DistributedDataParallel holds on each GPU besides the training itself.

It copies gradients into buckets, exchanges these, and copies them back, so that both are there
(``gradient_as_bucket_view=False``, the default). Source: ``torch/nn/parallel/distributed.py`` and
``torch/csrc/distributed/c10d/reducer.cpp``. Before the first step parameters and buffers are sent
in copies of up to 250 MiB each. One bucket has all gradients at first. At the second step buckets
are made anew in the order in which gradients come: the first is full once it has 1 MiB, the others
once they have 25 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from layerbench import units
from layerbench.instruments.memory_attribution import ITERATION
from layerbench.instruments.storage_tracker import LOADED, Allocation, Trace
from layerbench.profilers.memory.traced import Held, Traced
from layerbench.records.memory import Category

MIB = 2**20
FIRST_BUCKET, BUCKET, SENT = MIB, 25 * MIB, 250 * MIB
# That many copies are sent at the same time.
_IN_FLIGHT = 2
_OPERATOR = "DistributedDataParallel"


def in_buckets(traced: Traced) -> Traced:
    """A training as it would be in each process of a data-parallel one, with a note on that.

    Args:
        traced: two steps or more.
    """
    trained, held = traced.trained, (*traced.trained, *traced.not_trained)
    trace = _copied(traced.trace)
    sent = [_new(size, "parameters") for size in packed(held, (SENT,))]
    everything = _new(sum(one.bytes for one in trained), "gradients")
    buckets = [_new(size, "gradients") for size in packed(trained[::-1], (FIRST_BUCKET, BUCKET))]
    _insert(trace, trace.marks[LOADED], [*_sent(sent), (everything, True)])
    again = [(everything, False), *((bucket, True) for bucket in buckets)]
    _insert(trace, trace.marks[ITERATION], again)
    trace.allocations.sort(key=lambda one: one.born)
    note = (
        "DistributedDataParallel holds all gradients a second time, "
        f"{units.bytes_(everything.bytes)}, unless it is made with gradient_as_bucket_view=True; "
        "what NCCL takes outside PyTorch's allocator is not counted"
    )
    return replace(traced, trace=trace, notes=(*traced.notes, note))


def packed(tensors: Iterable[Held], limits: Sequence[int]) -> list[int]:
    """Bytes of buckets, in the order in which they are full, and then those that are not.

    Args:
        tensors: that are put into the bucket of their format, one after the other.
        limits: bytes from which on a bucket is full, the first one's first; the last limit stays.
    """
    full: list[int] = []
    filling: dict[str, int] = {}
    for tensor in tensors:
        size = filling.get(tensor.format, 0) + tensor.bytes
        filling[tensor.format] = size
        if size >= limits[min(len(full), len(limits) - 1)]:
            full.append(filling.pop(tensor.format))
    return [size for size in (*full, *filling.values()) if size]


_Event = tuple[Allocation, bool]


def _sent(copies: Sequence[Allocation]) -> Iterator[_Event]:
    """Births and deaths of copies of which a few are there at a time."""
    for number, copy in enumerate(copies):
        if number >= _IN_FLIGHT:
            yield copies[number - _IN_FLIGHT], False
        yield copy, True
    for copy in copies[-_IN_FLIGHT:]:
        yield copy, False


def _new(size: int, category: Category) -> Allocation:
    return Allocation(size, None, "load", _OPERATOR, category, born=0)


def _copied(trace: Trace) -> Trace:
    allocations = [replace(one) for one in trace.allocations]
    return replace(trace, allocations=allocations, marks=dict(trace.marks))


def _insert(trace: Trace, at: int, events: Sequence[_Event]) -> None:
    """Let events follow a moment; all that is later moves on."""

    def later(moment: int) -> int:
        return moment + len(events) if moment > at else moment

    for one in trace.allocations:
        one.born, one.died = later(one.born), None if one.died is None else later(one.died)
    trace.steps = [replace(one, begin=later(one.begin), end=later(one.end)) for one in trace.steps]
    trace.marks.update({name: later(moment) for name, moment in trace.marks.items()})
    for moment, (one, birth) in enumerate(events, at + 1):
        if birth:
            one.born = moment
            trace.allocations.append(one)
        else:
            one.died = moment
