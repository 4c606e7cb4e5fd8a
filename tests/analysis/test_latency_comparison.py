"""Predictions beside each other and beside measured times: what is called, and what is not."""

from __future__ import annotations

import sys

import pytest

import layerbench
from layerbench import cli, reporters
from layerbench.errors import ComparisonError
from layerbench.records.comparison import Comparison
from layerbench.records.latency_comparison import LatencyComparison
from layerbench.records.latency_estimate import LatencyEstimate, TimeInterval
from tests.support.every_kind import latency, stored
from tests.support.sample_profiles import layered


def taking(seconds: float, low: float, high: float, device: str = "t4") -> LatencyEstimate:
    between = TimeInterval(low=low, high=high)
    update = {"seconds": seconds, "interval": between}
    return latency(device).model_copy(update=update)


def compared(baseline: object, contender: object, **settings: object) -> LatencyComparison:
    made = layerbench.compare(baseline, contender, **settings)  # type: ignore[arg-type]
    assert isinstance(made, LatencyComparison)
    return made


@pytest.mark.parametrize(
    ("contender", "verdict"),
    [
        ((2.0, 1.8, 2.2), "SLOWER"),
        ((0.5, 0.45, 0.55), "FASTER"),
        ((1.0, 0.999, 1.001), "SAME"),
        ((1.0, 0.8, 1.3), "UNCLEAR"),
        ((1.1, 1.0, 1.2), "UNCLEAR"),
    ],
)
def test_a_change_is_called_where_both_intervals_leave_no_doubt(contender, verdict) -> None:
    record = compared(taking(1.0, 0.99, 1.01), taking(*contender, device="rtx4090"))
    assert (record.verdict, record.held) == (verdict, None)
    assert record.ratio == contender[0]


def test_errors_of_both_sides_add_up_as_independent_ones_do() -> None:
    record = compared(taking(1.0, 0.5, 2.0), taking(4.0, 2.0, 8.0))
    assert (record.ratio_low, record.ratio_high) == pytest.approx(
        (4 / 2**2**0.5, 4 * 2**2**0.5), rel=1e-5
    )


def test_a_prediction_beside_itself_is_the_same() -> None:
    one = taking(1.0, 0.3, 2.0)
    record = compared(one, one.model_copy())
    assert record.same_prediction
    assert (record.verdict, record.ratio_low, record.ratio_high) == ("SAME", 1, 1)
    text = reporters.render("txt", record)
    assert "Both are the same prediction." in text
    assert "+0.0 % [+0, +0]" in text
    for other in (taking(1.0, 0.3, 2.0, device="a100"), taking(1.001, 0.3, 2.0)):
        record = compared(one, other)
        assert (record.verdict, record.same_prediction) == ("UNCLEAR", False)


def measured(device: str) -> tuple[layerbench.Profile, LatencyEstimate]:
    """A measured forward on a device, and a prediction of the same work for a T4."""
    profile = layered()
    named = profile.environment.device.model_copy(update={"name": device})
    environment = profile.environment.model_copy(update={"device": named})
    update = {"workload": profile.workload, "optimizer": None, "phases": {}}
    predicted = taking(profile.whole.median * 1.05, 0.9 * profile.whole.median, 1.0)
    return (
        profile.model_copy(update={"environment": environment}),
        predicted.model_copy(update=update),
    )


def test_a_measured_time_says_whether_the_prediction_held() -> None:
    profile, predicted = measured("Tesla T4")
    record = compared(predicted, profile)
    assert record.held is True
    assert [one.how for one in (record.baseline, record.contender)] == ["predicted", "measured"]
    text = reporters.render("txt", record)
    assert "within the prediction's 90 % interval" in text
    assert "predicted for NVIDIA T4 → measured on Tesla T4" in text
    far = predicted.model_copy(update={"interval": TimeInterval(low=50, high=60), "seconds": 55})
    assert compared(far, profile).held is False
    profile, predicted = measured("AMD EPYC")
    record = compared(predicted, profile)
    assert record.held is None
    assert "says nothing about the prediction" in " ".join(record.notes)


def test_only_the_same_work_is_compared() -> None:
    profile, predicted = measured("Tesla T4")
    with pytest.raises(ComparisonError, match=r"of a training step and .* of a forward"):
        layerbench.compare(
            latency("t4"), predicted.model_copy(update={"workload": latency("t4").workload})
        )
    with pytest.raises(ComparisonError, match="only times of the same model and input"):
        layerbench.compare(latency("t4"), profile)
    with pytest.raises(ComparisonError, match="holds no times"):
        layerbench.compare(latency("t4"), stored("model_structures/resnet101_cityscapes.json"))  # type: ignore[arg-type]


def test_records_on_disk_are_compared_by_the_command(tmp_path, monkeypatch, capsys) -> None:
    paths = [
        str(one.save(tmp_path / f"{one.card.name}.json"))
        for one in (taking(1, 0.9, 1.1), taking(2, 1.9, 2.1, "rtx4090"))
    ]
    monkeypatch.setattr(sys, "argv", ["layerbench", "compare", *paths])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1  # the contender is SLOWER
    assert "predicted for NVIDIA T4 → predicted for NVIDIA GeForce RTX 4090: SLOWER" in (
        capsys.readouterr().out
    )
    profile = layered().save(tmp_path / "profile.json")
    assert isinstance(layerbench.compare(profile, profile), Comparison)
