"""The model that is trained, as something that is measured: its FLOPs and latency."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from layerbench import zoo
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.profilers.progress import Progress
from layerbench.profilers.sweep import Climb, climb
from layerbench.records.recipes import Recipe
from layerbench.records.sweep import SweepPoint
from layerbench.records.workload import PLAIN_STEP, Workload
from layerbench.training.run_folder import log
from layerbench.zoo import Built

# About so long each point of the trained model's latency takes.
POINT_SECONDS = 5.0


@dataclass(frozen=True)
class TrainedModel:
    """A model on its device, and what it is trained for.

    Attributes:
        model: on its device.
        recipe: of the run.
        workload: of a training step.
        device: that it is on.
    """

    model: nn.Module
    recipe: Recipe
    workload: Workload
    device: Device

    def inference(self, batch: int) -> Workload:
        """What runs when it predicts."""
        shape = (batch, 3, *self.recipe.size)
        changed = {
            "batch": batch,
            "shape": shape,
            "input": "x".join(map(str, shape)),
            "mode": "eval",
        }
        return self.workload.with_step(PLAIN_STEP).model_copy(update=changed)

    def subject(self, batch: int) -> Built:
        """The model with images of the run's size."""
        images = zoo.inputs_for(
            (batch, 3, *self.recipe.size), self.workload.dtype, self.workload.memory_format
        )
        return Built(self.model, (images.to(self.device.torch_device),))

    def latency(self, progress: Progress, conditions: ConditionsWatch) -> tuple[SweepPoint, ...]:
        """Latency over batches up to the run's; leaves the model in eval mode.

        Args:
            progress: hears of each point.
            conditions: of the device, looked at between forwards.
        """
        batches = [2**power for power in range(self.recipe.batch.bit_length())]
        climbed = Climb(self.recipe.model, self.recipe.size, self.inference, self.subject)
        self.model.eval()
        points, end = climb(
            climbed,
            batches,
            self.device,
            seconds=POINT_SECONDS,
            progress=progress,
            conditions=conditions,
        )
        if end is not None:
            log.info("latency was not measured with %d images: %s", end.batch, end.why)
        return tuple(points)
