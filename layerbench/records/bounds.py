"""Limits of the values in a record: wider than every measurement, and no reader overflows in them.

A record may come from anybody. What is checked here and in `layerbench.records` when a record is
read, nothing that shows it needs to check again. docs/security.md states the limits.
"""

from __future__ import annotations

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
Rate = Annotated[float, Field(gt=0, le=MOST_FIGURE)]
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


def is_none(value: object) -> bool:
    """Whether a field is left out of the JSON, as in the records from before there was such a one.

    To be given to pydantic as ``exclude_if``.
    """
    return value is None
