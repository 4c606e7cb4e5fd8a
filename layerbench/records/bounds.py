"""Limits of the values in a record: wider than every measurement, and no reader overflows in them.

A record may come from anybody. What is checked here and in `layerbench.records` when a record is
read, nothing that shows it needs to check again. docs/security.md states the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from layerbench.text import encodable, shortened

MOST_INTEGER = 2**63 - 1
"""As PyTorch counts elements and bytes: in 64 bits."""
MOST_SEED = 2**64 - 1
MOST_SECONDS = 1e12
LEAST_SECONDS = 1e-12
"""A time is 0 or at least a picosecond, so that what is divided by it stays finite."""
MOST_FIGURE = 1e100
LEAST_RATIO = 1e-100
MOST_NAME = 4_096
MOST_PATH = 65_536
MOST_TEXT = 2**20
MOST_DIMENSIONS = 256
MOST_ABSENT = 2**22
"""Characters of the paths above rows that are no rows themselves, all of them together."""

Count = Annotated[int, Field(ge=0, le=MOST_INTEGER)]
Positive = Annotated[int, Field(ge=1, le=MOST_INTEGER)]
Integer = Annotated[int, Field(ge=-MOST_INTEGER, le=MOST_INTEGER)]
Seed = Annotated[int, Field(ge=-MOST_INTEGER - 1, le=MOST_SEED)]
Time = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
SignedTime = Annotated[float, Field(ge=-MOST_SECONDS, le=MOST_SECONDS)]
Figure = Annotated[float, Field(ge=-MOST_FIGURE, le=MOST_FIGURE)]
Amount = Annotated[float, Field(ge=0, le=MOST_FIGURE)]
Ratio = Annotated[float, Field(ge=LEAST_RATIO, le=MOST_FIGURE)]


def _written(most: int) -> BeforeValidator:
    """What becomes of a text of more than so many characters.

    One that layerbench makes itself is cut, as a measurement is worth more than the end of a note;
    one that is read from a file is refused.
    """

    def fitting(text: object, info: ValidationInfo) -> object:
        if not isinstance(text, str):
            return text
        # Half of a surrogate pair in a file's name or a module's fits into no file.
        text = encodable(text)
        return shortened(text, most) if info.mode == "python" else text

    return BeforeValidator(fitting)


Name = Annotated[str, Field(max_length=MOST_NAME), _written(MOST_NAME)]
Path = Annotated[str, Field(max_length=MOST_PATH), _written(MOST_PATH)]
Text = Annotated[str, Field(max_length=MOST_TEXT), _written(MOST_TEXT)]


def _countable(shape: tuple[int, ...]) -> tuple[int, ...]:
    if prod(shape) > MOST_INTEGER:
        raise ValueError("a tensor of this shape has more elements than 64 bits can count")
    return shape


Shape = Annotated[tuple[Count, ...], Field(max_length=MOST_DIMENSIONS), AfterValidator(_countable)]
"""Of a tensor."""


def check_ordered(name: str, low: float, high: float) -> None:
    """Refuse an interval whose bounds are the wrong way round.

    Raises:
        ValueError: they are.
    """
    if low > high:
        raise ValueError(f"the lower bound of {name} is above the upper one")


def check_tree(paths: Sequence[str], depths: Sequence[int], *, rooted: bool = True) -> None:
    """Refuse rows that are no tree in the order of their parents.

    Args:
        paths, depths: of the rows in order; the model's own path is ``""``.
        rooted: whether the first row is the model's; otherwise none is.

    Raises:
        ValueError: says of which row, and why.
    """
    own = [index for index, path in enumerate(paths) if not path]
    if rooted and paths and own != [0]:
        raise ValueError("the first row, and no other, is the model's own, whose path is empty")
    if not rooted and own:
        raise ValueError("a row has an empty path, which is the whole model's")
    check_distinct("the path", paths)
    known = set(paths)
    seen: set[str] = set()
    for path, depth in zip(paths, depths, strict=True):
        above = path.rpartition(".")[0]
        if depth != (path.count(".") + 1 if path else 0):
            raise ValueError(f"the depth of {_short(path)} is {depth}, which its path does not say")
        if above not in seen and path and above in known:
            raise ValueError(f"the row {_short(path)} stands before the one that holds it")
        seen.add(path)
    check_absent(known, paths)


def check_absent(known: set[str], paths: Sequence[str]) -> None:
    """Refuse paths so long and so far from every row that the places between would fill memory.

    Raises:
        ValueError: they are.
    """
    absent: set[str] = set()
    size = 0
    for path in paths:
        above = path.rpartition(".")[0]
        while above and above not in known and above not in absent:
            absent.add(above)
            size += len(above)
            if size > MOST_ABSENT:
                raise ValueError("too many places between the rows are no rows themselves")
            above = above.rpartition(".")[0]


def check_distinct(what: str, names: Sequence[str]) -> None:
    """Refuse a name that occurs twice.

    Raises:
        ValueError: names it.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {_short(name)} occurs twice")
        seen.add(name)


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"
