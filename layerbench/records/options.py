"""Model fields that are also command-line options, and the messages for wrong values.

What an option means, may be and is without a word is said once, where the field is declared: the
JSON schema, the configuration file and ``--help`` have it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from layerbench.errors import UsageError
from layerbench.records.bounds import Positive
from layerbench.text import one_line

Model = TypeVar("Model", bound=BaseModel)

# Panels of ``--help`` that several verbs have.
WHAT_RUNS = "What runs"
STEPS = "What a training step does"
LEARNING = "How it learns"
MEASURING = "How it is measured"
PLACE = "Where it runs"
OUTCOME = "What comes out"

# Characters of a wrong value that a message repeats.
MOST_REPEATED = 200

# By pydantic's names of what can be wrong.
_SAYINGS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
# What is no value of the type, by the beginning of pydantic's name for it.
_TYPES = {
    "bool": "True or False",
    "dict": "a table",
    "float": "a number",
    "finite_number": "a number",
    "int": "a whole number",
    "string": "a text",
}


@dataclass(frozen=True)
class Option:
    """How a field is written on a command line; it adds nothing to the JSON schema.

    Attributes:
        spellings: of the option, the usual one first; none for the field's own name.
        panel: of ``--help`` that it stands in.
        metavar: what stands for its value.
        default_text: is shown in place of the default.
    """

    spellings: tuple[str, ...]
    panel: str | None
    metavar: str | None
    default_text: str | bool

    def written(self, name: str) -> str:
        """The usual spelling of this option; for a pair of flags, the positive one."""
        first = next(iter(self.spellings), f"--{name.replace('_', '-')}")
        return first.partition("/")[0]

    def __call__(self, schema: dict[str, Any]) -> None:
        """Leave the JSON schema of the field as it is."""


def option(
    description: str,
    *spellings: str,
    panel: str | None = None,
    metavar: str | None = None,
    default_text: str | bool = True,
    **limits: Any,  # noqa: ANN401 - pydantic's `ge`, `gt`, `le`
) -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """A field, or a verb's parameter, that ``--help`` shows.

    Args:
        description: a phrase that stands alone.
        spellings, panel, metavar, default_text: as in `Option`. A ``default_text`` of False shows
            no default.
        limits: as pydantic's ``Field`` takes them.
    """
    shown = Option(spellings, panel, metavar, default_text)
    return Field(description=description, json_schema_extra=shown, **limits)


def device_option(before: str = "") -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """The option of the device, and ``before``: what goes before the usual choice."""
    return option(
        "Device: auto, cpu, cuda, cuda:1, xpu or mps.",
        panel=PLACE,
        default_text=f"{before}the accelerator if there is one, else cpu",
    )


Device = Annotated[str | None, device_option()]
Threads = Annotated[
    Positive | None,
    option("Number of intra-op CPU threads.", panel=PLACE, default_text="PyTorch's choice"),
]


def option_of(field: FieldInfo) -> Option | None:
    """How a field is written on a command line, if it is an option."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, Option) else None


def checked(
    model: type[Model], values: Mapping[str, Any], written: Callable[[str], str] = lambda name: name
) -> Model:
    """A model with these values.

    Args:
        model: its class.
        values: of its fields.
        written: how the user writes a field of this name.

    Raises:
        UsageError: a value cannot be meant; one line.
    """
    for name, value in values.items():
        # Python's True is the number 1, which nobody means by it.
        if isinstance(value, bool) and not _takes_bool(model, name):
            raise UsageError(f"{written(name)} takes no {str(value).lower()}")
    try:
        return model(**values)
    except ValidationError as error:
        raise UsageError(complaint(error, written)) from None


def _takes_bool(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    if field is None:
        return True
    kinds = (field.annotation, *get_args(field.annotation))
    return bool in kinds or any(isinstance(one, bool) for one in kinds)


def spelling(model: type[BaseModel], name: str) -> str:
    """How the option of a model's field is usually written; of other fields the name."""
    shown = option_of(model.model_fields[name])
    return name if shown is None else shown.written(name)


def complaint(error: ValidationError, written: Callable[[str], str]) -> str:
    """The first thing that is wrong, on one line.

    Args:
        error: of a model.
        written: how the user writes a field of this name.
    """
    first = error.errors(include_url=False)[0]
    field, *inside = map(str, first["loc"] or ("",))
    # Of a field of a dictionary pydantic gives the key a mark.
    inside = [part for part in inside if part != "[key]"]
    name = f"{written(field)} ({'.'.join(inside)})" if inside else written(field)
    context: dict[str, Any] = first.get("ctx", {})
    if first["type"] == "value_error":
        return f"{name}: {context['error']}" if name else str(context["error"])
    return f"{name} {_saying(first['type'], first['msg'], context)}, got {_shown(first['input'])}"


def _saying(kind: str, message: str, context: dict[str, Any]) -> str:
    if context.get("gt") == 0:
        return "must be positive"
    if kind in _SAYINGS:
        return f"must be {_SAYINGS[kind]} {_shown(next(iter(context.values())))}"
    for beginning, said in _TYPES.items():
        if kind.startswith(beginning + "_"):
            return f"must be {said}"
    if kind == "literal_error":
        return f"takes {context['expected'].replace(' or ', ', ')}".replace("'", "")
    said = message.removeprefix("Input ").removeprefix("Value ")
    return f"{said[:1].lower()}{said[1:]}"


def _shown(value: object) -> str:
    return one_line(f"{value:g}" if isinstance(value, float) else repr(value), MOST_REPEATED)
