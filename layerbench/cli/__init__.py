"""Command lines: one thin file a verb.

A verb's file exposes ``NAME`` and ``command``, a function with typer's annotations, and imports
nothing but typer before it runs, so that ``--help`` answers at once. A name of two words is a verb
and what it is done to: ``estimate training-time``.

What a command line does not say is read from the environment: ``--seconds`` of ``sweep`` from
``LAYERBENCH_SWEEP_SECONDS``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from types import ModuleType
from typing import Any, NoReturn

import click
import typer

from layerbench.errors import LayerbenchError

INTERRUPTED = 130
# Before a verb and an option's name, in capitals: click's ``auto_envvar_prefix``.
ENVIRONMENT = "LAYERBENCH"
GROUPS = {"estimate": "Say beforehand what something will take."}


def verbs() -> dict[str, ModuleType]:
    """Every verb by name: the files of this folder that name one."""
    files = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    )
    return {file.NAME: file for file in files if hasattr(file, "NAME")}


def main() -> NoReturn:
    """The command ``layerbench VERB ...``."""
    app = _application(ENVIRONMENT)
    app.callback()(_about)
    groups: dict[str, typer.Typer] = {}
    for name, file in sorted(_asked_for(sys.argv[1:]).items()):
        group, _, rest = name.partition(" ")
        if rest and group not in groups:
            groups[group] = _application(f"{ENVIRONMENT}_{group.upper()}")
            groups[group].callback()(_about)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        owner = groups[group] if rest else app
        owner.command(rest or name, help=file.command.__doc__)(file.command)
    _invoke(app)


def _asked_for(words: list[str]) -> dict[str, ModuleType]:
    """The verb of a command line, if its file is called as the verb is; else all verbs."""
    stem = words[0].replace("-", "_") if words else ""
    named = stem.isidentifier() and not stem.startswith("_")
    if named and importlib.util.find_spec(f"{__name__}.{stem}") is not None:
        file = importlib.import_module(f"{__name__}.{stem}")
        if getattr(file, "NAME", None) == words[0]:
            return {words[0]: file}
    return verbs()


def run(verb: str) -> NoReturn:
    """One verb as a script of its own: ``python timer.py ...``."""
    file = importlib.import_module(f"{__name__}.{verb}")
    app = _application(f"{ENVIRONMENT}_{verb.upper()}")
    app.command(help=file.command.__doc__)(file.command)
    _invoke(app)


def options_of(verb: str, words: list[str]) -> tuple[dict[str, Any], set[str]]:
    """Read words as a verb's command line, without running it.

    Returns:
        the value of every option, and the names of those that were given.

    Raises:
        click.UsageError: as the verb's own command line would.
    """
    file = importlib.import_module(f"{__name__}.{verb}")
    app = _application()
    app.command()(file.command)
    context = typer.main.get_command(app).make_context(verb, words)
    given = {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    return dict(context.params), given


def _about() -> None:
    """How long each layer of a PyTorch vision model takes, and whether to trust the number.

    Options not given are read from the environment: LAYERBENCH_SWEEP_SECONDS for sweep's --seconds.
    """


def _application(environment: str | None = None) -> typer.Typer:
    """With options from the variables that begin like this; ``None`` reads none."""
    settings: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
    if environment is not None:
        settings["auto_envvar_prefix"] = environment
    return typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=settings,
    )


def _variables_unsaid(command: Any) -> None:  # noqa: ANN401 - typer's own copy of click
    """Keep each option's variable out of its help, where it would only repeat the name."""
    for option in command.params:
        option.show_envvar = False
    for further in getattr(command, "commands", {}).values():
        _variables_unsaid(further)


def _invoke(app: typer.Typer) -> NoReturn:
    """Run and leave with the status that the outcome deserves; never with a traceback of ours."""
    command: Any = typer.main.get_command(app)
    _variables_unsaid(command)
    try:
        status: Any = command(standalone_mode=False)
    except LayerbenchError as error:
        _complain(f"error: {_one_line(error)}")
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, click.exceptions.Abort, typer.Abort):
        _complain("interrupted: what was being written is whole or as it was")
        sys.exit(INTERRUPTED)
    except Exception as error:
        # typer brings its own copy of click, so usage errors are known by what they can do.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if code is None:
            raise
        if show is not None:
            show()
        sys.exit(code)
    sys.exit(status if isinstance(status, int) else 0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _complain(text: str) -> None:
    print(text, file=sys.stderr)
