"""Command lines: one thin file a verb.

A verb's file exposes ``NAME`` and ``command``, a function whose parameters are the options
(`layerbench.cli._generated`), and imports no torch before it runs, so that ``--help`` answers at
once. A name of two words is a verb and what it is done to: ``estimate training-time``.

What a command line does not say is read from the environment: ``--seconds`` of ``sweep`` from
``LAYERBENCH_SWEEP_SECONDS``. Every verb has ``--traceback`` besides, or ``LAYERBENCH_TRACEBACK``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import platform
import sys
from collections.abc import Callable
from functools import wraps
from importlib import metadata
from types import ModuleType
from typing import Annotated, Any, NoReturn

try:
    import typer
except ModuleNotFoundError as missing:
    # The first package that a command needs: a traceback would not say what to do.
    raise SystemExit(
        f"error: {sys.executable} has no {missing.name}: activate the environment that a script "
        "has made (. .venv/bin/activate), or pip install -r requirements.txt"
    ) from None

from layerbench._version import __version__
from layerbench.cli import _completion, _endings, _generated, _help, _interrupts, _output
from layerbench.environment.notices import notices_kept_back
from layerbench.registry import modules, offered

# Before a verb and an option's name, in capitals: click's ``auto_envvar_prefix``.
ENVIRONMENT = "LAYERBENCH"
GROUPS = {"estimate": "Say beforehand what something will take."}


def verbs() -> dict[str, ModuleType]:
    """Every verb by name: other packages', and the files of this folder that name one."""
    files = [file for file in modules(__name__, __path__) if hasattr(file, "NAME")]
    return {file.NAME: file for file in (*offered("layerbench.verbs"), *files)}


def main() -> NoReturn:
    """The command ``layerbench VERB ...``."""
    _invoke(application(_completion.words()), _completion.called())


def application(words: list[str] | None = None) -> typer.Typer:
    """Every verb as one command.

    Args:
        words: of a command line: only the verb that they name has its options; ``None``: all have.
    """
    app = _application(ENVIRONMENT, add_completion=True)
    app.callback()(_root)
    groups: dict[str, typer.Typer] = {}
    for name, file in sorted((verbs() if words is None else _verbs_of(words)).items()):
        group, _, rest = name.partition(" ")
        if rest and group not in groups:
            groups[group] = _application(f"{ENVIRONMENT}_{group.upper()}")
            groups[group].callback()(_about)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        owner = groups[group] if rest else app
        # A list of verbs shows no options: they are made for the verb of the command line alone.
        meant = words is None or words[: len(name.split())] == name.split()
        command = _offered(file) if meant else _about
        about = _reflowed(file.command.__doc__)
        owner.command(rest or name, help=about, cls=_help.Command)(command)
    return app


def _reflowed(text: str | None) -> str:
    """Paragraphs of one line each: the terminal's width parts them, and not the source's."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _verbs_of(words: list[str]) -> dict[str, ModuleType]:
    """The verb that a command line names, if one of our files has it; else all verbs."""
    for name in (" ".join(words[:2]), *words[:1]):
        stem = name.replace("-", "_").replace(" ", "_")
        own = stem.isidentifier() and not stem.startswith("_")
        if own and importlib.util.find_spec(f"{__name__}.{stem}") is not None:
            file = importlib.import_module(f"{__name__}.{stem}")
            if getattr(file, "NAME", None) == name:
                return {name: file}
    return verbs()


def run(verb: str) -> NoReturn:
    """One verb as a script of its own: ``python timer.py ...``."""
    file = importlib.import_module(f"{__name__}.{verb}")
    app = _application(f"{ENVIRONMENT}_{verb.upper()}")
    about = _reflowed(file.command.__doc__)
    app.command(help=about, cls=_help.Command)(_offered(file))
    _invoke(app)


def arguments_of(verb: str, words: list[str]) -> tuple[dict[str, Any], set[str]]:
    """Read words as a verb's command line, without running it.

    Returns:
        what the verb's function would get, and the names of the options that were said.

    Raises:
        click.UsageError: as the verb's own command line would.
        UsageError: as above.
    """
    command = importlib.import_module(f"{__name__}.{verb}").command
    app = _application()
    app.command(cls=_help.Command)(_generated.generated(command))
    context: Any = typer.main.get_command(app).make_context(verb, words)
    said = _generated.said_in(context)
    return _generated.arguments(_generated.parts_of(command), context.params, said), set(said)


def _offered(file: ModuleType) -> Callable[..., Any]:
    """A verb as the command line runs it."""
    words = file.NAME.replace("-", " ").upper().split()
    return _with_traceback(_generated.generated(file.command, "_".join((ENVIRONMENT, *words))))


def _with_traceback(command: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with one more option, which chooses how its errors are shown."""

    @wraps(command)
    def verb(*, traceback: bool, **values: Any) -> Any:  # noqa: ANN401 - what the verb returns
        _endings.tracebacks_wanted(traceback)
        try:
            return command(**values)
        except KeyboardInterrupt as error:
            raise _endings.Interrupted from error

    option = typer.Option(
        "--traceback",
        envvar=f"{ENVIRONMENT}_TRACEBACK",
        help="Show the traceback of an error.",
        metavar=" ",
    )
    shown = inspect.Parameter(
        "traceback",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, option],
    )
    signature = inspect.signature(command, eval_str=True)
    parameters = [*signature.parameters.values(), shown]
    vars(verb)["__signature__"] = signature.replace(parameters=parameters)
    return verb


def _about() -> None:
    """How long each layer of a PyTorch vision model takes, and whether to trust the number.

    Options not given are read from the environment: LAYERBENCH_SWEEP_SECONDS for sweep's --seconds.
    """


def _versions(wanted: bool) -> None:
    """Say what is installed, and end.

    Raises:
        typer.Exit: it was said.
    """
    if wanted:
        torch = _installed("torch")
        typer.echo(f"layerbench {__version__} (torch {torch}, Python {platform.python_version()})")
        raise typer.Exit


def _installed(package: str) -> str:
    """A package's version, without loading it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of layerbench, torch and Python.",
            is_eager=True,
            callback=_versions,
        ),
    ] = False,
) -> None:
    pass


_root.__doc__ = _about.__doc__


def _application(environment: str | None = None, *, add_completion: bool = False) -> typer.Typer:
    """With options from the variables that begin like this; ``None`` reads none."""
    settings: dict[str, Any] = {
        "help_option_names": ["-h", "--help"],
        # The words of an option may be joined either way.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    }
    if environment is not None:
        settings["auto_envvar_prefix"] = environment
    return typer.Typer(
        cls=_help.Group,
        add_completion=add_completion,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=settings,
    )


def _invoke(app: typer.Typer, called: str | None = None) -> NoReturn:
    """Run and leave with the status that the outcome deserves; never with a traceback of ours.

    Args:
        app: the command.
        called: what the user calls it; ``None`` as it was started.
    """
    command: Any = typer.main.get_command(app)
    _output.nothing_closed()
    _output.every_letter_written()
    with notices_kept_back(), _interrupts.heard() as interrupts:
        try:
            status: Any = command(prog_name=called, standalone_mode=False)
            sys.stdout.flush()
        except BaseException as error:
            interrupts.end()
            # Where one waits, what went wrong meanwhile is of no interest.
            sys.exit(_endings.end(_endings.Interrupted() if interrupts.waiting else error))
    sys.exit(status if isinstance(status, int) else 0)
