"""Data sets with boxes, to train detectors on: each file of this folder is one.

Importing this loads no torch.
"""

from __future__ import annotations

import functools

from layerbench.datasets.boxed.source import (
    BoxedDatasetOptions,
    BoxedImages,
    BoxedSource,
    BoxedSplits,
    Target,
)
from layerbench.errors import chosen
from layerbench.registry import registered

__all__ = [
    "BoxedDatasetOptions",
    "BoxedImages",
    "BoxedSource",
    "BoxedSplits",
    "Target",
    "get",
    "names",
]


def names() -> tuple[str, ...]:
    """Every data set with boxes, in alphabetical order."""
    return tuple(sorted(_sources()))


def get(name: str) -> BoxedSource:
    """The data set with boxes of this name.

    Raises:
        UsageError: there is none; the message lists the names.
    """
    return chosen(name, _sources(), "data set with boxes")


@functools.cache
def _sources() -> dict[str, BoxedSource]:
    sources = registered(__name__, __path__, "SOURCE", "layerbench.detection_datasets")
    return {source.name: source for source in sources}
