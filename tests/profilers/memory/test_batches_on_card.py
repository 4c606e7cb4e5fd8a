"""Runs at any batch from one trace, and the largest batch that fits a card."""

from __future__ import annotations

import pytest

from layerbench.environment import cards
from layerbench.profilers.latency.operators import trace_operators
from layerbench.profilers.memory.batch_line import PRIME_BATCH, line_from, line_through
from layerbench.profilers.memory.batches_on_card import Known, largest_on, search
from layerbench.profilers.memory.figures import figures
from layerbench.profilers.memory.replay import Moment, reserved_within
from layerbench.profilers.memory.run_for_gpu import RunForGpu, run_for_gpu
from layerbench.profilers.memory.runs_by_batch import RunsByBatch, with_batch
from layerbench.profilers.progress import Silent
from layerbench.records.workload import Workload
from layerbench.zoo import resolve

MIB = 2**20


def _at_prime(workload: Workload) -> RunForGpu:
    run = trace_operators(workload, optimizer="adamw", steps=2).run
    assert run is not None
    return run


def _sizes(run: RunForGpu) -> list[tuple[object, ...]]:
    """All but when it ends: what autocast keeps ends in no order of its own."""
    return [
        (one.bytes, one.low, one.high, one.owner, one.operator, one.born, one.kernel)
        for one in run.traced.trace.allocations
    ]


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A training step of a convolutional network in mixed precision."""
    return resolve("timm:test_resnet", "4x3x64x64", mode="train", precision="amp")


@pytest.fixture(scope="module")
def at_prime(workload: Workload) -> RunForGpu:
    """It was traced with a prime batch, beside its operators."""
    return _at_prime(workload)


@pytest.fixture(scope="module")
def traced(workload: Workload) -> RunForGpu:
    """It was traced with its own batch."""
    return run_for_gpu(workload, optimizer="adamw")


@pytest.mark.slow
def test_a_run_read_off_the_one_at_a_prime_is_the_traced_one(
    at_prime: RunForGpu, traced: RunForGpu
) -> None:
    line = line_from(at_prime)
    assert line is not None
    assert _sizes(line.at(4)) == _sizes(traced)
    sizes = line.bytes_at(4).tolist()
    for index, one in enumerate(traced.traced.trace.allocations):
        assert sizes[index] == (0 if one.kernel is not None else one.bytes)
    workspaces = line.workspaces_at(4)
    assert workspaces
    for index, workspace in workspaces.items():
        assert workspace.kernel == traced.traced.trace.allocations[index].kernel


def test_two_runs_that_are_far_apart_make_a_line(
    at_prime: RunForGpu, traced: RunForGpu, workload: Workload
) -> None:
    line = line_through(traced, 4, at_prime, PRIME_BATCH)
    assert line is not None
    other = run_for_gpu(with_batch(workload, 9), optimizer="adamw")
    assert _sizes(line.at(9)) == _sizes(other)


def test_runs_that_do_not_do_the_same_make_none(at_prime: RunForGpu, workload: Workload) -> None:
    inference = run_for_gpu(resolve("timm:test_resnet", "4x3x64x64", precision="amp"))
    assert line_through(inference, 4, at_prime, PRIME_BATCH) is None
    runs = RunsByBatch(workload, "adamw", first=inference, at_prime=at_prime)
    assert runs.line is None


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 99, 100, 199, 200, 201, 399, 403, 5000, 123_456])
@pytest.mark.parametrize("beyond", [1.0, 1.02, 1.3, 4.0])
def test_the_largest_that_fits_is_found_wherever_one_looks_first(limit: int, beyond: float) -> None:
    looks: list[int] = []

    def fits(batch: int) -> bool:
        looks.append(batch)
        return batch <= limit

    largest = search(fits, int(limit * beyond), int(limit * beyond * 0.95))
    assert largest <= limit
    assert limit - largest <= limit // 100
    assert largest == limit or limit >= 200
    assert largest == search(lambda batch: batch <= limit, 10 * limit, 3)
    assert len(looks) == len(set(looks))
    assert len(looks) <= 18


def test_the_largest_batch_fits_and_a_larger_one_does_not(
    at_prime: RunForGpu, workload: Workload
) -> None:
    card, memory = cards.get("t4"), 3 * 2**30
    line = line_from(at_prime)
    assert line is not None
    found = largest_on(line, card, memory, progress=Silent())
    assert found.batch > 200

    def needed(batch: int) -> int:
        run = run_for_gpu(with_batch(workload, batch), optimizer="adamw")
        return figures(run, card, memory, bounds=False).needed(memory)

    assert needed(found.batch) <= memory
    assert found.bytes == pytest.approx(needed(found.batch), rel=0.02)
    assert needed(int(found.batch * 1.05)) > memory


def test_what_is_known_of_a_batch_stands(at_prime: RunForGpu) -> None:
    line = line_from(at_prime)
    assert line is not None
    card, memory = cards.get("t4"), 3 * 2**30
    alone = largest_on(line, card, memory, progress=Silent()).batch
    more, less = Known(2 * alone, memory), Known(alone // 2, memory + 1)
    assert largest_on(line, card, memory, more, progress=Silent()).batch == 2 * alone
    assert largest_on(line, card, memory, less, progress=Silent()).batch < alone // 2


def test_where_not_even_the_weights_fit_no_batch_does(at_prime: RunForGpu) -> None:
    line = line_from(at_prime)
    assert line is not None
    assert largest_on(line, cards.get("t4"), 100 * MIB, progress=Silent()).batch == 0


def test_a_run_ends_where_there_is_no_room() -> None:
    order = [Moment(0, True), Moment(1, True, at_once=True), Moment(0, False)]
    sizes = [60 * MIB, 50 * MIB]
    assert reserved_within(200 * MIB, order, sizes, {}, lambda _: ()) == 110 * MIB
    assert reserved_within(100 * MIB, order, sizes, {}, lambda _: ()) is None
    kernels = {1: "convolution"}
    assert reserved_within(100 * MIB, order, sizes, kernels, lambda _: (20 * MIB,)) == 80 * MIB
