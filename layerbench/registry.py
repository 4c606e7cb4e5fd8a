"""What is added by being there: files of a folder, and what other packages offer. Loads no torch.

Another package offers a thing by an entry point in its pyproject.toml::

    [project.entry-points."layerbench.models"]
    mine = "my_package.family:FAMILY"

The groups: ``layerbench.models`` (a `layerbench.zoo.Family`), ``layerbench.devices`` (a
`layerbench.environment.devices.DeviceType`), ``layerbench.reporters`` (a module with ``NAME``,
``SUFFIX`` and ``render``), ``layerbench.records`` (a `layerbench.records.kinds.Record`),
``layerbench.documents`` (a module with ``RECORD``, ``document`` and perhaps ``rows``),
``layerbench.verbs`` (a module with ``NAME`` and ``command``), ``layerbench.datasets`` and
``layerbench.detection_datasets`` (a source of images).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any


def modules(package: str, path: Iterable[str], *, packages: bool = True) -> Iterator[ModuleType]:
    """The modules in a package's folder; those that begin with an underscore are its own affair.

    Args:
        package: its full name.
        path: its ``__path__``.
        packages: whether folders in it count, too.
    """
    for file in pkgutil.iter_modules(path):
        if not file.name.startswith("_") and (packages or not file.ispkg):
            yield importlib.import_module(f"{package}.{file.name}")


def registered(
    package: str, path: Iterable[str], attribute: str, group: str, *, packages: bool = True
) -> list[Any]:
    """What each file of a package has under one attribute, then what other packages offer.

    Args:
        package, path, packages: as for `modules`.
        attribute: such as ``FAMILY``; files without it are passed over.
        group: of the entry points.
    """
    files = modules(package, path, packages=packages)
    own = [getattr(file, attribute) for file in files if hasattr(file, attribute)]
    return [*own, *offered(group)]


def on_first_use(module: str, *homes: str) -> tuple[Callable[[str], Any], list[str]]:
    """A module's ``__getattr__`` and ``__all__``, whose names load what they need when first used.

    Args:
        module: its full name.
        homes: ``module: name name``, by the module that defines the names.
    """
    home_of = {
        name: home
        for home, _, names in (line.partition(": ") for line in homes)
        for name in names.split()
    }

    def attribute(name: str) -> Any:  # noqa: ANN401 - a module's attribute may be anything
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    return attribute, sorted(home_of)


@functools.cache
def offered(group: str) -> tuple[Any, ...]:
    """What other packages offer; one that cannot be loaded is left out with a warning.

    Args:
        group: of their entry points, such as ``layerbench.models``.
    """
    from importlib import metadata  # takes longer than a help text may

    things = []
    for point in metadata.entry_points(group=group):
        try:
            things.append(point.load())
        except Exception as error:
            owner = point.dist.name if point.dist else "a package"
            warnings.warn(
                f"{owner} offers {point.name} for {group}, which cannot be loaded and is left out "
                f"({type(error).__name__}: {error}): {point.value}",
                stacklevel=2,
            )
    return tuple(things)
