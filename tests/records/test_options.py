"""What is said of a wrong value."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, TypeAdapter

from layerbench import cli
from layerbench.cli._generated import REQUIRED, parts_of
from layerbench.errors import UsageError
from layerbench.records.options import checked, option, option_of, spelling


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("write an even one")
    return value


class Box(BaseModel):
    """Of every kind of limit."""

    width: Annotated[int, option("How wide.", "--width", "--w", ge=1, le=9)] = 1
    weight: Annotated[float, option("How heavy.", gt=0, lt=2.5)] = 1.0
    pairs: Annotated[int, AfterValidator(_even)] = 2
    sides: tuple[Annotated[int, option("Sides.", ge=1)], ...] = ()
    kind: Literal["open", "shut"] = "open"
    above: Annotated[float, option("Above.", gt=1)] = 2.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"width": 0}, "<width> must be at least 1, got 0"),
        ({"width": 10**30}, f"<width> must be at most 9, got {10**30}"),
        ({"width": "wide"}, "<width> must be a whole number, got 'wide'"),
        ({"weight": 0.0}, "<weight> must be positive, got 0"),
        ({"weight": 2.5}, "<weight> must be less than 2.5, got 2.5"),
        ({"above": 1.0}, "<above> must be more than 1, got 1"),
        ({"pairs": 3}, "<pairs>: write an even one"),
        ({"sides": (1, 0)}, "<sides> (1) must be at least 1, got 0"),
        ({"kind": "ajar"}, "<kind> takes open, shut, got 'ajar'"),
        ({"kind": "x\n" * 300}, "<kind> takes open, shut, got 'x"),
    ],
)
def test_what_is_said(values, says):
    with pytest.raises(UsageError) as error:
        checked(Box, values, lambda name: f"<{name}>")
    assert str(error.value).startswith(says)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_an_option_leaves_the_schema_as_it_is():
    assert Box.model_json_schema()["properties"]["width"] == {
        "default": 1,
        "description": "How wide.",
        "maximum": 9,
        "minimum": 1,
        "title": "Width",
        "type": "integer",
    }


def test_spellings():
    assert [spelling(Box, name) for name in ("width", "weight", "kind")] == [
        "--width",
        "--weight",
        "kind",
    ]
    assert option_of(Box.model_fields["kind"]) is None


@pytest.mark.parametrize("name", sorted(cli.verbs()))
def test_every_default_of_a_verb_is_a_value_that_it_takes(name):
    command = cli.verbs()[name].command
    for part in parts_of(command).values():
        options = getattr(part, "options", None) or (getattr(part, "option", None),)
        for one in filter(None, options):
            if one.default is not REQUIRED and one.default is not None:
                assert TypeAdapter(one.kind).validate_python(one.default) == one.default
    assert inspect.getdoc(command)
