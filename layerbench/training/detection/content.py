"""How a detector's latency depends on what it finds.

An untrained detector finds next to nothing or as much as it may, and a trained one as much as there
is: a single latency says little. So limits and score threshold are set for several amounts of
proposals and detections, and a line is put through what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench.instruments.detections import DetectionCounter, counting_candidates
from layerbench.records.detection_estimate import ContentFit, ContentPoint
from layerbench.records.timing import Summary


@dataclass(frozen=True)
class Limits:
    """The largest numbers of proposals and detections of an image.

    Attributes:
        proposals: that the heads look at; of a one-stage detector, candidates that go into
            non-maximum suppression.
        detections: in the output.
    """

    proposals: int
    detections: int


# The last two differ in detections alone.
LIMITS = (Limits(50, 1), Limits(300, 1), Limits(1000, 1), Limits(1000, 100))
# Below the least score that a float32 softmax of a hundred classes gives, every box passes.
LEAST_SCORE = 1e-12
# So many times what is wanted is near enough.
NEAR = 1.5
# Each halves the span in which the threshold lies, on a logarithmic scale.
HALVINGS = 24


def can_be_limited(model: nn.Module) -> bool:
    """Whether it is a detector whose limits are known, as torchvision's are."""
    final = getattr(model, "roi_heads", model)
    return hasattr(final, "score_thresh") and hasattr(final, "postprocess_detections")


@contextmanager
def limited(model: nn.Module, limits: Limits, image: torch.Tensor) -> Iterator[None]:
    """Let a detector find about as much as the limits say, whatever it has learned, for a while.

    Args:
        model: on its device, in eval mode.
        limits: what to find.
        image: float32 ``[3, H, W]`` there, which the score threshold is found with.
    """
    before: list[tuple[object, str, Any]] = []

    def put(owner: object, name: str, value: object) -> None:
        if hasattr(owner, name):
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)

    rpn = getattr(model, "rpn", None)
    final = getattr(model, "roi_heads", model)
    try:
        if rpn is not None:
            for stage in ("_pre_nms_top_n", "_post_nms_top_n"):
                usual = getattr(rpn, stage, {})
                put(rpn, stage, {**usual, "testing": limits.proposals})
        put(final, "detections_per_img", limits.detections)
        put(final, "score_thresh", 1.0)
        wanted = limits.detections if rpn is not None else limits.proposals
        put(final, "topk_candidates", getattr(final, "topk_candidates", 0))
        _let_pass(model, final, image, wanted)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def _let_pass(model: nn.Module, final: Any, image: torch.Tensor, wanted: int) -> None:  # noqa: ANN401
    """Set the threshold so that about so many boxes go into the last non-maximum suppression.

    The post-processing alone is run again and again, on what one forward gave it. An untrained
    detector may give all boxes one score: then the candidates that are looked at are limited.
    """
    again = _captured(model, final, image)

    def passing() -> int:
        with counting_candidates() as counts:
            again()
        return sum(counts)

    low, high = LEAST_SCORE, 1.0
    for _ in range(HALVINGS):
        final.score_thresh = middle = (low * high) ** 0.5
        low, high = (middle, high) if passing() >= wanted else (low, middle)
    final.score_thresh = low
    while getattr(final, "topk_candidates", 1) > 1 and passing() > NEAR * wanted:
        final.topk_candidates //= 2


def _captured(model: nn.Module, final: Any, image: torch.Tensor) -> Callable[[], Any]:  # noqa: ANN401
    """The call of the post-processing in a forward, to be made again."""
    usual = final.postprocess_detections
    calls: list[tuple[Any, ...]] = []

    def noting(*args: Any) -> Any:  # noqa: ANN401 - stands for the method
        calls.append(args)
        return usual(*args)

    final.__dict__["postprocess_detections"] = noting
    try:
        model([image])
    finally:
        del final.__dict__["postprocess_detections"]
    return lambda: usual(*calls[0])


def measured_points(
    model: nn.Module,
    image: torch.Tensor,
    latency: Callable[[Callable[[], Any]], Summary],
) -> list[ContentPoint]:
    """Latencies of one image's forward under several limits.

    Args:
        model: on its device, in eval mode; it comes back with its own limits.
        image: float32 ``[3, H, W]``, there too.
        latency: measures a call.
    """
    counter = DetectionCounter(model)
    forward = lambda: model([image])  # noqa: E731
    points = []
    for limits in LIMITS:
        with limited(model, limits, image):
            amounts = counter.of(forward, 1)
            points.append(ContentPoint(found=amounts, latency=latency(forward)))
    return points


def fitted(points: Sequence[ContentPoint]) -> ContentFit | None:
    """Latency as a linear function of proposals and detections, by least squares over medians.

    Relative errors count, so that short latencies are met as well as long ones. What the points do
    not differ in, or what does not lengthen a forward measurably, has no slope that means anything:
    a negative one is left out and the rest is fitted again. ``None`` for fewer than two points.
    """
    if len(points) < 2:
        return None
    medians = np.array([point.latency.median for point in points])
    columns = {
        name: np.array([float(getattr(point.found, name) or 0) for point in points])
        for name in ("proposals", "detections")
    }
    used = [name for name, values in columns.items() if np.ptp(values) > 0]
    while True:
        matrix = np.column_stack([np.ones(len(points)), *(columns[name] for name in used)])
        solved = np.linalg.lstsq(matrix / medians[:, None], np.ones(len(points)), rcond=None)[0]
        slopes = dict(zip(used, solved[1:], strict=True))
        falling = min(slopes, key=lambda name: slopes[name], default=None)
        if falling is None or slopes[falling] >= 0:
            break
        used.remove(falling)
    return ContentFit(
        base_s=float(solved[0]),
        per_proposal_s=_slope(slopes, "proposals"),
        per_detection_s=_slope(slopes, "detections"),
        worst=float(np.max(np.abs(matrix @ solved / medians - 1))),
    )


def _slope(slopes: dict[str, float], name: str) -> float | None:
    return float(slopes[name]) if name in slopes else None
