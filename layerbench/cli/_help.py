"""What ``--help`` shows, at the width of a usual terminal."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from typer.core import TyperCommand, TyperGroup

from layerbench.cli._generated import ADDED_UP, MAY_STAND_ALONE, MORE, OPTIONAL
from layerbench.cli._several import added_up, joined, with_values

# What typer imports to write help, and no help here has: a fifth of the time that help takes.
_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


@dataclass(frozen=True)
class Line:
    """A command line that was read.

    Attributes:
        command, context: typer's.
        words: those of several words and empty values as one.
    """

    command: Any
    context: Any
    words: tuple[str, ...]


_LINE: ContextVar[Line] = ContextVar("the command line that was read last")


def current_line() -> Line:
    """The command line of the verb that runs.

    Raises:
        LookupError: none was read.
    """
    return _LINE.get()


class _Narrow:
    """Options stand in narrow columns, so that names and texts are shown whole."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own click
        """Write the help, after which the process ends.

        Args:
            ctx: of the command line.
            formatter: that typer has no use for.
        """
        for option in self.get_params(ctx):  # type: ignore[attr-defined]
            _narrowed(option)
        _load_rich()
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Narrow, TyperCommand):
    """A verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        """Read the words of a command line, those of an option that takes several as one.

        An option whose value may be left out gets an empty one. Cards and
        prices may be said one at a time.

        Args:
            ctx: of the command line.
            args: its words.

        Returns:
            what is left of them.
        """
        shown = {
            spelling: getattr(option, "metavar", None) or ""
            for option in self.get_params(ctx)
            if option.param_type_name == "option"
            for spelling in option.opts
        }
        several = [spelling for spelling, value in shown.items() if value.endswith(MORE)]
        # An empty value is what the option says alone.
        alone = [name for name, value in shown.items() if value.startswith(MAY_STAND_ALONE)]
        args = [f"{word}=" if word in alone else word for word in args]
        optional = [name for name, value in shown.items() if value.startswith(OPTIONAL)]
        words = joined(with_values(args, optional), several)
        lists = {
            spelling: option.name
            for option in self.get_params(ctx)
            for spelling in option.opts
            if shown.get(spelling, "") in ADDED_UP
        }
        words = added_up(words, lists)
        _LINE.set(Line(self, ctx, tuple(words)))
        return super().parse_args(ctx, words)


class Group(_Narrow, TyperGroup):
    """Several verbs."""


def _load_rich() -> None:
    """Load what typer writes help with, and empty classes in place of what help does not use.

    A typer that needs more of them loads everything by itself.
    """
    absent = {name: ModuleType(name) for name in _UNUSED if name not in sys.modules}
    for name, module in absent.items():
        setattr(module, _UNUSED[name], type(_UNUSED[name], (), {}))
    sys.modules.update(absent)
    with suppress(ImportError):
        importlib.import_module("typer.rich_utils")
    for name in absent:
        del sys.modules[name]


def _narrowed(option: Any) -> None:  # noqa: ANN401 - typer's own copy of click
    """Spellings stand one below the other; what only repeats the name or Python's type is out."""
    long = [name for name in option.opts if name.startswith("--")]
    if len(long) > 1:
        short = [name for name in option.opts if name not in long]
        option.opts = [",\n".join(long), *short]
    option.show_envvar = False
    if getattr(option, "is_flag", False):  # typer's own: a flag takes no value
        option.metavar = " "
    if option.nargs == -1:  # files, of which typer says `list[Path]`, or words
        kind = "<path>" if "path" in option.bare_type().lower() else "<str>"
        option.display_type = lambda _: kind
