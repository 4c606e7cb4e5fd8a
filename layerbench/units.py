"""Quantities as text: the only place that makes strings of SI values.

Digits follow the uncertainty: the last digit printed is the first significant digit of the
interval's half-width, so that a figure never looks more exact than it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from layerbench.errors import UsageError

# Without an uncertainty the number of significant digits is unknown. Four distinguish figures and
# are easy to read.
DEFAULT_DIGITS = 4
# A half-width larger than the figure would leave no digit of it; two still give its size.
LEAST_DIGITS = 2
# Beyond six digits a reader compares digits, not figures.
MOST_DIGITS = 6

# A smaller number of bytes probably lacks its unit.
FEWEST_BYTES = 2**20

NANOSECOND = 1e-9
"""In seconds: clocks count integer nanoseconds."""

_TIME_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
# Shorter times are written in seconds with decimals.
SHORT_S = 120.0
_ENERGY_UNITS = {"kJ": 1e3, "J": 1.0, "mJ": 1e-3, "µJ": 1e-6}
_LONG_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
_BYTE_UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_FLOP_UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
_COUNT_UNITS = {"G": 1e9, "M": 1e6, "k": 1e3}


def seconds(value: float, half_width: float | None = None, unit: str | None = None) -> str:
    """A time with its unit: ``560.0 ms``.

    Args:
        value: seconds.
        half_width: half the width of its interval, seconds; sets the digits.
        unit: ``s``, ``ms``, ``µs`` or ``ns``; otherwise the one that leaves 1 to 999 before
            the point.

    Raises:
        ValueError: no such unit.
    """
    if unit is not None:
        return f"{_in_unit(value, half_width, unit)} {unit}"
    if value == 0:
        return "0 s"
    for name in reversed(_TIME_UNITS):
        text = _in_unit(value, half_width, name)
        # Judged after rounding: 999.96 µs with four digits is 1.000 ms, not 1000.0 µs.
        if abs(float(text)) < 1000 or name == "s":
            break
    return f"{text} {name}"


def joules(value: float, half_width: float | None = None, unit: str | None = None) -> str:
    """An energy with its unit: ``1.82 J``.

    Args:
        value: joules.
        half_width: half the width of its interval, joules; sets the digits.
        unit: ``kJ``, ``J``, ``mJ`` or ``µJ``; otherwise the one that leaves 1 to 999 before the
            point.
    """
    if unit is not None:
        return f"{_digits(value, half_width, _ENERGY_UNITS[unit])} {unit}"
    if value == 0:
        return "0 J"
    for name, scale in reversed(_ENERGY_UNITS.items()):
        text = _digits(value, half_width, scale)
        if abs(float(text)) < 1000 or name == "kJ":
            break
    return f"{text} {name}"


def watts(value: float) -> str:
    """A power, three digits: ``48.2 W``."""
    return f"{_significant(value, 3)} W"


def milliseconds(value: float, half_width: float | None = None) -> str:
    """A time in milliseconds without the unit, for a column that names it: ``0.1234``."""
    return _in_unit(value, half_width, "ms")


def uncertain(value: float, half_width: float) -> str:
    """Milliseconds with their uncertainty in the last digits: ``1.82(4)`` is 1.82 ± 0.04.

    Args:
        value: seconds.
        half_width: half the width of its interval, seconds; sets the digits.

    Source of the notation: JCGM 100:2008 (GUM), 7.2.2.
    """
    text = milliseconds(value, half_width)
    if not 0 < half_width < math.inf:
        return text
    decimals = len(text.partition(".")[2])
    return f"{text}({max(round(half_width / _TIME_UNITS['ms'] * 10**decimals), 1)})"


def duration(value: float) -> str:
    """A longer time in the two units that matter: ``3 d 04 h``, ``2 h 05 min``, ``95.20 s``.

    Args:
        value: seconds.
    """
    if value < SHORT_S:
        return seconds(value)
    for (large, size), (small, part) in pairwise(_LONG_UNITS.items()):
        # In whole small units, so that 59 min 59.9 s is an hour and not 60 min.
        units, rest = divmod(round(value / part), round(size / part))
        if value >= size or (units and rest == 0 and value >= size - part / 2):
            return f"{units} {large} {rest:02d} {small}"
    raise AssertionError(value)


def per_second(value: float) -> str:
    """A rate such as images per second: three digits, or all before the point: ``1.79``."""
    return _significant(value, 3)


def bytes_(value: float) -> str:
    """A number of bytes in binary units, three digits: ``1.50 GiB``, ``512 B``."""
    return _with_prefix(value, _BYTE_UNITS) or f"{value:.0f} B"


def mebibytes(value: float, unit: bool = True) -> str:
    """Bytes in MiB with two digits after the point: ``37.58 MiB``; of columns, without the unit."""
    text = f"{value / 2**20:,.2f}"
    return f"{text} MiB" if unit else text


def flops(value: int) -> str:
    """FLOPs of one forward: ``2.13 GFLOPs``."""
    return _with_prefix(value, _FLOP_UNITS, "FLOPs") or f"{value:.0f} FLOPs"


def macs(value: int) -> str:
    """Multiply-adds of one forward: ``1.06 GMACs``."""
    return _with_prefix(value, _FLOP_UNITS, "MACs") or f"{value:.0f} MACs"


def flop_rate(value: float, digits: int = 3) -> str:
    """FLOPs a second: ``77.2 GFLOP/s``."""
    return _with_prefix(value, _FLOP_UNITS, "FLOP/s", digits) or f"{value:.0f} FLOP/s"


def byte_rate(value: float, digits: int = 3) -> str:
    """Bytes a second, with decimal prefixes as data sheets have them: ``26.6 GB/s``."""
    return _with_prefix(value, _FLOP_UNITS, "B/s", digits) or f"{value:.0f} B/s"


def count(value: int, short: bool = False) -> str:
    """A whole number: ``3,504,872``; ``short``, three digits: ``3.50 M``."""
    return (short and _with_prefix(value, _COUNT_UNITS)) or f"{value:,}"


def _with_prefix(value: float, sizes: Mapping[str, float], unit: str = "", digits: int = 3) -> str:
    """So many digits with the largest prefix that leaves one before the point; else empty."""
    for name, size in sizes.items():
        # A value that its digits round up to the next prefix has that one.
        if abs(value) >= size * (1 - 0.5 * 10**-digits):
            return f"{_significant(value / size, digits)} {name}{unit}"
    return ""


def frequency(hertz: float) -> str:
    """A clock's: ``1980 MHz``."""
    return f"{hertz / 1e6:.0f} MHz"


def percent(fraction: float, digits: int = 0, beyond: float | None = None) -> str:
    """A fraction in per cent: ``14 %``.

    Args:
        fraction: 0.14 for 14 %.
        digits: after the point.
        beyond: a limit the fraction passed: digits are added until the text shows that it did
            (``10.03 %`` beyond 10 %).
    """
    while (
        beyond is not None
        and digits < MOST_DIGITS
        and round(fraction * 100, digits) == round(beyond * 100, digits)
    ):
        digits += 1
    return f"{_fixed(fraction * 100, digits)} %"


def ratio(value: float, digits: int = 3) -> str:
    """A ratio without unit: ``1.003``."""
    return _fixed(value, digits)


def by_x(sizes: Iterable[int]) -> str:
    """Sizes as the command line reads them: ``8x3x224x224``."""
    return "x".join(map(str, sizes))


def shape(sizes: Sequence[int]) -> str:
    """A tensor's shape: ``[1, 24, 256, 512]``."""
    return f"[{', '.join(str(size) for size in sizes)}]"


def parse_percent(text: str) -> float:
    """A fraction from 0 on and below 1 from ``1%``, ``1 %`` or ``0.01``.

    Raises:
        UsageError: anything else, also 100 % and beyond.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text, flags=re.ASCII)
    value = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    if not 0 <= value < 1:
        raise UsageError(
            f"cannot read {text!r} as a fraction: write a percentage from 0% on and below 100%, "
            "such as 1% or 0.01"
        )
    return value


def parse_count(text: str, unit: str = "") -> int:
    """A whole number from ``25,557,032`` or ``25.6 M``.

    Args:
        text: a number, with or without a prefix; ``8.2 GFLOPs`` if that is the unit.
        unit: in the plural, which may stand behind it.

    Raises:
        UsageError: anything else.
    """
    spelled = rf"(?:{unit}?)?\s*" if unit else ""
    match = re.fullmatch(
        rf"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)\s*{spelled}",
        _ungrouped(text),
        flags=re.ASCII | re.IGNORECASE,
    )
    if match is None:
        such = f"25557032, 25.6 M or 8.2 G{unit}"
        raise UsageError(f"cannot read {text!r} as a number: write {such}")
    prefix = match[2].upper().replace("K", "k")
    return round(float(match[1]) * _FLOP_UNITS.get(prefix, 1))


def _ungrouped(text: str) -> str:
    """Without what parts the thousands of ``25,557,032`` and ``25_557_032``."""
    return re.sub(r"(?<=\d)[,_](?=\d{3})", "", text)


def parse_bytes(text: str) -> int:
    """Bytes from ``24GiB``, ``512 MiB``, ``16GB`` (10**9) or a bare number of bytes.

    Raises:
        UsageError: anything else, also 0; a bare number that is too small for bytes.
    """
    match = re.fullmatch(
        r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?i?b?)\s*", _ungrouped(text.lower()), re.ASCII
    )
    sizes = {"": 1, "b": 1}
    for power, prefix in enumerate("kmgt", start=1):
        sizes |= {f"{prefix}ib": 2 ** (10 * power), f"{prefix}i": 2 ** (10 * power)}
        sizes |= {f"{prefix}b": 10 ** (3 * power), prefix: 2 ** (10 * power)}
    value = float(match[1]) * sizes.get(match[2], 0) if match else 0.0
    if match is not None and not match[2]:
        check_bytes(text, value)
    if not 1 <= value < 2**63:
        raise UsageError(f"cannot read {text!r} as a size: write 24GiB, 512MiB or 16GB")
    return int(value)


def check_bytes(said: object, value: float) -> None:
    """Refuse a number of bytes that is too small for a memory: its unit is missing.

    Raises:
        UsageError: it is below `FEWEST_BYTES`.
    """
    if value < FEWEST_BYTES:
        raise UsageError(f"{said} is a number of bytes without its unit: did you mean {said}GiB?")


def _in_unit(value: float, half_width: float | None, unit: str) -> str:
    """The value as a number of ``unit``, with the digits its uncertainty allows."""
    if unit not in _TIME_UNITS:
        raise ValueError(f"no unit {unit!r}; there are {', '.join(_TIME_UNITS)}")
    return _digits(value, half_width, _TIME_UNITS[unit])


def _digits(value: float, half_width: float | None, scale: float) -> str:
    """The value in parts of ``scale``, with the digits its uncertainty allows."""
    if half_width is None or not 0 < half_width < math.inf:
        return _significant(value / scale, DEFAULT_DIGITS)
    return _to_uncertainty(value / scale, half_width / scale)


def _to_uncertainty(value: float, half_width: float) -> str:
    """Digits as far as the half-width's first one, within bounds."""
    magnitude = _magnitude(value)
    decimals = -_magnitude(half_width)
    least, most = LEAST_DIGITS - 1 - magnitude, MOST_DIGITS - 1 - magnitude
    return _fixed(value, min(max(decimals, least), most))


def _significant(value: float, digits: int) -> str:
    """Text with so many significant digits, or more before the point."""
    return _fixed(value, digits - 1 - _magnitude(value, digits))


def _magnitude(value: float, digits: int = MOST_DIGITS) -> int:
    """The power of ten of the first digit once rounded to ``digits``; 0 for 0.

    Formatting rounds correctly where a logarithm does not: 0.001 is 1e-3, not 9.99e-4.
    """
    if not math.isfinite(value):
        return 0
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    """Fixed-point text; digits before the point are never rounded away, and -0 is 0."""
    text = f"{value:.{max(decimals, 0)}f}"
    return text.lstrip("-") if float(text) == 0 else text
