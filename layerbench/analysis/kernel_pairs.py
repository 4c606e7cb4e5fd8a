"""Which kernels of two records stand beside each other, or beside which layers. No torch.

Kernels of two records are matched by name and layers. Beside a model that has no kernels, a kernel
of compiled code stands for the layers that it was made of (docs/compare.md has the rule).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from layerbench.analysis.kernels import parts_of, row_of, share_of
from layerbench.records.comparison import Beside, Kernels
from layerbench.records.compilation import KernelPart
from layerbench.records.timing import KernelRow, LayerRow, Profile
from layerbench.units import percent, seconds

Side = KernelRow | tuple[Beside, ...]
"""A kernel; of a model without kernels the rows whose own times stand for it."""


@dataclass(frozen=True)
class KernelPair:
    """A kernel, and what stands beside it.

    Attributes:
        kernel: the contender's, or that of the only side with kernels.
        before, after: what either side has.
        note: such as another number of calls.
    """

    kernel: KernelRow
    before: Side
    after: Side
    note: str = ""

    @property
    def beside(self) -> tuple[Beside, ...]:
        """The rows of the side without kernels; empty where both have them."""
        return next((s for s in (self.before, self.after) if isinstance(s, tuple)), ())


@dataclass(frozen=True)
class KernelPairs:
    """All of two records.

    Attributes:
        how: what stands beside the kernels; ``None`` where there is nothing to compare.
        pairs: in the order of the code where it is known, else the longest first.
        added, missing: kernels that only the contender, or only the baseline, has.
        notes: what a reader should know.
    """

    how: Kernels | None = None
    pairs: tuple[KernelPair, ...] = ()
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def kernel_pairs(baseline: Profile, contender: Profile) -> KernelPairs:
    """What of the kernels can be compared."""
    compiled = [_is_compiled(record) for record in (baseline, contender)]
    if all(compiled) or not any(compiled):
        both = baseline.kernels and contender.kernels
        return _matched(baseline.kernels, contender.kernels) if both else KernelPairs()
    plain = baseline if compiled[1] else contender
    if plain.compilation is not None or not plain.layers:
        return KernelPairs()
    return _by_layers(baseline, contender, first_is_compiled=compiled[0])


def _is_compiled(record: Profile) -> bool:
    return record.compilation is not None and any(kernel.layers for kernel in record.kernels)


# --- kernels beside kernels ----------------------------------------------------------------

_NUMBER = re.compile(r"_\d+$")
_Identity = tuple[object, ...]


def _identity(kernel: KernelRow) -> _Identity:
    """What two records have in common of a kernel.

    Inductor numbers the kernels of a graph: one more in front shifts the numbers of all others. The
    layers tell them apart, and the order those with the same ones.
    """
    if not kernel.layers:
        return kernel.name, kernel.module, kernel.function
    return _NUMBER.sub("", kernel.name), frozenset((p.module, p.function) for p in kernel.layers)


def _matched(before: Sequence[KernelRow], after: Sequence[KernelRow]) -> KernelPairs:
    groups: defaultdict[_Identity, tuple[list[KernelRow], list[KernelRow]]]
    groups = defaultdict(lambda: ([], []))
    for side, kernels in enumerate((before, after)):
        for kernel in _in_order(kernels):
            groups[_identity(kernel)][side].append(kernel)
    couples = [couple for group in groups.values() for couple in zip_longest(*group)]
    pairs = {
        id(new): KernelPair(new, old, new, _note(old, new)) for old, new in couples if old and new
    }
    return KernelPairs(
        how="kernels",
        pairs=tuple(pairs[id(kernel)] for kernel in _in_order(after) if id(kernel) in pairs),
        added=tuple(new.name for old, new in couples if old is None),
        missing=tuple(old.name for old, new in couples if new is None),
    )


def _in_order(kernels: Sequence[KernelRow]) -> list[KernelRow]:
    """In the order of the code; as they are where that is not known."""
    return sorted(kernels, key=lambda kernel: kernel.position or 0)


def _note(before: KernelRow, after: KernelRow) -> str:
    notes = []
    if before.name != after.name:
        notes.append(f"was {before.name}")
    if before.calls != after.calls:
        notes.append(f"calls: {before.calls} before, {after.calls} now")
    return "; ".join(notes)


# --- kernels beside layers -----------------------------------------------------------------


def _by_layers(baseline: Profile, contender: Profile, first_is_compiled: bool) -> KernelPairs:
    compiled, plain = (baseline, contender) if first_is_compiled else (contender, baseline)
    rows = {row.path: row for row in plain.layers if row.self_ and row.self_.median}
    kernels = _in_order(compiled.kernels)
    beside = _beside(kernels, rows)
    pairs, alone = [], []
    for kernel, places in zip(kernels, beside, strict=True):
        sides = (kernel, places) if first_is_compiled else (places, kernel)
        if places and kernel.time.median:
            pairs.append(KernelPair(kernel, *sides))
        else:
            alone.append(kernel.name)
    return KernelPairs(
        how="layers",
        pairs=tuple(pairs),
        added=() if first_is_compiled else tuple(alone),
        missing=tuple(alone) if first_is_compiled else (),
        notes=tuple(_left_out(plain, rows, beside)),
    )


def _beside(kernels: Sequence[KernelRow], rows: Mapping[str, LayerRow]) -> list[tuple[Beside, ...]]:
    """For each kernel the rows that it stands for, and the part of each.

    A row's own time is divided among its kernels by the time that each spends on it.
    """
    path_of = _Paths(kernels, rows)
    spent: list[defaultdict[str, float]] = []
    of_row: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        spent.append(defaultdict(float))
        for part in parts_of(kernel):
            path = path_of(part)
            if path is not None:
                time = kernel.time.mean * share_of(part)
                spent[-1][path] += time
                of_row[path] += time
    return [
        tuple(
            Beside(path=path, part=min(1.0, float(f"{time / of_row[path]:.6g}")))
            for path, time in sorted(one.items(), key=lambda item: -item[1])
            if time
        )
        for one in spent
    ]


class _Paths:
    """The row of a side without kernels that a part of a kernel stands for.

    That is the function's, where all functions of its module that are in kernels have rows: else
    the module's, for all of them together, as Inductor takes many apart into others.
    """

    def __init__(self, kernels: Sequence[KernelRow], rows: Mapping[str, LayerRow]) -> None:
        self._rows = rows
        self._whole = {
            part.module
            for kernel in kernels
            for part in parts_of(kernel)
            if row_of(part, rows) == part.module
        }

    def __call__(self, part: KernelRow | KernelPart) -> str | None:
        """Its path; ``None`` where neither the module nor one around it has a time of its own."""
        path = part.module if part.module in self._whole else row_of(part, self._rows)
        while path and path not in self._rows:
            path = path.rpartition(".")[0]
        return path if path in self._rows else None


def _left_out(
    plain: Profile, rows: Mapping[str, LayerRow], beside: Sequence[Sequence[Beside]]
) -> Iterator[str]:
    """What of the side without kernels stands beside none."""
    taken = {one.path for places in beside for one in places}
    times = (time for path in taken if (time := rows[path].self_))
    left = plain.base.mean - sum(time.mean for time in times)
    if left > 0:
        yield (
            f"No kernel stands beside {seconds(left)} of the model without kernels, "
            f"{percent(left / plain.base.mean, digits=1)} of its forward: layers that compiled "
            "code leaves out, and Python between layers."
        )
