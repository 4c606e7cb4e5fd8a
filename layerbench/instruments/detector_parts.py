"""The parts of a detector's forward, under the names that detection papers use.

A detector is no chain of layers: it resizes images, runs a backbone, proposes regions, looks at
them, and turns what it found into boxes. These parts, and not its hundreds of layers, are what a
step is taken apart into here. What a detector does outside them is a part too, `ITSELF`: nothing
is nameless, and the parts add up to the forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from layerbench.instruments.attach import usual_place
from layerbench.instruments.compiled import inside_compiled, is_compiled, original
from layerbench.instruments.step_timer import Timed
from layerbench.introspection.modules import children, named_children, parameters

ITSELF = "the detector itself"
POSTPROCESSING = "post-processing"

# What torchvision's detectors call their children; a child by another name is a part by that name.
_CHILDREN = {
    "transform": "transform",
    "backbone": "backbone",
    "rpn": "RPN",
    "roi_heads": "heads",
    "head": "heads",
    "anchor_generator": "anchors",
}
# Methods that do work of another part than the module that has them: module, method, part.
_METHODS = (
    ("", "compute_loss", "losses"),
    ("", "postprocess_detections", POSTPROCESSING),
    ("transform", "postprocess", POSTPROCESSING),
    ("roi_heads", "postprocess_detections", POSTPROCESSING),
)


@dataclass(frozen=True)
class Parts:
    """The parts of one detector.

    Attributes:
        names: by row; the first is `ITSELF`.
        timed: the functions that do their work.
        owners: the row of a parameter, by its ``id``.
    """

    names: tuple[str, ...]
    timed: tuple[Timed, ...]
    owners: dict[int, int]


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model: torchvision's detectors, or any model by its children.

    What is compiled is timed as one; its inside has no time.
    """
    out_of_reach = inside_compiled(model)
    model = original(model)
    named = [
        (child, usual_place(child), _CHILDREN.get(name, name))
        for name, child in named_children(model)
    ]
    named += list(_methods(model))
    names = list(dict.fromkeys([ITSELF, *(part for _, _, part in named)]))
    timed = tuple(
        Timed(module, name, names.index(part))
        for module, name, part in named
        if id(module) not in out_of_reach
    )
    owners = {id(parameter): 0 for parameter in parameters(model)}
    for child, _, part in named[: len(list(children(model)))]:
        owners |= {id(parameter): names.index(part) for parameter in parameters(child)}
    return Parts(tuple(names), timed, owners)


def _methods(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    for path, method, part in _METHODS:
        module = getattr(model, path, None) if path else model
        if not isinstance(module, nn.Module) or is_compiled(module):
            continue
        if callable(getattr(module, method, None)):
            yield module, method, part
