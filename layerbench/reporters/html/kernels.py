"""The kernels of each row, for its details."""

from __future__ import annotations

from collections.abc import Mapping

from layerbench.analysis.kernels import launched_by, parts_of, row_of, share, share_of, short_name
from layerbench.records.bundle import Bundle
from layerbench.reporters.html.metrics import rounded
from layerbench.reporters.html.schema import Kernels


def kernels(bundle: Bundle, numbers: Mapping[str, int]) -> Kernels | None:
    """What an accelerator ran for the rows; ``None`` where nobody saw it.

    Args:
        bundle: the records.
        numbers: of the rows, by path.
    """
    record = next((one for one in (bundle.profile, bundle.training) if one and one.kernels), None)
    if record is None:
        return None
    names = {name: at for at, name in enumerate(dict.fromkeys(k.name for k in record.kernels))}
    return Kernels(
        names=tuple(names),
        labels=tuple(map(short_name, names)),
        entries=tuple(
            (
                numbers.get(row_of(part, numbers), 0),
                names[kernel.name],
                launched_by(kernel) if part is kernel else part.function,
                kernel.calls,
                rounded(kernel.time.median * share_of(part)),
                rounded(share(kernel, record) * share_of(part)),
            )
            for kernel in record.kernels
            for part in parts_of(kernel)
        ),
    )
