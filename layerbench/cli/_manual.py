"""docs/cli.md: every verb with its options, as their own help has them.

python -m layerbench.cli._manual > docs/cli.md
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

from layerbench.cli import _completion, application

HEAD = """\
# Command line

Every verb and every option, as `layerbench VERB --help` says them.
`python -m layerbench.cli._manual > docs/cli.md` writes this page from the commands. A test compares
the two.

- `layerbench` is the command that an installation brings. `python -m layerbench` is the same.
- An option that a command line does not name is read from the environment. The variable of
  `--seconds` of `sweep` is `LAYERBENCH_SWEEP_SECONDS`. `LAYERBENCH_TRACEBACK` is common to all.
- The words of an option may be joined by `_` as well as by `-`.
- The exit status is 0 where all went well. 2 says that the command line, a file or the surroundings
  have to be changed; one line says what. 130 follows an interrupt. Verbs that judge have more,
  which their pages say.
- `layerbench --install-completion` adds completion to bash, zsh, fish or PowerShell. It offers
  verbs, options, and the names of models, inputs, devices and GPUs. `--show-completion` prints the
  script instead.
"""
# Stands in the help of each, and is said once for all.
COMMON = ("help", "traceback")
WIDTH = 110
ARGUMENTS, OPTIONS = "Arguments", "Options"


def manual() -> str:
    """The page, as Markdown."""
    group: Any = typer.main.get_command(application())
    parts = [HEAD, *_section((_completion.COMMAND,), group)]
    for words, command in _commands(group, (_completion.COMMAND,)):
        parts += _section(words, command)
    return "\n".join(parts)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - typer's own click
    """Every command of a group with the words that call it, in the order of the alphabet."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _section(words: tuple[str, ...], command: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own click
    name = " ".join(words)
    context = command.context_class(command, info_name=name)
    usage = " ".join((name, *command.collect_usage_pieces(context)))
    verb = " ".join(words[1:])
    yield f"## {verb or name}\n"
    yield f"```text\n{usage}\n```\n"
    yield "\n\n".join(map(_wrapped, _plain(command.help).split("\n\n"))) + "\n"
    if verb:
        yield f"[More about {verb}]({words[1]}.md).\n"
    panels: dict[str, list[str]] = {}
    for one in command.get_params(context):
        if one.name not in COMMON:
            panels.setdefault(_panel(one), []).append(_line(one, context))
    # What stands in no panel of its own comes first, as in the help.
    for panel in sorted(panels, key=lambda panel: panel not in (ARGUMENTS, OPTIONS)):
        yield f"**{panel}**\n"
        yield "\n".join(_wrapped(line, "  ") for line in panels[panel]) + "\n"


def _wrapped(text: str, indent: str = "") -> str:
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines)


def _panel(option: Any) -> str:  # noqa: ANN401 - typer's own click
    usual = OPTIONS if option.param_type_name == "option" else ARGUMENTS
    return option.rich_help_panel or usual


def _line(option: Any, context: Any) -> str:  # noqa: ANN401 - typer's own click
    """One option: its spellings, its value, what it means, and what it is without a word."""
    is_option = option.param_type_name == "option"
    value = "" if getattr(option, "is_flag", False) else _value(option, context)
    names = ", ".join([*option.opts, *option.secondary_opts]) if is_option else ""
    called = " ".join(part for part in (names, value) if part)
    return f"- `{called}`: {_plain(option.help)}{_default(option, context)}"


def _value(option: Any, context: Any) -> str:  # noqa: ANN401 - typer's own click
    unnamed = (
        option.display_type(context) if option.param_type_name == "option" else option.name.upper()
    )
    return str(option.metavar or unnamed).strip()


def _default(option: Any, context: Any) -> str:  # noqa: ANN401 - typer's own click
    shown = _shown_default(option, context)
    return f" Default: {shown}." if shown else ""


def _shown_default(option: Any, context: Any) -> str:  # noqa: ANN401 - typer's own click
    if isinstance(option.show_default, str):
        return str(option.show_default)
    value = option.get_default(context, call=False)
    if not option.show_default or value in (None, False, (), []) or callable(value):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _plain(text: str | None) -> str:
    """Help as Markdown: what looks like a tag or a variable is none."""
    return re.sub(r"([*_<])", r"\\\1", text or "")


if __name__ == "__main__":
    typer.echo(manual(), nl=False)
