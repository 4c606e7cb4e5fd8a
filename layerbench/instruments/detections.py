"""What a detector found: its time depends on how many proposals and detections there are.

A report on a detector states both beside the time; a backbone has neither, and no note.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from layerbench.instruments.attach import Forward
from layerbench.introspection.modules import modules

PROPOSING = "torchvision.models.detection.rpn"


class ContentObserver:
    """Counts the proposals and detections of one forward, per image."""

    def __init__(self, model: nn.Module) -> None:
        self._networks = list(_proposal_networks(model))
        self._proposals: list[int] = []
        self._detections: list[int] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the proposal networks for the duration of a ``with`` block."""
        handles = [network.register_forward_hook(self._hear) for network in self._networks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hear(self, module: nn.Module, args: object, output: Any) -> None:  # noqa: ANN401, ARG002
        proposals, _ = output
        self._proposals = [len(boxes) for boxes in proposals]

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
