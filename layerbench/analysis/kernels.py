"""The kernels of a profile: whose they are, and their names in a narrow column. No torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

from layerbench.analysis.launching import Timed, busy_s
from layerbench.analysis.portions import part_of
from layerbench.records.compilation import KernelPart
from layerbench.records.timing import KernelRow, Profile
from layerbench.records.training_step import StepKernelRow, TrainingProfile
from layerbench.text import beginning

SHORT = 48
"""Characters of a kernel's short name."""


def parts_of(kernel: KernelRow) -> tuple[KernelRow | KernelPart, ...]:
    """The layers in a kernel, the largest share first; where only one is known, the kernel."""
    return kernel.layers or (kernel,)


def share_of(part: KernelRow | KernelPart) -> float:
    """Of its kernel's time, that of one of `parts_of`."""
    return part.share if isinstance(part, KernelPart) else 1.0


def row_of(kernel: KernelRow | KernelPart, rows: Collection[str]) -> str:
    """The path of the row that ran a kernel: the function's, where it has a row, or the module's.

    Args:
        kernel: of a record, or a layer in one.
        rows: paths of the record's rows.
    """
    name = f"{kernel.function}()"
    function = f"{kernel.module}.{name}" if kernel.module else name
    return function if kernel.function and function in rows else kernel.module


def own_kernels(record: Profile) -> Mapping[str, int] | None:
    """How many kernels each row ran itself in one forward; ``None`` where nobody saw them.

    A function's are not its module's, too.
    """
    if not record.kernels:
        return None
    rows = {row.path for row in record.layers}
    numbers: Counter[str] = Counter()
    for kernel in record.kernels:
        for path in {row_of(part, rows) for part in parts_of(kernel)}:
            numbers[path] += kernel.calls
    return numbers


def own_step_kernels(record: TrainingProfile) -> Mapping[str, int]:
    """How many kernels each module ran itself, forward and backward; empty where nobody saw them.

    Those of the backward that belong to no module have the model's path, and are not counted.
    """
    whole = next((row.kernels for row in record.rows), None)
    if whole is None:
        return {}
    numbers = Counter(dict.fromkeys((row.path for row in record.rows), 0))
    for kernel in record.kernels:
        if kernel.phase in ("forward", "backward") and kernel.module:
            numbers[kernel.module] += kernel.calls
    numbers[""] = max(whole - sum(numbers.values()), 0)
    return numbers


def launched_by(kernel: KernelRow) -> str:
    """The operator; of a training step with the phase in which it ran."""
    if not isinstance(kernel, StepKernelRow):
        return kernel.function
    return f"{kernel.phase}: {kernel.function}" if kernel.function else kernel.phase


def share(kernel: KernelRow, record: Timed) -> float:
    """The part of the time in which the device worked, by means."""
    return part_of(kernel.time.mean, busy_s(record))


# --- names ---------------------------------------------------------------------------------

_NAMESPACE = re.compile(r"(?:\(anonymous namespace\)|\{[^{}]*\}|\b[A-Za-z_]\w*)::")
_RETURNS = re.compile(r"^(?:void|std::enable_if<.*?>::type)\s+")


def short_name(name: str, most: int = SHORT) -> str:
    """A kernel's name without its return type, parameters and namespaces, and then cut.

    What a compiler makes of a template is longer than a screen; names that libraries give, and
    those of copies and fills, are left as they are.

    Args:
        name: as the device's compiler made it.
        most: characters of the short one.

    Example:
        >>> short_name("void at::native::add<float, at::detail::Array<char*, 3> >(int, float)")
        'add<float, Array<char*, 3>>'
        >>> short_name("Memcpy DtoD (Device -> Device)")
        'Memcpy DtoD (Device -> Device)'
    """
    if _ESCAPED in name:  # as Markdown has it
        return short_name(name.replace(_ESCAPED, "<"), most).replace("<", _ESCAPED)
    # A name from a file may be of any length, and only its beginning can be seen.
    short = _without_parameters(_RETURNS.sub("", name[:_MOST_READ]))
    short = _NAMESPACE.sub("", short).replace("> >", ">>").strip()
    # Of a template the beginning says what it does, of a library's name the end how.
    if len(short) <= most or "<" in short:
        return beginning(short, most)
    kept = (most - 1) * 2 // 3
    return f"{short[:kept]}…{short[kept + 1 - most :]}"


_MOST_READ = 4096
_ESCAPED = r"\x3c"


def _without_parameters(name: str) -> str:
    """A function's name less its parameters, which stand in brackets right behind it."""
    depth = 0
    for at, letter in enumerate(name):
        if letter in "<>":
            depth += 1 if letter == "<" else -1
        elif (
            letter == "(" and depth <= 0 and at and (name[at - 1].isalnum() or name[at - 1] in "_>")
        ):
            return name[:at]
    return name
