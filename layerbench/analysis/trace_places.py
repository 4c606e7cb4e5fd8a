"""The places of a trace: modules and ranges by what held them when they ran."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from layerbench.records.trace_profile import TracePhaseName
from layerbench.text import shortened

MODULE = "nn.Module: "
# Of the modules whose names Lightning's profiler records, class and attribute path.
_OF_LIGHTNING = re.compile(r"\[pl\]\[module\](?:[\w<>]+\.)*([\w<>]+): (.+)")
_NUMBER = re.compile(r"_\d+$")
_STEP = re.compile(r"ProfilerStep#\d+")
_PHASES: tuple[tuple[re.Pattern[str], TracePhaseName], ...] = (
    (re.compile(r"Optimizer\.step#.*"), "optimizer"),
    (re.compile(r"Optimizer\.zero_grad#.*"), "zero_grad"),
    (re.compile(r"enumerate\(DataLoader\)#.*"), "data"),
)

ROOT = 0
MOST_DEPTH = 50
MOST_PLACES = 10_000
MOST_SEGMENT = 80
"""Characters of one name in a path, so that paths of any nesting fit into a record."""
UNNAMED = "(unnamed)"

Kind = Literal["module", "range"]


@dataclass(frozen=True)
class Named:
    """What a name says of a module or a range.

    Attributes:
        name: as recorded, without the mark of a module.
        kind: what it names.
        type: class name of a module; ``range``.
    """

    name: str
    kind: Kind
    type: str


def named(text: str) -> Named:
    """Read the name of a module's call or a range."""
    if text.startswith(MODULE):
        name = text.removeprefix(MODULE) or UNNAMED
        return Named(name, "module", _NUMBER.sub("", name))
    found = _OF_LIGHTNING.fullmatch(text)
    if found is not None:
        return Named(found[2], "module", found[1])
    return Named(text or UNNAMED, "range", "range")


def is_step(text: str) -> bool:
    """Whether it is the mark of a profiler step."""
    return _STEP.fullmatch(text) is not None


def phase_of(text: str) -> TracePhaseName | None:
    """The phase of a range that PyTorch marks itself."""
    return next((phase for pattern, phase in _PHASES if pattern.fullmatch(text)), None)


@dataclass(frozen=True)
class Place:
    """A place in the nesting.

    Attributes:
        above: number of the place that holds it.
        path: names with dots between.
        named: of the innermost name.
        depth: 0 for the step itself.
        in_module: whether it, or a place that holds it, is a module.
    """

    above: int
    path: str
    named: Named
    depth: int
    in_module: bool


@dataclass
class Places:
    """All of them, in the order in which they were first reached.

    Attributes:
        every: by number; the first is the step, or the trace as a whole.
        most: of them.
        merged: how often a place was not made, as there were too many or it lies too deep: what
            ran there counts for the place that holds it.
    """

    every: list[Place] = field(
        default_factory=lambda: [Place(ROOT, "", Named("", "range", "step"), 0, False)]
    )
    most: int = field(default_factory=lambda: MOST_PLACES)
    merged: int = 0
    _numbers: dict[tuple[int, str], int] = field(default_factory=dict)

    def within(self, above: int, inner: Named) -> int:
        """The number of a place in another one."""
        key = (above, inner.name)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._new(above, inner)
        elif number == above:
            self.merged += 1
        return number

    def _new(self, above: int, inner: Named) -> int:
        outer = self.every[above]
        if outer.depth >= MOST_DEPTH or len(self.every) >= self.most:
            self.merged += 1
            return above
        segment = _segment(inner.name, outer.named.name)
        # Two names that are one in a path are one place.
        key = (above, f"\0{segment}")
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.every)
            path = f"{outer.path}.{segment}" if outer.path else segment
            in_module = outer.in_module or inner.kind == "module"
            self.every.append(Place(above, path, inner, outer.depth + 1, in_module))
        return number

    def in_tree_order(self) -> list[int]:
        """Their numbers, each before those in it, which come in the order of their first call."""
        below: dict[int, list[int]] = {}
        for number, place in enumerate(self.every[1:], start=1):
            below.setdefault(place.above, []).append(number)
        return [*_depth_first(below)]

    def summed(self, own: dict[int, float]) -> dict[int, float]:
        """Of each place what it and those in it have."""
        sums = dict(own)
        # A place is made after the one that holds it.
        for number in range(len(self.every) - 1, 0, -1):
            if number in sums:
                above = self.every[number].above
                sums[above] = sums.get(above, 0) + sums[number]
        return sums


def _depth_first(below: dict[int, list[int]]) -> Iterator[int]:
    waiting = [ROOT]
    while waiting:
        number = waiting.pop()
        yield number
        waiting += reversed(below.get(number, []))


def _segment(name: str, outer: str) -> str:
    """A name as it stands in a path: no dot, and of an attribute path the part that is new."""
    short = name.removeprefix(f"{outer}.") if outer else name
    return shortened((short or UNNAMED).replace(".", "·"), MOST_SEGMENT)
