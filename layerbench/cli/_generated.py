"""A verb's command line, made from the signature of its function.

A parameter is one of these:

* a pydantic model: each of its fields that is an `option` is one of the verb's, and the verb gets
  the model, checked;
* ``Annotated[dict[str, Any], given(Model)]``: the same options, and the verb gets only the values
  that were said, by the names of the fields, each checked;
* ``Annotated[T, option(...)]``: an option of the verb's own;
* anything else, as typer takes it.

`fields` picks those of a model that a verb has, and says what they are without a word.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from layerbench.errors import UsageError
from layerbench.records.options import Option, complaint, option_of
from layerbench.units import parse_bytes, parse_percent

# The default of an option that has to be said.
REQUIRED: Any = PydanticUndefined
READ_BY_TYPER = (str, int, float, bool, Path)


def size_of(text: str) -> tuple[int, int]:
    """``224`` or ``480x640`` as height and width.

    Raises:
        UsageError: it is neither.
    """
    parts = text.lower().split("x")
    if len(parts) <= 2 and all(part.isdigit() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"takes a number such as 224, or HxW such as 480x640, got {text!r}")


# What a value is written as, by what stands for it in the help.
PARSERS: dict[str, Callable[[str], Any]] = {
    "N|HxW": size_of,
    "PERCENT": parse_percent,
    "SIZE": parse_bytes,
}


@dataclass(frozen=True)
class Fields:
    """Those fields of a model that a verb has as options.

    Attributes:
        names: of the fields; none for all that are options.
        omit: those that are not.
        panel: of the help that all of them stand in; ``None`` for each one's own.
        defaults: of fields that are something else without a word than in the model.
        sources: models to look for the fields in, where the verb gets the values alone.
    """

    names: tuple[str, ...]
    omit: tuple[str, ...]
    panel: str | None
    defaults: Mapping[str, Any]
    sources: tuple[type[BaseModel], ...] = ()


def fields(
    *names: str,
    omit: tuple[str, ...] = (),
    panel: str | None = None,
    **defaults: Any,  # noqa: ANN401 - of fields of many kinds
) -> Fields:
    """Those fields of a model that a verb has: all of them, or those that are named."""
    return Fields((*names, *defaults) if names else (), omit, panel, defaults)


def given(*sources: type[BaseModel], picked: Fields | None = None) -> Fields:
    """Have the values alone that were said, of fields of these models."""
    return replace(picked or fields(), sources=sources)


@dataclass(frozen=True)
class Declared:
    """One option.

    Attributes:
        name: of the field or parameter.
        kind: its type.
        field: what pydantic knows of it.
        shown: how it is written.
        default: what it is without a word; ``None`` also where the model works it out.
    """

    name: str
    kind: Any
    field: FieldInfo
    shown: Option
    default: Any

    @property
    def written(self) -> str:
        """The usual spelling."""
        first = next(iter(self.shown.spellings), f"--{self.name.replace('_', '-')}")
        return first.partition("/")[0]

    @property
    def _names(self) -> dict[str, None]:
        """Of the option in the environment."""
        long = [one.partition("/")[0] for one in self.shown.spellings if one.startswith("--")]
        return dict.fromkeys([self.name, *(one[2:].replace("-", "_") for one in long)])

    def parameter(self, prefix: str | None) -> inspect.Parameter:
        """As typer takes it; read from variables that begin with the prefix, if there is one."""
        kind = self._kind()
        spellings = self.shown.spellings
        if kind is bool and not spellings and self.default is not True:
            spellings = (self.written,)
        # Of what is parsed here, the default is a text as well.
        parsed = self.shown.metavar in PARSERS and self.default is not None
        default = self.shown.default_text if parsed else self.default
        shown = typer.Option(
            *spellings,
            help=self._help(),
            metavar=self.shown.metavar,
            rich_help_panel=self.shown.panel,
            show_default=True if parsed else self.shown.default_text,
            envvar=[f"{prefix}_{name.upper()}" for name in self._names] if prefix else None,
        )
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is REQUIRED else default,
            annotation=Annotated[kind | None if default is None else kind, shown],
        )

    def _kind(self) -> Any:  # noqa: ANN401 - a type
        """That typer reads: text where it is parsed here."""
        return str if self.shown.metavar in PARSERS else _readable(self.kind)

    def _help(self) -> str:
        """The description, with the choices that it does not name."""
        text = self.field.description or ""
        choices = _choices(self.kind)
        if all(choice in text for choice in choices):
            return text
        return f"{text} One of {', '.join(choices[:-1])} or {choices[-1]}."

    def parsed(self, value: Any) -> Any:  # noqa: ANN401 - of many kinds
        """What is written, as the model takes it.

        Raises:
            UsageError: it cannot be read.
        """
        check_amount(self.written, value)
        parse = PARSERS.get(self.shown.metavar or "")
        if parse is None or not isinstance(value, str):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise UsageError(f"{self.written} {error}") from None

    def checked(self, value: Any) -> Any:  # noqa: ANN401 - of many kinds
        """What is written, if it can be meant.

        Raises:
            UsageError: it cannot.
        """
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(Annotated[self.kind, self.field])  # type: ignore[arg-type]
            return adapter.validate_python(self.parsed(value))
        except ValidationError as error:
            raise UsageError(complaint(error, lambda _: self.written)) from None


def check_amount(name: str, value: object) -> None:
    """Refuse what Python takes for a number, and what is no amount of anything: nan, inf, -1.

    Raises:
        UsageError: it is such.
    """
    if isinstance(value, float) and not 0 <= value < math.inf:
        raise UsageError(f"{name} must be a number from 0 on, got {value:g}")


def _plain(kind: Any) -> Any:  # noqa: ANN401 - a type
    """A type without what is annotated, and without ``None``."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return _plain(next(one for one in get_args(kind) if one is not type(None)))
    return kind


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - a type
    kind = _plain(kind)
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _readable(kind: Any) -> Any:  # noqa: ANN401 - a type
    """What typer reads such a value as."""
    kind = _plain(kind)
    if get_origin(kind) is Literal:
        return type(get_args(kind)[0])
    if get_origin(kind) is list or kind in READ_BY_TYPER:
        return kind
    raise TypeError(f"no option is read as {kind}: give it a metavar that a parser has")


class _Part:
    """One parameter of a verb's function: the options that it takes, and its value."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self.name = parameter.name
        self.parameter = parameter
        kind, *notes = _split(parameter.annotation)
        self.picked = next((note for note in notes if isinstance(note, Fields)), fields())
        own = next((note for note in notes if isinstance(note, FieldInfo)), None)
        self.model = kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None
        sources = self.picked.sources if self.model is None else (self.model,)
        self.options = list(_declared(sources, self.picked))
        self.own = None
        if own is not None and (shown := option_of(own)) is not None:
            default = REQUIRED if parameter.default is parameter.empty else parameter.default
            self.own = Declared(self.name, kind, own, shown, default)

    def parameters(self, prefix: str | None) -> list[inspect.Parameter]:
        """As typer takes them."""
        if self.own is not None:
            return [self.own.parameter(prefix)]
        if self.options:
            return [one.parameter(prefix) for one in self.options]
        return [self.parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    def value(self, values: Mapping[str, Any], said: set[str]) -> Any:  # noqa: ANN401 - of many kinds
        """What the verb gets."""
        if self.own is not None:
            return self.own.checked(values[self.name]) if self.name in said else self.own.default
        if not self.options:
            check_amount(f"--{self.name.replace('_', '-')}", values[self.name])
            return values[self.name]
        defaults = self.picked.defaults
        wanted = {one.name: one for one in self.options if one.name in said}
        if self.model is None:
            checked = {name: one.checked(values[name]) for name, one in wanted.items()}
            return {**defaults, **checked}
        parsed = {name: one.parsed(values[name]) for name, one in wanted.items()}
        try:
            return self.model(**{**defaults, **parsed})
        except ValidationError as error:
            raise UsageError(complaint(error, lambda name: wanted[name].written)) from None


def _split(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)


def _declared(sources: tuple[type[BaseModel], ...], picked: Fields) -> Iterator[Declared]:
    for model in sources:
        for name, field in model.model_fields.items():
            shown = option_of(field)
            if shown is None or name in picked.omit or (picked.names and name not in picked.names):
                continue
            default = None if field.default is PydanticUndefined else field.default
            if name in picked.defaults:
                default, shown = picked.defaults[name], replace(shown, default_text=True)
            shown = replace(shown, panel=picked.panel or shown.panel)
            yield Declared(name, field.annotation, field, shown, default)


def parts_of(command: Callable[..., Any]) -> list[_Part]:
    """The parameters of a verb's function."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [_Part(parameter) for parameter in parameters]


def arguments(parts: list[_Part], values: Mapping[str, Any], said: set[str]) -> dict[str, Any]:
    """What a verb's function gets.

    Args:
        parts: its parameters.
        values: of the options, by name.
        said: those that are not defaults.

    Raises:
        UsageError: a value cannot be meant.
    """
    return {part.name: part.value(values, said) for part in parts}


def said_in(context: typer.Context) -> set[str]:
    """The options that a command line or the environment says."""
    sources = ("COMMANDLINE", "ENVIRONMENT")
    return {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") in sources
    }


def generated(command: Callable[..., Any], prefix: str | None = None) -> Callable[..., Any]:
    """A verb's function as typer takes it.

    Args:
        command: the verb's.
        prefix: of the environment's variables that are read; ``None`` reads none.
    """
    parts = parts_of(command)

    @wraps(command)
    def verb(*, typer_context: typer.Context, **values: Any) -> Any:  # noqa: ANN401 - what the verb returns
        return command(**arguments(parts, values, said_in(typer_context)))

    context = inspect.Parameter(
        "typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )
    parameters = [one for part in parts for one in part.parameters(prefix)]
    vars(verb)["__signature__"] = inspect.Signature([*parameters, context])
    verb.__annotations__ = {one.name: one.annotation for one in (*parameters, context)}
    return verb
