"""Each layer's place under the roofline: how near it comes to what the device can do. No torch.

Source of the model: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual
Performance Model for Multicore Architectures", Communications of the ACM 52(4), 2009. A layer that
does I FLOPs for each byte it moves does at most min(P, I * B) FLOPs a second, where P is the
device's arithmetic rate and B its memory's bandwidth: both measured, as
`layerbench.records.timing.Ceilings` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from layerbench.analysis.differences import text_of
from layerbench.errors import ComparisonError, UsageError
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.timing import Ceilings, LayerRow, Profile
from layerbench.records.tree import parent
from layerbench.records.workload import Workload, autocast_format

Bound = Literal["compute", "memory"]

BYTES: dict[str, int] = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
BYTES |= {"complex32": 4, "complex64": 8, "complex128": 16}

# What decides which work a forward is. The seed and the weights' values do not.
SAME = ("model", "shape", "batch", "dtype", "precision")


@dataclass(frozen=True)
class Point:
    """One layer.

    Attributes:
        path, type: of its row.
        flops: of all its calls in one forward; a multiply-add is two.
        bytes_least: bytes that its calls must move at the very least: each call's inputs and
            outputs once, the layer's own parameters once. What is moved more than once, and
            workspaces, come on top.
        time_s: median self time in one forward, seconds.
        share_of_roof: ``rate`` over `roof`; more than 1 where its tensors lie in a cache. ``None``
            without ceilings.
        bound: which of the two roofs is the lower one here; ``None`` without ceilings.
    """

    path: str
    type: str
    flops: int
    bytes_least: int
    time_s: float
    share_of_roof: float | None = None
    bound: Bound | None = None

    @property
    def intensity(self) -> float:
        """FLOPs a byte, and at most that: the bytes are the least."""
        return self.flops / self.bytes_least

    @property
    def rate(self) -> float:
        """FLOPs a second."""
        return self.flops / self.time_s


def has_flops(profile: Profile) -> bool:
    """Whether the profile itself says what its layers compute."""
    return any(row.flops is not None for row in profile.layers)


def points(profile: Profile, structure: Structure | None = None) -> tuple[Point, ...]:
    """A point for every layer with FLOPs and a time, in tree order.

    A layer here is a module that holds no other module, ran, does arithmetic that counts as FLOPs
    and was timed. What composite modules do themselves, such as attention, has no point. Shapes
    are those of a layer's first call, and taken to be those of all its calls. A layer with other
    calls in one record than in the other is left out: the two are not of the same work.

    Args:
        profile: has times, and perhaps ceilings.
        structure: has FLOPs and shapes, of the same model, input shape and number format;
            ``None`` takes those that the profile has.

    Raises:
        ComparisonError: they are of different work.
        UsageError: there is no structure, and the profile has no FLOPs.
    """
    timed = {row.path: row for row in profile.layers if row.kind == "module"}
    computed: Sequence[StructureRow | LayerRow]
    if structure is not None:
        check_same_work(profile.workload, structure.workload)
        computed = structure.rows
    elif has_flops(profile):
        computed = tuple(timed.values())
    else:
        raise UsageError(
            "the profile holds no FLOPs of layers: add the structure of the same work, as "
            "layerbench mem --struct or layerbench.structure makes it"
        )
    size = element_bytes(profile.workload)
    drawn = (
        _point(row, timed[row.path], size, profile.ceilings)
        for row in _leaves(computed)
        if row.path in timed
    )
    return tuple(point for point in drawn if point is not None)


def roof(ceilings: Ceilings, intensity: float) -> float:
    """The most FLOPs a second at so many FLOPs a byte: min(P, I * B)."""
    return min(ceilings.flops_per_s, intensity * ceilings.bytes_per_s)


def ridge(ceilings: Ceilings) -> float:
    """FLOPs a byte where the two roofs meet: P / B. Left of it the memory limits."""
    return ceilings.flops_per_s / ceilings.bytes_per_s


def under_roof(
    ceilings: Ceilings, flops: int, moved: int, time_s: float
) -> tuple[Bound, float, float]:
    """Which roof is the lower one for a layer, and how near the layer comes to it.

    Args:
        ceilings: of the device.
        flops: that it does.
        moved: bytes that it moves at least.
        time_s: that it takes, more than 0.

    Returns:
        the bound; FLOPs or bytes a second; these over the most that the device does of them.
    """
    if flops / moved >= ridge(ceilings):
        return "compute", flops / time_s, flops / time_s / ceilings.flops_per_s
    return "memory", moved / time_s, moved / time_s / ceilings.bytes_per_s


def element_bytes(workload: Workload) -> int:
    """Of an element of the first of its number formats."""
    return BYTES.get(autocast_format(workload.precision) or workload.formats[0], BYTES["float32"])


def check_same_work(timed: Workload, dissected: Workload) -> None:
    """Refuse two records that are not of the same work.

    Raises:
        ComparisonError: they differ; the message says in what.
    """
    for name in SAME:
        ours, theirs = getattr(timed, name), getattr(dissected, name)
        if ours != theirs:
            raise ComparisonError(
                f"the profile's {name} is {text_of(ours)} and the structure's {text_of(theirs)}: "
                "take a structure of the same work, as layerbench mem --struct writes it"
            )


def bytes_least(row: StructureRow | LayerRow, size: int) -> int:
    """Bytes that a layer's calls must move at least.

    Args:
        row: its shapes are those of its first call.
        size: bytes of an element.
    """
    moved = sum(prod(shape) for shape in (*row.input_shapes, *row.output_shapes))
    held = row.own_parameter_bytes
    return row.calls * moved * size + ((row.own_parameters or 0) * size if held is None else held)


def _leaves(
    rows: Sequence[StructureRow | LayerRow],
) -> Iterator[StructureRow | LayerRow]:
    """The modules that hold no other one."""
    composite = {parent(row.path) for row in rows if row.path}
    return (row for row in rows if row.path not in composite)


def _point(
    row: StructureRow | LayerRow, timed: LayerRow, size: int, ceilings: Ceilings | None
) -> Point | None:
    time_s = None if timed.self_ is None else timed.self_.median
    moved = bytes_least(row, size)
    if not (row.calls == timed.calls and row.flops and moved and time_s and time_s > 0):
        return None
    point = Point(row.path, row.type, row.flops, moved, time_s)
    if ceilings is None:
        return point
    bound, _, share = under_roof(ceilings, row.flops, moved, time_s)
    return replace(point, share_of_roof=share, bound=bound)
