"""Launch-bound or not, by hand: the tiny model with device rounds, whose figures are known."""

from __future__ import annotations

import pytest

from layerbench.analysis.agreement import Agreement, agreements, span_ratio
from layerbench.analysis.hotspots import hotspots
from layerbench.analysis.kernels import own_kernels, short_name
from layerbench.analysis.launching import (
    Launching,
    busy_s,
    is_launch_bound,
    launching_s,
    needed_s,
    waiting_part,
)
from layerbench.records.timing import Profile
from tests.support.sample_devices import ADD, MEAN, by_events, compute_bound, launch_bound
from tests.support.sample_profiles import layered, on_gpu, summary


def without_blocked(record: Profile) -> Profile:
    assert record.device_rounds is not None
    rounds = record.device_rounds.model_copy(update={"blocked": None})
    return record.model_copy(update={"device_rounds": rounds})


def test_launching_costs_what_the_whole_takes_beyond_the_blocked_one() -> None:
    record = launch_bound()
    assert needed_s(record) == pytest.approx(0.999 * 1.1e-3)
    assert launching_s(record) == pytest.approx(0.999 * 1.65e-3)
    assert waiting_part(record) == pytest.approx(0.6)
    assert is_launch_bound(record)
    assert not is_launch_bound(compute_bound())


def test_a_queue_that_cannot_be_blocked_leaves_the_time_in_which_kernels_run() -> None:
    record = without_blocked(launch_bound())
    assert needed_s(record) == pytest.approx(0.999e-3)
    assert waiting_part(record) == pytest.approx(1 - 1 / 2.75)
    # A profiler that slows the host lengthens the idle time; the whole is another forward.
    assert not is_launch_bound(record.model_copy(update={"whole": summary(1.05)}))


def test_nothing_is_launched_in_less_than_no_time() -> None:
    record = launch_bound().model_copy(update={"whole": summary(1.0)})
    assert launching_s(record) == 0


def test_records_of_before_device_rounds_keep_their_rule() -> None:
    assert is_launch_bound(on_gpu())
    assert not is_launch_bound(layered())
    assert not is_launch_bound(on_gpu().model_copy(update={"whole_host": summary(5.0)}))
    for record in (on_gpu(), layered()):
        assert (needed_s(record), launching_s(record), waiting_part(record)) == (None, None, None)
        assert not any(map(Launching.of(record).bounds, record.layers))


def test_a_row_is_launch_bound_whose_device_time_is_well_below_its_host_time() -> None:
    record = launch_bound()
    launching = Launching.of(record)
    bound = {row.path for row in record.layers if launching.bounds(row)}
    assert bound == {
        *("", "features", "features.0", "features.1", "features.2", "classifier"),
        # Functions without a host time are as their modules are.
        *("mean()", "features.1.add()"),
    }
    assert launching.count(record.layers) == (6, 8)
    # What launches no kernel waits for nothing.
    nothing = record.layers[2].model_copy(update={"inclusive": summary(0), "self_": summary(0)})
    assert not launching.bounds(nothing)


def test_where_the_device_does_not_wait_no_row_is_launch_bound() -> None:
    record = compute_bound().model_copy(update={"whole": summary(2.71)})
    assert not any(map(Launching.of(record).bounds, record.layers))


def test_a_hotspot_says_what_bounds_it_first() -> None:
    spots = {spot.row.path: spot for spot in hotspots(launch_bound())}
    bounds = {path: spot.bound for path, spot in spots.items()}
    assert bounds["classifier"] == bounds["features.0"] == "launch"
    # The ridge is at 40 FLOPs a byte; these two have 45 and 35.
    assert (bounds["features.1.conv"], bounds["features.2.conv"]) == ("compute", "memory")
    assert spots["features.0"].of_roof is None
    assert spots["features.0"].host == summary(0.3)
    assert spots["features.1.conv"].kernels == 2
    # The function's kernel is not its module's, too.
    assert (spots["features.1.add()"].kernels, spots["features.1"].kernels) == (1, 1)
    assert not any(spot.on_device or spot.kernels for spot in hotspots(on_gpu()))


def test_kernels_of_rows_add_up() -> None:
    record = launch_bound()
    numbers = own_kernels(record)
    assert numbers is not None
    assert sum(numbers.values()) == record.layers[0].kernels == 11
    assert busy_s(record) == pytest.approx(1e-3)
    assert sum(kernel.time.mean for kernel in record.kernels) == pytest.approx(1e-3)
    assert own_kernels(layered()) is None


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (ADD, "vectorized_elementwise_kernel<4, CUDAFunctor_ad…"),
        (MEAN, "reduce_kernel<512, 1, ReduceOp<float, MeanOps<f…"),
        ("void add<float>(float*, int)", "add<float>"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD (Pageable -> Device)"),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"),
        ("void (anonymous namespace)::softmax<3>(int)", "softmax<3>"),
        ("void k<f(int)>(long)", "k<f(int)>"),
        # As the record of a Markdown report has it.
        (r"void at::k\x3cf(int)>(long)", r"k\x3cf(int)>"),
        ("", ""),
    ],
)
def test_short_names_of_kernels(name: str, short: str) -> None:
    assert short_name(name) == short
    assert len(short_name(name * 1000)) <= 48


# --- do the rounds agree -------------------------------------------------------------------


def by_what(record: Profile) -> dict[str, Agreement]:
    return {one.what: one for one in agreements(record)}


def test_rows_and_idle_time_are_the_span() -> None:
    assert span_ratio(launch_bound()) == pytest.approx(1, abs=1e-9)
    assert span_ratio(by_events()) is span_ratio(layered()) is None
    broken = launch_bound(device=1.5)
    rounds = broken.device_rounds
    assert rounds is not None
    less = rounds.model_copy(update={"idle": summary(2.0)})
    assert span_ratio(broken.model_copy(update={"device_rounds": less})) == pytest.approx(3.5 / 3)


def test_what_lies_apart_and_which_rows_that_concerns() -> None:
    found = by_what(launch_bound())
    assert found["rows"].apart == pytest.approx(0.999 / 1.0989 - 1)
    # 0.1 ms over 11 kernels is 9 us for each: more than 2 % of 0.39 ms and of all that is shorter.
    assert found["rows"].paths == ("features.0", "features.1.conv", "features.2.conv", "classifier")
    assert found["host"].apart == pytest.approx(0.03)
    # 0.082 ms over 9 calls is 9 us for each.
    assert found["host"].paths == (
        *("features.0", "features.1.conv", "features.2.conv", "classifier"),
    )
    assert found["span"].apart == pytest.approx(3 / 2.75 - 1)
    assert found["span"].paths == ()
    assert all(one.is_worth_a_word for one in found.values())


def test_what_agrees_needs_no_word() -> None:
    record = launch_bound()
    costs, rounds = record.reconciliation, record.device_rounds
    assert costs is not None
    assert rounds is not None
    near = record.model_copy(
        update={
            "reconciliation": costs.model_copy(update={"overhead": 1.015, "layers_sum_s": 1.09e-3}),
            "device_rounds": rounds.model_copy(update={"span": summary(2.77)}),
        }
    )
    assert not any(one.is_worth_a_word or one.paths for one in agreements(near))
    assert agreements(on_gpu()) == agreements(layered()) == []


def test_long_rows_are_not_concerned() -> None:
    record = launch_bound()
    costs = record.reconciliation
    assert costs is not None
    # 3 % less than 1.1 ms is 3 us for each kernel: of 0.39 ms less than a hundredth.
    less = costs.model_copy(update={"layers_sum_s": 0.97 * 1.0989e-3})
    found = by_what(record.model_copy(update={"reconciliation": less}))
    assert found["rows"].paths == ("features.1.conv", "classifier")
