"""What a shell offers after TAB: verbs, options and the values that are known without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

COMMAND = "layerbench"
# As typer names it: the shell's script sets it where it asks.
VARIABLE = f"_{COMMAND.upper()}_COMPLETE"
OPTIONS = ("--install-completion", "--show-completion")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")

Values = Callable[[str], list[str]]


def asked() -> bool:
    """Whether this process was started by a shell that wants to know what may follow."""
    return bool(os.environ.get(VARIABLE))


def words() -> list[str]:
    """The words after the command, of the line that runs or of the one that a shell completes.

    The word that is being written is among them.
    """
    if not asked():
        return sys.argv[1:]
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def called() -> str | None:
    """The command that a shell completes; ``None`` where the command line is about something else.

    ``python -m layerbench`` is no command that a shell could complete.
    """
    about = any(word.partition("=")[0] in OPTIONS for word in words())
    return COMMAND if asked() or about else None


def values_of(name: str, metavar: str | None, choices: Sequence[str]) -> Values | None:
    """What completes an option's value; ``None`` leaves it to the shell, which knows files.

    Args:
        name: of the option.
        metavar: what stands for its value in the help.
        choices: all that it may be; empty if that is not known.
    """
    known = (lambda: choices) if choices else _known(name, metavar or "")
    if known is None:
        return None
    several = metavar in ("LIST", "CARDS", "DETECTORS")

    def completed(incomplete: str) -> list[str]:
        return (_last_of if several else _beginning)(incomplete, known())

    return completed


def _known(name: str, metavar: str) -> Callable[[], Sequence[str]] | None:
    return _KNOWN.get((name, metavar.removesuffix("..."))) or _KNOWN.get((name, ""))


def _beginning(begun: str, values: Sequence[str]) -> list[str]:
    return [value for value in values if value.startswith(begun)]


def _last_of(begun: str, values: Sequence[str]) -> list[str]:
    """The same for the last of several values with commas."""
    before, comma, last = begun.rpartition(",")
    return [f"{before}{comma}{value}" for value in _beginning(last, values)]


def models(incomplete: str) -> list[str]:
    """Names of models, for the argument of a verb."""
    return _beginning(incomplete, _models())


def inputs(incomplete: str) -> list[str]:
    """Names of inputs, for the argument of a verb."""
    return _beginning(incomplete, _inputs())


def _models() -> tuple[str, ...]:
    from layerbench.zoo.listing import torchvision_names

    return torchvision_names()


def _detectors() -> tuple[str, ...]:
    from layerbench.zoo.listing import torchvision_names

    return torchvision_names("detection")


def _inputs() -> tuple[str, ...]:
    from layerbench.zoo.inputs import NAMED

    return tuple(NAMED)


def _devices() -> tuple[str, ...]:
    return DEVICES


def _cards() -> tuple[str, ...]:
    from layerbench.environment import cards

    return tuple(card.name for card in cards.known())


def _devices_and_cards() -> tuple[str, ...]:
    return (*_devices(), *_cards())


# By the name of an option, and what stands for its value where one name means several things.
_KNOWN: dict[tuple[str, str], Callable[[], Sequence[str]]] = {
    ("model", "SPEC"): _models,
    ("models", "LIST"): _models,
    ("model", "DETECTOR"): _detectors,
    ("models", "DETECTORS"): _detectors,
    ("input", "NAME|SHAPE"): _inputs,
    ("device", ""): _devices,
    ("device", "CARDS"): _cards,
    ("device", "DEVICE|CARD"): _devices_and_cards,
}
