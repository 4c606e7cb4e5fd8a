"""What benchmarks work out themselves, on known answers."""

from __future__ import annotations

import pytest
import torch

from benchmarks.attribution import attributed
from benchmarks.gpu import loop
from benchmarks.gpu.ramp import Ramp, Sample
from benchmarks.gpu.sweep import Peak, Peaks
from benchmarks.gpu.tiny import tiny
from benchmarks.isolation import state_of, unlike
from benchmarks.simulated import leaves, rank_correlation
from layerbench.instruments import kernels
from tests.models import Small


@pytest.mark.parametrize(("model", "side"), [(tiny, 16), (Small, 8)])
def test_every_operator_is_given_to_the_module_that_ran_it(
    model: type[torch.nn.Module], side: int
) -> None:
    one = attributed("", model().eval(), torch.rand(1, 3, side, side))
    assert one.operators > 8
    assert one.right == one.operators
    assert one.share == 1


def test_an_operator_in_the_wrong_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if kernels were given to whoever called the module."""
    within = kernels._within

    def outside(event: kernels.HostEvent, around: kernels.Place) -> kernels.Place:
        place = within(event, around)
        return kernels.Place(place.modules[:1], place.function)

    monkeypatch.setattr(kernels, "_within", outside)
    one = attributed("", tiny().eval(), torch.rand(1, 3, 16, 16))
    assert one.right < one.operators
    assert one.share < 1


@pytest.mark.parametrize(
    ("one", "other", "correlation"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 1, 2, 2], [5, 5, 7, 7], 1.0),
        # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: sqrt(4.5 / 5).
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486833),
    ],
)
def test_equal_values_share_their_rank(
    one: list[float], other: list[float], correlation: float
) -> None:
    assert rank_correlation(one, other) == pytest.approx(correlation)


def test_leaves_hold_no_others() -> None:
    assert leaves(["", "a", "a.0", "a.0.b", "a.1", "c"]) == ["a.0.b", "a.1", "c"]


def test_forwards_have_settled_once_all_later_windows_are_alike() -> None:
    times = [2.0] * 10 + [1.5] * 10 + [1.0] * 40
    ramp = Ramp(samples=[Sample(0.01 * n, ms * 1e-3) for n, ms in enumerate(times)])
    ramp.settle()
    assert ramp.settled_s == pytest.approx(0.2)
    assert ramp.headline() == "2.000 ms at first, 1.000 ms at last, settled after 0.20 s"


def test_a_sweep_that_was_stopped_compares_what_there_is() -> None:
    def point(model: str, batch: int, allocated: int) -> Peak:
        return Peak(model, batch, 1e-3, allocated, 2 * allocated, measured=True)

    points = [point("small", 1, 100), point("small", 8, 200), point("large", 1, 9000)]
    assert Peaks(points=points).headline() == ""
    points += [point("large", 8, 9500), point("small", 1, 100), point("small", 8, 300)]
    assert Peaks(points=points).headline() == (
        "after / before a larger model: batch 1 1.000 allocated, 1.000 reserved; "
        "batch 8 1.500 allocated, 1.500 reserved"
    )


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [(None, 120), ("156", 120), ("155", 119), ("600", 120), ("50", 14), ("20", 3)],
)
def test_a_loop_lasts_two_minutes_or_what_its_step_has(limit: str | None, seconds: float) -> None:
    assert loop.long_s(limit) == seconds


def test_the_digits_that_times_still_have() -> None:
    times = [1_400_500, 1_400_000, 1_400_532, 1_400_500]
    assert loop.finest_s(times) == pytest.approx(32e-9)
    rounded = [round(time / 7_812.5) * 7_812.5 for time in (1_400_000, 1_409_000, 1_419_500)]
    assert loop.finest_s([round(time) for time in rounded]) == pytest.approx(7.8e-6, rel=0.01)
    assert loop.finest_s([0, 0]) is None


def test_a_model_that_is_not_as_it_was_is_noticed() -> None:
    model, x = (
        torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout()).train(),
        torch.rand(8, 4),
    )
    before = list(state_of(model, (x,)))
    assert unlike(before, list(state_of(model, (x,)))) == []
    model(x)
    changed = ["0.running_mean", "0.running_var", "0.num_batches_tracked", "random numbers"]
    assert unlike(before, list(state_of(model, (x,)))) == changed
    model[0].more = 1
    assert "attributes of 0" in unlike(before, list(state_of(model, (x,))))
