"""The kernels of each row, for its details."""

from __future__ import annotations

from collections.abc import Mapping

from layerbench.analysis.kernels import row_of, share, short_name
from layerbench.records.bundle import Bundle
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.schema import Kernels


def kernels(bundle: Bundle, numbers: Mapping[str, int]) -> Kernels | None:
    """What an accelerator ran for the rows; ``None`` where nobody saw it.

    Args:
        bundle: the records.
        numbers: of the rows, by path.
    """
    profile = bundle.profile
    if profile is None or not profile.kernels:
        return None
    names = {name: at for at, name in enumerate(dict.fromkeys(k.name for k in profile.kernels))}
    return Kernels(
        names=tuple(names),
        labels=tuple(map(short_name, names)),
        entries=tuple(
            (
                numbers.get(row_of(kernel, numbers), 0),
                names[kernel.name],
                kernel.function,
                kernel.calls,
                rounded(kernel.time.median),
                rounded(share(kernel, profile)),
            )
            for kernel in profile.kernels
        ),
    )
