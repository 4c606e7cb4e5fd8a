"""How a detector's latency depends on what it finds.

An untrained detector finds next to nothing or as much as it may, and a trained one as much as there
is: a single latency says little. So the limits on proposals and detections are moved, and a line is
put through what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import boxes as box_ops

from layerbench.records import ContentFit, ContentPoint, Found, Summary

# Limits for proposals (of a one-stage detector: candidates a level) and for detections. The last
# two differ in detections alone.
LIMITS = ((50, 1), (300, 1), (1000, 1), (1000, 100))
# No box is left out for its score.
EVERY_SCORE = -1.0


@dataclass(frozen=True)
class Limits:
    """How much a detector may find.

    Attributes:
        proposals: that are looked at, for an image.
        detections: in the output, for an image.
    """

    proposals: int
    detections: int


@contextmanager
def limited(model: nn.Module, limits: Limits) -> Iterator[None]:
    """Let a detector find as much as the limits say, whatever the scores, for a while."""
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
            put(rpn, "score_thresh", EVERY_SCORE)
        put(final, "score_thresh", EVERY_SCORE)
        put(final, "detections_per_img", limits.detections)
        put(final, "topk_candidates", limits.proposals)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


class FoundCount:
    """Counts what a forward looks at and finds, for an image.

    Args:
        model: a detector.
    """

    def __init__(self, model: nn.Module) -> None:
        self._rpn = getattr(model, "rpn", None)
        self._proposals: int | None = None

    def of(self, forward: Callable[[], Any], images: int) -> Found:
        """Run a forward over so many images and count."""
        self._proposals = None
        with self._counting():
            output = forward()
        detections = sum(len(found["boxes"]) for found in output)
        proposals = None if self._proposals is None else self._proposals / images
        return Found(proposals=proposals, detections=detections / images)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        if self._rpn is not None:
            handle = self._rpn.register_forward_hook(self._hear)
            try:
                yield
            finally:
                handle.remove()
            return
        # A one-stage detector's candidates are seen nowhere but where they are thinned out.
        usual = box_ops.batched_nms

        def counting(boxes: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
            self._proposals = (self._proposals or 0) + len(boxes)
            kept: torch.Tensor = usual(boxes, *args, **kwargs)
            return kept

        box_ops.batched_nms = counting
        try:
            yield
        finally:
            box_ops.batched_nms = usual

    def _hear(self, module: nn.Module, args: object, output: Any) -> None:  # noqa: ANN401, ARG002
        self._proposals = sum(len(boxes) for boxes in output[0])


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
    count = FoundCount(model)
    forward = lambda: model([image])  # noqa: E731
    points = []
    for proposals, detections in LIMITS:
        with limited(model, Limits(proposals, detections)):
            found = count.of(forward, 1)
            points.append(ContentPoint(found=found, latency=latency(forward)))
    return points


def fitted(points: Sequence[ContentPoint]) -> ContentFit | None:
    """Latency as a linear function of proposals and detections, by least squares over medians.

    What the points do not differ in, or what does not lengthen a forward measurably, has no slope
    that means anything: a negative one is left out and the rest is fitted again. ``None`` for
    fewer than two points.
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
        solved = np.linalg.lstsq(matrix, medians, rcond=None)[0]
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
