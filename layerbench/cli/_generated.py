"""A verb's command line, made from the signature of its function.

A parameter is one of these:

* a pydantic model: each of its fields that is an `option` is one of the verb's, and the verb gets
  the model, checked;
* ``Annotated[dict[str, Any], values_of(Model)]``: the same options, and the verb gets
  only the values that were said, by the names of the fields, each checked;
* ``Annotated[T, option(...)]``: an option of the verb's own;
* anything else, as typer takes it.

`fields` picks those of a model that a verb has, and says what they are without a word.
"""

from __future__ import annotations

import inspect
import math
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from layerbench.cli._completion import values_of as completed
from layerbench.errors import TRUTHS, UsageError
from layerbench.records.options import Option, checked, complaint, option_of
from layerbench.units import parse_bytes, parse_percent

MORE = "..."
"""Ends what stands in the help for the value of an option that takes several words."""
MAY_STAND_ALONE = "[="
"""Begins what stands in the help for the value of an option that needs none."""
# The default of an option that has to be said.
REQUIRED: Any = PydanticUndefined
OPTIONAL = "[PATH"
"""The same where a value may also be the next word."""
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


def numbers(text: str) -> list[int]:
    """Positive numbers with commas, ascending and each once; ``1,2,4,...,256`` doubles.

    Raises:
        UsageError: they cannot be read.
    """
    parts = [part.strip() for part in text.split(",")]
    counts: list[int] = []
    for index, part in enumerate(parts):
        if part == "..." and counts and index + 1 < len(parts) and parts[index + 1].isdigit():
            while counts[-1] * 2 < int(parts[index + 1]):
                counts.append(counts[-1] * 2)
        elif part.isdigit() and int(part) > 0:
            counts.append(int(part))
        else:
            raise UsageError(f"takes positive numbers with commas, got {text!r}")
    return sorted(set(counts))


def names_in(text: str) -> list[str]:
    """Names with commas.

    Raises:
        UsageError: there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"takes names with commas, got {text!r}")
    return names


def paths_in(text: str) -> tuple[str, ...]:
    """Paths of modules with commas, each once; none where nothing is said."""
    return tuple(dict.fromkeys(path.strip() for path in text.split(",") if path.strip()))


def truth(text: str) -> bool:
    """A yes or no in one of its spellings.

    Raises:
        UsageError: it is neither.
    """
    if text.lower() not in TRUTHS:
        raise UsageError(f"takes True or False, got {text!r}")
    return TRUTHS[text.lower()]


def mode_or_truth(text: str) -> str | bool:
    """A mode, or whether there is one at all; the option alone is a yes."""
    return TRUTHS.get(text.lower(), text) if text else True


# How a value is read, by what stands for it in the help.
PARSERS: dict[str, Callable[[str], Any]] = {
    f"{MAY_STAND_ALONE}MODE]": mode_or_truth,
    "BOOL": truth,
    "[PATH,...]": paths_in,
    "CARDS": names_in,
    "DETECTORS": names_in,
    "LIST": names_in,
    "N|HxW": size_of,
    "NUMBERS": numbers,
    "PERCENT": parse_percent,
    "PRICES": names_in,
    "SIZE": parse_bytes,
}


ADDED_UP = ("CARDS", "PRICES")
"""Lists that may be said one value at a time. Of all other options the last one counts: scripts end
with what their user adds."""


@dataclass(frozen=True)
class Fields:
    """Those fields of a model that a verb has as options.

    Attributes:
        names: of the fields; none for all that are options.
        omit: those that are not.
        panel: of the help that all of them stand in; ``None`` for each one's own.
        defaults: of fields that are something else without a word than in the model.
        sources: models to look for the fields in, where the verb gets the values alone.
        several: those that take several words, which the verb gets with commas.
        instead: options as this verb describes them, by the name of the field.
    """

    names: tuple[str, ...]
    omit: tuple[str, ...]
    panel: str | None
    defaults: Mapping[str, Any]
    sources: tuple[type[BaseModel], ...] = ()
    several: tuple[str, ...] = ()
    instead: Mapping[str, FieldInfo] = field(default_factory=dict)


def fields(
    *names: str,
    omit: tuple[str, ...] = (),
    panel: str | None = None,
    several: tuple[str, ...] = (),
    instead: Mapping[str, FieldInfo] | None = None,
    **defaults: Any,  # noqa: ANN401 - of fields of many kinds
) -> Fields:
    """Those fields of a model that a verb has: all of them, or those that are named."""
    picked = (*names, *defaults) if names else ()
    return Fields(picked, omit, panel, defaults, several=several, instead=instead or {})


def values_of(*sources: type[BaseModel], picked: Fields | None = None) -> Fields:
    """Have the values alone that were said, of fields of these models."""
    return replace(picked or fields(), sources=sources)


@dataclass(frozen=True)
class Declared:
    """One option.

    Attributes:
        name: of the field or parameter.
        kind: its type, with what pydantic checks.
        description: what the help says.
        shown: how it is written.
        default: what it is without a word; ``None`` also where the model works it out.
    """

    name: str
    kind: Any
    description: str | None
    shown: Option
    default: Any

    @property
    def written(self) -> str:
        """The usual spelling."""
        return self.shown.written(self.name)

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
            # A flag takes no value; without a text typer would show a type.
            metavar=" " if kind is bool else self.shown.metavar,
            rich_help_panel=self.shown.panel,
            show_default=True if parsed else self.shown.default_text,
            envvar=[f"{prefix}_{name.upper()}" for name in self._names] if prefix else None,
            autocompletion=completed(self.name, self.shown.metavar, _choices(self.kind)),
        )
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is REQUIRED else default,
            annotation=Annotated[kind | None if default is None else kind, shown],
        )

    def _kind(self) -> Any:  # noqa: ANN401 - a type
        """The type that typer reads: ``str`` if the value is parsed here."""
        return str if self.shown.metavar in PARSERS else _readable(self.kind)

    def _help(self) -> str:
        """The description, with the choices that it does not name."""
        text = self.description or ""
        choices = _choices(self.kind)
        if all(choice in text for choice in choices):
            return text
        return f"{text} One of {', '.join(choices[:-1])} or {choices[-1]}."

    def parsed(self, value: Any, written: str) -> Any:  # noqa: ANN401 - of many kinds
        """What is written, as the model takes it.

        Args:
            value: of the option.
            written: what the user calls it.

        Raises:
            UsageError: it cannot be read.
        """
        check_amount(written, value)
        parse = PARSERS.get(self.shown.metavar or "")
        if parse is None or not isinstance(value, str):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise UsageError(f"{written} {error}") from None

    def checked(self, value: Any, written: str) -> Any:  # noqa: ANN401 - of many kinds
        """What is written, if it can be meant.

        Args:
            value: of the option.
            written: what the user calls it.

        Raises:
            UsageError: it cannot.
        """
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(self.kind)
            return adapter.validate_python(self.parsed(value, written))
        except ValidationError as error:
            raise UsageError(complaint(error, lambda _: written)) from None


def check_amount(name: str, value: object) -> None:
    """Refuse numbers that are not amounts: nan, inf, -1.

    Raises:
        UsageError: it is such.
    """
    if isinstance(value, float) and not 0 <= value < math.inf:
        raise UsageError(f"{name} must be a number from 0 on, got {value:g}")


def _plain(kind: Any) -> Any:  # noqa: ANN401 - a type
    """A type without its annotations and without ``None``."""
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


@dataclass(frozen=True)
class _AsItIs:
    """A parameter that typer takes."""

    parameter: inspect.Parameter

    def parameters(self, _: str | None) -> list[inspect.Parameter]:
        return [self.parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    def value(self, values: Mapping[str, Any], said: Mapping[str, str]) -> Any:  # noqa: ANN401 - of many kinds
        name = self.parameter.name
        check_amount(said.get(name, name), values[name])
        return values[name]


@dataclass(frozen=True)
class _Own:
    """A parameter that is an option."""

    option: Declared

    def parameters(self, prefix: str | None) -> list[inspect.Parameter]:
        return [self.option.parameter(prefix)]

    def value(self, values: Mapping[str, Any], said: Mapping[str, str]) -> Any:  # noqa: ANN401 - of many kinds
        name = self.option.name
        if name not in said:
            return self.option.default
        return self.option.checked(values[name], said[name])


@dataclass(frozen=True)
class _Grouped:
    """A parameter that has an option for each of these fields.

    Attributes:
        model: that the verb gets; ``None`` for the values alone.
    """

    options: tuple[Declared, ...]
    defaults: Mapping[str, Any]
    model: type[BaseModel] | None

    def parameters(self, prefix: str | None) -> list[inspect.Parameter]:
        return [one.parameter(prefix) for one in self.options]

    def value(self, values: Mapping[str, Any], said: Mapping[str, str]) -> Any:  # noqa: ANN401 - of many kinds
        options = {one.name: one for one in self.options if one.name in said}
        if self.model is None:
            return {name: one.checked(values[name], said[name]) for name, one in options.items()}
        mine = {name: one.parsed(values[name], said[name]) for name, one in options.items()}
        return checked(self.model, {**self.defaults, **mine}, lambda name: said[name])


_Part = _AsItIs | _Own | _Grouped


def _part(parameter: inspect.Parameter) -> _Part:
    annotation = parameter.annotation
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    picked = next((note for note in notes if isinstance(note, Fields)), fields())
    model = kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None
    sources = picked.sources if model is None else (model,)
    if sources:
        options = tuple(_options_of(sources, picked))
        return _Grouped(options, picked.defaults, model)
    for note in notes:
        if isinstance(note, FieldInfo) and (shown := option_of(note)) is not None:
            shown = replace(shown, panel=picked.panel or shown.panel)
            default = REQUIRED if parameter.default is parameter.empty else parameter.default
            return _Own(Declared(parameter.name, annotation, note.description, shown, default))
    return _AsItIs(parameter)


def _options_of(sources: Iterable[type[BaseModel]], picked: Fields) -> Iterator[Declared]:
    for model in sources:
        for name, usual in model.model_fields.items():
            told = picked.instead.get(name, usual)
            shown = option_of(told)
            left_out = name in picked.omit or (picked.names and name not in picked.names)
            if shown is None or left_out:
                continue
            default = None if usual.default is PydanticUndefined else usual.default
            if name in picked.defaults:
                default, shown = picked.defaults[name], replace(shown, default_text=True)
            if name in picked.several:
                shown = replace(shown, metavar=f"{shown.metavar}{MORE}")
            panel = picked.panel or shown.panel or getattr(model, "PANEL", None)
            kind = Annotated[usual.annotation, usual]  # type: ignore[name-defined]
            yield Declared(name, kind, told.description, replace(shown, panel=panel), default)


def parts_of(command: Callable[..., Any]) -> dict[str, _Part]:
    """The parameters of a verb's function, by name."""
    parameters = inspect.signature(command, eval_str=True).parameters
    return {name: _part(parameter) for name, parameter in parameters.items()}


def arguments(
    parts: Mapping[str, _Part], values: Mapping[str, Any], said: Mapping[str, str]
) -> dict[str, Any]:
    """What a verb's function gets.

    Args:
        parts: by the names of its parameters.
        values: of the options, by name.
        said: what the user calls those that are not defaults.

    Raises:
        UsageError: a value cannot be meant.
    """
    return {name: part.value(values, said) for name, part in parts.items()}


def said_in(context: typer.Context) -> dict[str, str]:
    """The options that a command line or the environment says, as `called` calls them."""
    sources = ("COMMANDLINE", "ENVIRONMENT")
    return {
        option.name: called(context, option)
        for option in context.command.params
        if option.name in context.params and _source(context, option.name) in sources
    }


def called(context: Any, option: Any) -> str:  # noqa: ANN401 - typer's own copy of click
    """What the user calls an option: its usual spelling, or the variable that says it."""
    if _source(context, option.name) == "ENVIRONMENT":
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
        return next((name for name in variables if os.environ.get(name)), str(option.name))
    is_option = option.param_type_name == "option"
    return str(option.opts[0] if is_option else option.metavar or option.name)


def _source(context: Any, name: str) -> str:  # noqa: ANN401 - typer's own copy of click
    """Where an option's value is from."""
    return str(getattr(context.get_parameter_source(name), "name", ""))


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
    parameters = [one for part in parts.values() for one in part.parameters(prefix)]
    vars(verb)["__signature__"] = inspect.Signature([*parameters, context])
    verb.__annotations__ = {one.name: one.annotation for one in (*parameters, context)}
    return verb
