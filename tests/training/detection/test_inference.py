"""What a detector's latency depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import boxes as box_ops

from layerbench.instruments.detections import DetectionCounter
from layerbench.records.detection_estimate import (
    ContentFit,
    ContentPoint,
    Found,
)
from layerbench.training.detection.content import (
    Limits,
    can_be_limited,
    fitted,
    limited,
    measured_points,
)
from tests.support.estimates import KINDS
from tests.support.sample_profiles import summary
from tests.support.small_detectors import (
    fingerprint,
    masked,
    one_stage,
    two_stage,
    with_keypoints,
)


def point(proposals: float | None, detections: float | None, seconds: float) -> ContentPoint:
    found = Found(proposals=proposals, detections=detections)
    return ContentPoint(found=found, latency=summary(1e3 * seconds, spread=0))


def planted(per_proposal: float, per_detection: float) -> list[ContentPoint]:
    places = [(50, 1), (300, 1), (1000, 1), (1000, 100), (700, 40)]
    return [point(p, d, 0.5 + per_proposal * p + per_detection * d) for p, d in places]


def test_slopes_are_recovered():
    fit = fitted(planted(2e-4, 3e-3))
    assert fit is not None
    assert fit.base_s == pytest.approx(0.5, rel=1e-6)
    assert fit.per_proposal_s == pytest.approx(2e-4, rel=1e-6)
    assert fit.per_detection_s == pytest.approx(3e-3, rel=1e-6)
    assert fit.worst == pytest.approx(0, abs=1e-7)
    # At a place that is none of the points.
    there = Found(proposals=500, detections=10)
    assert fit.latency_s(there) == pytest.approx(0.5 + 0.1 + 0.03, rel=1e-6)


def test_a_negative_slope_is_left_out_and_the_rest_fitted_again():
    found = planted(2e-4, -1e-3)
    fit = fitted(found)
    assert fit is not None
    assert fit.per_detection_s is None
    # The line by proposals alone whose relative errors are the least.
    medians = np.array([p.latency.median for p in found])
    slope, base = np.polyfit([p.found.proposals for p in found], medians, 1, w=1 / medians)
    assert fit.per_proposal_s == pytest.approx(slope, rel=1e-6)
    assert fit.base_s == pytest.approx(base, rel=1e-6)
    assert fit.worst > 0.01


def test_nothing_that_lengthens_a_forward():
    found = planted(-1e-4, -1e-3)
    fit = fitted(found)
    assert fit is not None
    assert (fit.per_proposal_s, fit.per_detection_s) == (None, None)
    medians = np.array([p.latency.median for p in found])
    assert fit.base_s == pytest.approx((1 / medians).sum() / (1 / medians**2).sum())


def test_short_latencies_are_met_as_well_as_long_ones():
    """Relative errors count: of two points that no line goes through, the shorter is met nearer."""
    found = [point(0, 0, 0.010), point(10, 0, 0.110), point(10, 0, 0.210)]
    fit = fitted(found)
    assert fit is not None
    assert fit.latency_s(Found(proposals=0)) == pytest.approx(0.010)
    assert 0.110 < fit.latency_s(Found(proposals=10)) < 0.160


def test_what_was_not_varied_has_no_slope():
    fit = fitted([point(None, 1, 0.2), point(None, 11, 0.3)])
    assert fit is not None
    assert fit.per_proposal_s is None
    assert fit.per_detection_s == pytest.approx(0.01)
    assert fit.latency_s(Found(detections=21)) == pytest.approx(0.4)
    assert fitted([point(10, 1, 0.2)]) is None
    assert fitted([]) is None


def test_of_slopes_left_out_the_rest_counts():
    fit = ContentFit(base_s=0.1, per_proposal_s=None, per_detection_s=0.01, worst=0)
    assert fit.latency_s(Found(proposals=1000, detections=None)) == 0.1


@pytest.mark.parametrize("make", [two_stage, one_stage, masked, with_keypoints])
def test_limits_are_put_back(make):
    model = make().eval()
    image = torch.rand(3, 64, 80)
    with torch.inference_mode():
        model([image])  # torchvision remembers the scales of its first image
        before = fingerprint(model)
        with limited(model, Limits(7, 3), image):
            inside = fingerprint(model)
            if make is one_stage:
                assert model.detections_per_img == 3
            else:
                assert model.rpn.post_nms_top_n() == model.rpn.pre_nms_top_n() == 7
                assert model.rpn._post_nms_top_n["training"] == 2000
                assert model.roi_heads.detections_per_img == 3
        assert inside != before
        assert fingerprint(model) == before
        with pytest.raises(KeyboardInterrupt), limited(model, Limits(7, 3), image):
            raise KeyboardInterrupt
        assert fingerprint(model) == before
        # Also when the forward that the threshold is found with raises.
        with pytest.raises(RuntimeError), limited(model, Limits(7, 3), torch.rand(5, 64, 80)):
            raise AssertionError("not reached")
        assert fingerprint(model) == before


@pytest.mark.parametrize("make", [two_stage, one_stage])
def test_what_may_be_found_is_counted(make):
    model = make().eval()
    image = torch.rand(3, 64, 80)
    count = DetectionCounter(model)
    found = {}
    with torch.inference_mode():
        for proposals, detections in ((4, 1), (40, 1), (40, 6)):
            with limited(model, Limits(proposals, detections), image):
                found[proposals, detections] = count.of(lambda: model([image, image]), 2)
    assert found[4, 1].proposals < found[40, 1].proposals == found[40, 6].proposals
    assert (found[4, 1].detections, found[40, 1].detections) == (1, 1)
    assert 1 < found[40, 6].detections <= 6
    if make is one_stage:
        # About as many candidates as were asked for, whatever the scores.
        for limits, one in found.items():
            assert 0.7 * limits[0] <= one.proposals <= 1.5 * limits[0]
    else:
        assert found[4, 1].proposals <= 4


@pytest.mark.parametrize("make", [two_stage, one_stage])
def test_a_detector_that_is_sure_of_everything_or_nothing_finds_as_much(make):
    """The scores' level does not matter: a trained detector is compared at the same amounts."""
    image = torch.rand(3, 64, 80)
    found = []
    for shift in (-8.0, 0.0, 8.0):
        model = make().eval()
        head = model.roi_heads.box_predictor.cls_score if make is two_stage else None
        head = model.head.classification_head.cls_logits if head is None else head
        with torch.no_grad():
            head.bias[1:] += shift
        with torch.inference_mode(), limited(model, Limits(40, 6), image):
            found.append(DetectionCounter(model).of(lambda model=model: model([image]), 1))
    assert all(1 < one.detections <= 6 for one in found)
    assert all(5 < one.proposals <= 60 for one in found)


def test_models_without_such_limits_are_told():
    assert all(can_be_limited(make()) for make in KINDS)
    assert not can_be_limited(torch.nn.Linear(3, 2))


@pytest.mark.parametrize("make", [two_stage, one_stage])
def test_counting_leaves_nothing_behind_when_the_forward_raises(make):
    model = make().eval()
    before, usual = fingerprint(model), box_ops.batched_nms

    def fails():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        DetectionCounter(model).of(fails, 1)
    assert box_ops.batched_nms is usual
    assert fingerprint(model) == before


def test_points_under_all_limits():
    model = two_stage().eval()
    calls = []

    def latency(forward):
        calls.append(len(forward()[0]["boxes"]))
        return summary(float(len(calls)))

    with torch.inference_mode():
        points = measured_points(model, torch.rand(3, 64, 96), latency)
    assert [p.latency for p in points] == [summary(float(number)) for number in (1, 2, 3, 4)]
    assert calls == [p.found.detections for p in points]
    assert calls[:3] == [1, 1, 1]
    assert calls[3] > 1
    proposals = [p.found.proposals for p in points]
    assert proposals[0] < proposals[1] <= proposals[2] == proposals[3]
    assert proposals[0] <= 50
