"""What brings a package that lacks: itself, or an extra of layerbench. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import metadata

from layerbench.environment.origins import raised_here

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
# An extra for those who work on layerbench.
NOT_FOR_USERS = "test"


def advice_if_lacking(error: BaseException) -> str:
    """``torch is not installed: pip install torch``, where layerbench's own import failed so.

    Empty for any other error.
    """
    if not (isinstance(error, ModuleNotFoundError) and raised_here(error)):
        return ""
    package = what_brings(error.name or "")
    return "" if package is None else f"{error.name} is not installed: pip install {package}"


def what_brings(module: str, requirements: Iterable[str] | None = None) -> str | None:
    """What pip installs for a module that lacks, as a shell takes it; ``None`` if it is not ours.

    That is the package, if layerbench always needs it, or else the first extra that has it.

    Args:
        module: of another package, as an import names it.
        requirements: of layerbench, as its metadata has them; without them those of the installed
            one. There are none where it runs without an installation.
    """
    package = _canonical(module.partition(".")[0])
    wanted = _installed() if requirements is None else requirements
    # The package of the module `markdown_it` is markdown-it-py.
    return next(
        (source for name, source in _sources(wanted) if f"{name}-".startswith(f"{package}-")), None
    )


def _sources(requirements: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each package with what pip installs for it."""
    for text in requirements:
        name, extra = _NAME.match(text), _EXTRA.search(text)
        if name is None:
            continue
        package = _canonical(name[0])
        if extra is None:
            yield package, package
        elif extra[1] != NOT_FOR_USERS:
            yield package, f"'layerbench[{extra[1]}]'"


def _installed() -> list[str]:
    try:
        return metadata.requires("layerbench") or []
    except metadata.PackageNotFoundError:
        return []


def _canonical(name: str) -> str:
    """As package indexes compare names: https://peps.python.org/pep-0503/#normalized-names."""
    return re.sub(r"[-_.]+", "-", name).lower()
