"""What a report shows of a record."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from layerbench.records.bounds import Count, Positive
from layerbench.records.options import option
from layerbench.records.workload import Frozen

Sort = Literal["self", "time", "flops", "params", "memory"]


class View(Frozen):
    """Which rows a report shows, and in which order.

    Attributes:
        sort: what the slowest or largest layers are sorted by: their own time, their time with
            all that is in them, FLOPs, parameters, memory.
        top: how many of them.
        type: class name of the modules that are shown; ``None`` shows all.
        depth: of the deepest rows of the tree; ``None`` shows all.
        sentences: whether there is a sentence for every timed row, to be found with grep.
        kernels: whether the kernels that ran for the layers are listed.
        full: whether a terminal shows the whole report.
        width: columns of the first screen.
        folded: whether blocks and layers that take next to nothing share a row.
    """

    PANEL: ClassVar[str] = "What is shown"

    full: Annotated[
        bool, option("The whole report; without it a terminal shows its first screen.")
    ] = False
    sort: Annotated[
        Sort, option("What the layers of the first screen are sorted by.", default_text="self")
    ] = "self"
    top: Annotated[Positive, option("Number of layers on the first screen.")] = 10
    type: Annotated[
        str | None,
        option("Type of the layers that are shown, such as Linear.", metavar="NAME"),
    ] = None
    depth: Annotated[
        Count | None,
        option("Depth of the deepest rows that are shown.", default_text="all of them"),
    ] = None
    sentences: Annotated[bool, option("A sentence for every timed row, to be found with grep.")] = (
        False
    )
    kernels: Annotated[
        bool, option("The kernels of an accelerator, or of a compiled model, the longest first.")
    ] = False
    width: Annotated[int, Field(ge=40, le=1000)] = 100
    folded: bool = True

    def has(self, type: str, depth: int) -> bool:
        """Whether a tree shows rows of this type at this depth."""
        deep = self.depth is not None and depth > self.depth
        return not deep and self.type in (None, type)


USUAL = View()
