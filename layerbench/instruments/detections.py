"""What a detector proposes and detects: its time depends on how many of them there are.

The one place that counts them: for a report on a forward, for the steps of a training, and for
latencies with several amounts of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from layerbench.instruments.attach import Forward
from layerbench.instruments.compiled import compiled_with_inside
from layerbench.introspection.modules import modules
from layerbench.records.detection_estimate import Found

PROPOSING = "torchvision.models.detection.rpn"


class DetectionCounter:
    """Counts the proposals and detections of the last forward, by image.

    Args:
        model: a detector; of another model, of a part that it lacks or that is compiled, nothing
            is counted.
    """

    def __init__(self, model: nn.Module) -> None:
        # A hook on what is compiled would let it be compiled anew.
        compiled = compiled_with_inside(model)
        self._networks = [one for one in _proposal_networks(model) if id(one) not in compiled]
        heads = getattr(model, "roi_heads", None)
        self._heads = None if id(heads) in compiled else heads
        self._proposals: list[int] = []
        self._detections: list[int] = []

    @contextmanager
    def attached(self, *, training: bool = False) -> Iterator[None]:
        """Count proposals for the duration of a ``with`` block.

        Args:
            training: in training the heads look at a sample of the proposals, and at the true
                boxes: those are counted then.
        """
        with ExitStack() as held:
            for network in self._networks:
                held.callback(network.register_forward_hook(self._hear).remove)
            select = getattr(self._heads, "select_training_samples", None)
            if training and self._heads is not None and select is not None:
                self._heads.__dict__["select_training_samples"] = self._selecting(select)
                held.callback(self._heads.__dict__.pop, "select_training_samples", None)
            yield

    def _hear(self, module: nn.Module, args: object, output: Any) -> None:  # noqa: ANN401, ARG002
        self._proposals = [len(boxes) for boxes in output[0]]

    def _selecting(self, select: Callable[..., Any]) -> Callable[..., Any]:
        def selected(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for the method
            samples = select(*args, **kwargs)
            self._proposals = [len(boxes) for boxes in samples[0]]
            return samples

        return selected

    def noted(self, forward: Forward) -> Forward:
        """The forward, with the detections in its output counted."""

        def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            output = forward(*args, **kwargs)
            self._detections = [len(boxes) for boxes in _boxes(output)]
            return output

        return run

    def notes(self) -> list[str]:
        """One sentence, or none for a model that detects nothing of the kind."""
        counts = []
        if self._proposals:
            counts.append(f"proposals per image: {', '.join(map(str, self._proposals))}")
        if self._detections:
            counts.append(f"detections per image: {', '.join(map(str, self._detections))}")
        if not counts:
            return []
        return [f"the time depends on what is found; {'; '.join(counts)}"]

    def take_proposals(self) -> int | None:
        """How many there were, all images together; forgets them."""
        proposals, self._proposals = self._proposals, []
        return sum(proposals) if proposals else None

    def of(self, forward: Callable[[], Any], images: int) -> Found:
        """Run a forward that detects, and count what it looks at and finds.

        Args:
            forward: of the detector, in eval mode.
            images: that it runs over.

        Returns:
            means for one image; of a one-stage detector, candidates in place of proposals.
        """
        if self._networks:
            with self.attached():
                self.noted(forward)()
            proposals = self.take_proposals()
        else:
            # Candidates are seen nowhere but where they are thinned out.
            with counting_candidates() as candidates:
                self.noted(forward)()
            proposals = sum(candidates)
        return Found(
            proposals=None if proposals is None else proposals / images,
            detections=sum(self._detections) / images,
        )


@contextmanager
def counting_candidates() -> Iterator[list[int]]:
    """Boxes that go into non-maximum suppression, of which every detector has this one."""
    from torchvision.ops import boxes as box_ops

    usual = box_ops.batched_nms
    counts: list[int] = []

    def counting(boxes: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        counts.append(len(boxes))
        kept: torch.Tensor = usual(boxes, *args, **kwargs)
        return kept

    box_ops.batched_nms = counting
    try:
        yield counts
    finally:
        box_ops.batched_nms = usual


def _proposal_networks(model: nn.Module) -> Iterator[nn.Module]:
    """Those of torchvision, which is loaded where there are any: loading it takes a second."""
    if PROPOSING in sys.modules:
        network = sys.modules[PROPOSING].RegionProposalNetwork
        yield from (module for module in modules(model) if isinstance(module, network))


def _boxes(output: object) -> Iterator[torch.Tensor]:
    """The boxes of each image, as torchvision's detectors give them in evaluation."""
    for image in output if isinstance(output, (list, tuple)) else ():
        if isinstance(image, Mapping) and isinstance(image.get("boxes"), torch.Tensor):
            yield image["boxes"]
