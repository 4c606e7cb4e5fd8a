"""Inference of detectors: timed whole, and in its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from layerbench.analysis.statistics import Resampler, summarize
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.autorange import Autorange
from layerbench.instruments.detections import DetectionCounter
from layerbench.instruments.detector_parts import parts_of
from layerbench.instruments.step_timer import StepTimer
from layerbench.instruments.warm_up import WarmingUp
from layerbench.records.detection_estimate import ContentPoint, Found
from layerbench.records.timing import Summary
from layerbench.training import step_statistics
from layerbench.training.detection.batches import BoxedBatch
from layerbench.training.detection.content import (
    LIMITS,
    can_be_limited,
    measured_points,
)
from layerbench.training.detection.options import EstimateOptions
from layerbench.units import NANOSECOND

Result = TypeVar("Result")

# Forwards that detect.
REPEATS = Autorange(fewest=3, most=50, slow_s=5.0, slow_fewest=2)


@dataclass(frozen=True)
class Inferred:
    """What forwards that detect showed.

    Attributes:
        one_image, one_batch: latencies.
        batch_s: of each forward with a batch.
        counts: of what is in the batch, for an image.
        parts: time of each part in forwards with a batch.
        points: latency of one image with several amounts found.
    """

    one_image: Summary
    one_batch: Summary
    batch_s: NDArray[np.float64]
    counts: Found
    parts: dict[str, Summary | None]
    points: tuple[ContentPoint, ...]

    def all_images(self, batches: float) -> tuple[float, NDArray[np.float64], float]:
        """Seconds for ``batches`` forwards, the measured seconds of each, and their mean."""
        mean = float(self.batch_s.mean())
        return batches * mean, self.batch_s, mean


class Inference:
    """Forwards that detect. Used with the model in eval mode, without gradients.

    Args:
        model: on the device.
        batch: images there.
        device: where.
        asking: for how long, and whether also with several amounts found.
        conditions: of the device, looked at between the forwards that count.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: BoxedBatch,
        device: Device,
        options: EstimateOptions,
        conditions: ConditionsWatch,
    ) -> None:
        self._conditions = conditions
        self._model = model
        self._images = batch.images
        self._device = device
        self._content = options.content
        self._parts = parts_of(model)
        # One image, a batch, and each of the points of the content have about as long.
        self._seconds = options.seconds / 2 / (2 + (len(LIMITS) if options.content else 0))

    def inferred(self) -> Inferred:
        """All of it."""
        self._warm_up(lambda: self._model(self._images[:1]))
        one = self._summary(self._times(lambda: self._model(self._images[:1])))
        counts: list[Found] = []
        # What is found is counted in the forward that is not kept.
        first = _timed(self._device.clock(), lambda: counts.append(self._counted()))
        batch_s, taken = self._batches(first)
        points = (
            measured_points(
                self._model, self._images[0], lambda call: self._summary(self._times(call))
            )
            if self._content and can_be_limited(self._model)
            else []
        )
        parts = self._by_part(taken)
        return Inferred(one, self._summary(batch_s), batch_s, counts[0], parts, tuple(points))

    def _warm_up(self, call: Callable[[], Any]) -> None:
        """Let an accelerator come up to its clock, once: all that follows keeps it there."""
        if self._device.kind == "cpu":
            return
        clock, warming = self._device.clock(), WarmingUp(self._device, 1)
        while not warming.is_over:
            warming.add(_timed(clock, call))
        self._conditions.add_warm_up(warming.taken)

    def _counted(self) -> Found:
        """What a forward with the batch finds, for an image."""
        return DetectionCounter(self._model).of(self._whole_batch, len(self._images))

    def _whole_batch(self) -> Any:  # noqa: ANN401 - what the detector found
        return self._model(self._images)

    def _batches(self, first: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds of forwards with the batch; nanoseconds of forwards by part.

        Args:
            first: seconds of a first one.

        Returns:
            ``[forwards]`` and ``[forwards, parts]``, which are other forwards than those, except
            where one is slow: beside it the few marks that the parts need are nothing.
        """
        timer = StepTimer(
            self._parts.timed, self._parts.owners, len(self._parts.names), self._device.clock()
        )

        def taken_apart(count: int) -> NDArray[np.int64]:
            forwards = [
                self._looked(lambda: timer.forward_only(self._whole_batch)) for _ in range(count)
            ]
            return np.stack([forward.self_ns for forward in forwards])

        if REPEATS.is_slow(first):
            taken = taken_apart(REPEATS.slow_fewest)
            return taken.sum(axis=1) * NANOSECOND, taken
        whole = self._after(first, self._whole_batch)
        return whole, taken_apart(min(REPEATS.fewest, len(whole)))

    def _by_part(self, taken: NDArray[np.int64]) -> dict[str, Summary | None]:
        return {
            name: step_statistics.summary(taken[:, row]) if taken[:, row].any() else None
            for row, name in enumerate(self._parts.names)
        }

    def _times(self, call: Callable[[], Any]) -> NDArray[np.float64]:
        """Seconds of a call, as often as the time allows; a first one is not kept."""
        return self._after(_timed(self._device.clock(), call), call)

    def _after(self, first: float, call: Callable[[], Any]) -> NDArray[np.float64]:
        """Seconds of a call that took so long at first, as often as the time allows."""
        clock = self._device.clock()
        slow = REPEATS.is_slow(first)
        expected = first if slow else min(first, _timed(clock, call))
        count = REPEATS.slow_fewest if slow else REPEATS.count(expected, self._seconds)
        return np.array([self._looked(lambda: _timed(clock, call)) for _ in range(count)])

    def _looked(self, run: Callable[[], Result]) -> Result:
        """Run something that counts, and look at the device afterwards."""
        result = run()
        self._conditions.take()
        return result

    @staticmethod
    def _summary(seconds: NDArray[np.float64]) -> Summary:
        return summarize(seconds, Resampler([len(seconds)]))


def _timed(clock: Clock, call: Callable[[], Any]) -> float:
    clock.reserve(2)
    start = clock.mark()
    call()
    end = clock.mark()
    clock.synchronize()
    try:
        first, last = clock.resolve([start, end])
    finally:
        clock.release()
    return float((last - first) * NANOSECOND)
