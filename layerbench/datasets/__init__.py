"""Data sets to train on: each file of this folder is one. Importing this loads no torch.

Those with boxes, to train detectors, are in `layerbench.datasets.boxed`.
"""

from __future__ import annotations

import functools

from layerbench.datasets.source import DatasetOptions, Images, Source, Splits
from layerbench.errors import chosen
from layerbench.registry import registered

__all__ = ["DatasetOptions", "Images", "Source", "Splits", "get", "names"]


def names() -> tuple[str, ...]:
    """Every data set, in alphabetical order."""
    return tuple(sorted(_sources()))


def get(name: str) -> Source:
    """The data set of this name.

    Raises:
        UsageError: there is none; the message lists the names.
    """
    return chosen(name, _sources(), "data set")


@functools.cache
def _sources() -> dict[str, Source]:
    sources = registered(__name__, __path__, "SOURCE", "layerbench.datasets", packages=False)
    return {source.name: source for source in sources}
