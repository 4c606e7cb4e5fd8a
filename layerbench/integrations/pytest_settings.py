"""What a check measures by: its own arguments, the test's markers, then the ini file. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layerbench.errors import UsageError, at_least, is_number
from layerbench.integrations.pytest_plugin import NUMBERS
from layerbench.units import parse_percent

if TYPE_CHECKING:
    import pytest

_NAMES = ("threshold", *NUMBERS)
HOW_IT_RUNS = ("dtype", "precision", "memory_format", "mode", "compile", "cuda_graph", "ddp")
"""Of a workload, what changes its time, and a call of ``check`` cannot say."""
_LEAST = {"iterations": 1, "warmup": 0, "threads": 1, "processes": 1}


def of_check(item: pytest.Item, said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a check, by name; those that nobody has said are not among them.

    Args:
        item: the test.
        said: the check's own arguments; ``None`` for those that it does not say.

    Raises:
        UsageError: one of them, of a marker's or of the ini file's, makes no sense.
    """
    own = {name: value for name, value in said.items() if value is not None}
    return {**of_ini(item.config), **of_markers(item), **_checked("layerbench.check", own)}


def of_markers(item: pytest.Item) -> dict[str, Any]:
    """What the markers of a test, its class and its module say; the closest one counts.

    Raises:
        UsageError: there is no such argument, or no such value.
    """
    settings: dict[str, Any] = {}
    for mark in item.iter_markers("layerbench"):
        unknown = [*map(repr, mark.args), *(name for name in mark.kwargs if name not in _NAMES)]
        if unknown:
            raise UsageError(
                f"@pytest.mark.layerbench takes {', '.join(_NAMES)} by name, not {unknown[0]}"
            )
        settings = {**_checked("@pytest.mark.layerbench", mark.kwargs), **settings}
    return settings


def of_ini(config: pytest.Config) -> dict[str, Any]:
    """What the ini file says.

    Raises:
        UsageError: it makes no sense.
    """
    said: dict[str, Any] = {}
    for name in _NAMES:
        text = str(config.getini(f"layerbench_{name}")).strip()
        if not text:
            continue
        if name in NUMBERS and not (text.isascii() and text.isdigit()):
            raise UsageError(f"layerbench_{name} must be a whole number, got {text!r}")
        said[name] = int(text) if name in NUMBERS else text
    return _checked("layerbench_", said)


def _checked(where: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, each of the type and size that it may have."""
    settings: dict[str, Any] = {}
    for name, value in said.items():
        if name == "threshold":
            settings[name] = _fraction(where, value)
        else:
            settings[name] = at_least(_name(where, name), value, _LEAST[name])
    return settings


def _name(where: str, name: str) -> str:
    return f"{where}{name}" if where.endswith("_") else f"{name} of {where}"


def _fraction(where: str, value: object) -> float:
    """A threshold from ``"5%"`` or 0.05."""
    name = _name(where, "threshold")
    fraction: float | None = None
    if isinstance(value, str):
        try:
            fraction = parse_percent(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    elif is_number(value):
        fraction = float(value)  # type: ignore[arg-type]
    if fraction is None or not 0 < fraction < 1:
        raise UsageError(
            f"{name} must be above 0 % and below 100 %, such as '5%' or 0.05, got {value!r}"
        )
    return fraction
