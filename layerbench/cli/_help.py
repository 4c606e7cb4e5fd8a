"""What ``--help`` shows, at the width of a usual terminal."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


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
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Narrow, TyperCommand):
    """A verb."""


class Group(_Narrow, TyperGroup):
    """Several verbs."""


def _narrowed(option: Any) -> None:  # noqa: ANN401 - typer's own copy of click
    """Spellings stand one below the other; what only repeats the name or Python's type is out."""
    long = [name for name in option.opts if name.startswith("--")]
    if len(long) > 1:
        short = [name for name in option.opts if name not in long]
        option.opts = [",\n".join(long), *short]
    option.show_envvar = False
    if option.name == "help":  # typer's own: a flag takes no value
        option.metavar = " "
    if option.nargs == -1:  # files, of which typer says `list[Path]`
        option.display_type = lambda _: "<path>"
