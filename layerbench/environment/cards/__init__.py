"""GPUs that predictions are made for without them: those of data sheets, and of a user's file.

The table is cards.toml beside this file. A file of one's own has the same keys
(`layerbench devices --describe` writes them). Loads no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerbench.errors import UsageError, did_you_mean, first_line
from layerbench.records.card import Card, plain_name
from layerbench.records.options import complaint

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"

# So far are figures that `layerbench devices --describe` works out from those of data sheets.
_AS_DESCRIBED = 0.1

CardChoice = str | os.PathLike[str] | Card
"""How a card is said: its name, a file that describes it, or the card itself."""


@cache
def known() -> tuple[Card, ...]:
    """The cards of data sheets."""
    table = tomllib.loads((files(__name__) / "cards.toml").read_text(encoding="utf-8"))
    return tuple(Card.model_validate({"name": name, **row}) for name, row in table.items())


def find(name: str) -> Card | None:
    """The card of a name, a title or an alias, however it is spelled; ``None`` for no card's."""
    return next((card for card in known() if card.is_named(name)), None)


def sheet_of(card: Card) -> str:
    """The name of the data sheet's card that a card is; empty where its figures are others.

    What was learned of a card, or checked, holds for a file of its name only where it describes it.
    """
    # `layerbench devices --describe` names a card as CUDA does.
    sheet = find(card.name)
    return sheet.name if sheet is not None and _agree(card, sheet) else ""


def _agree(card: Card, sheet: Card) -> bool:
    names = ("multiprocessors", "clock_hz", "memory_bytes", "bandwidth", "l2_bytes")
    pairs = [(getattr(card, name), getattr(sheet, name)) for name in names]
    pairs += [(card.flops[name], sheet.flops[name]) for name in card.flops if name in sheet.flops]
    same = card.capability == sheet.capability
    return same and all(abs(one / other - 1) <= _AS_DESCRIBED for one, other in pairs)


def get(name: CardChoice) -> Card:
    """The card that is meant.

    Args:
        name: as for `find`, the path of a file that describes one, or a card. A text is a path
            where it ends in ``.toml``.

    Raises:
        UsageError: no such card, or a file that describes none; says what to do.
    """
    if isinstance(name, Card):
        return _checked(name)
    if isinstance(name, os.PathLike):
        return _of_file(Path(name))
    if not isinstance(name, str):
        raise UsageError(
            f"a GPU is said by its name, by a file that describes it, or as a Card, not {name!r}"
        )
    if name.lower().endswith(SUFFIX):
        return _of_file(Path(name))
    card = find(name)
    if card is not None:
        return card
    if os.path.isfile(name):  # a Path refuses long texts
        raise UsageError(f"{name}: the name of a file that describes a card ends in {SUFFIX}")
    raise UsageError(
        f"{unknown(name)}: `layerbench devices` lists those that are, and `layerbench devices "
        "--describe` writes a file for one that you have, which is given as --device FILE.toml"
    )


def each_once(names: CardChoice | Iterable[CardChoice]) -> tuple[Card, ...]:
    """The cards that are meant, in their order; one alone needs no list.

    Raises:
        UsageError: as `get`, or there is none, or two cards of one name have different figures.
    """
    several = (names,) if isinstance(names, str | os.PathLike | Card) else names
    found: dict[str, Card] = {}
    for card in map(get, several):
        if found.setdefault(card.name, card) != card:
            raise UsageError(
                f"two cards with different figures are both named {card.name}: give one of them "
                "another name in its file"
            )
    if not found:
        raise UsageError("say one device at least: `layerbench devices` lists them")
    return tuple(found.values())


def unknown(name: str) -> str:
    """That no card has this name, with those that have one like it."""
    close = did_you_mean(plain_name(name), [one.name for one in known()], 3)
    return f"no GPU {name!r} is known{f' ({close})' if close else ''}"


def _checked(card: Card) -> Card:
    """The card; a copy that pydantic made with other figures was not looked at."""
    try:
        return Card.model_validate(dict(card))
    except ValidationError as error:
        raise UsageError(f"{card.name}: {_what_is_wrong(error)}") from None


def _of_file(path: Path) -> Card:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of huge numbers
        raise UsageError(f"{path}: no description of a card: {first_line(error)}") from None
    rows = {name: row for name, row in table.items() if isinstance(row, dict)}
    if "title" in table:
        rows = {path.stem: table}
    if len(rows) != 1:
        raise UsageError(
            f"{path}: {len(rows)} cards where one is wanted: `layerbench devices --describe` "
            "writes such a file"
        )
    ((name, row),) = rows.items()
    try:
        return Card.model_validate({"name": name, **row})
    except ValidationError as error:
        raise UsageError(f"{path}: {_what_is_wrong(error)}") from None


def _what_is_wrong(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "extra_forbidden":
        close = did_you_mean(key, Card.model_fields)
        return f"{key} is no key of a card{f' ({close})' if close else ''}"
    return complaint(error, str)
