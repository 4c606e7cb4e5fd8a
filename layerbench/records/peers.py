"""What other packages say of the same model: torchinfo's table, pytorch-memlab's account.

Each stands in the record that it is set beside: torchinfo in a structure, memlab in a memory
report.
"""

from __future__ import annotations

import operator
from typing import Literal, get_args

from pydantic import Field, model_validator

from layerbench.records.bounds import Count, Name, Path, Positive, Shape, Text, is_none
from layerbench.records.workload import Frozen

Peer = Literal["memlab", "torchinfo"]
PEERS: tuple[Peer, ...] = get_args(Peer)

Column = Literal[
    "kernel_size",
    "input_size",
    "output_size",
    "num_params",
    "params_percent",
    "mult_adds",
    "trainable",
]
COLUMNS: tuple[Column, ...] = get_args(Column)
USUAL_COLUMNS: tuple[Column, ...] = ("input_size", "output_size", "num_params", "mult_adds")


class PeerReport(Frozen):
    """What every one of them has.

    Attributes:
        version: of the package; ``None`` where it is not installed.
        agreement: what agrees with our own figures, what does not, and why.
        reason: why the package says nothing of this model; empty where it does.
    """

    version: Name | None
    agreement: Text = Field(default="", exclude_if=operator.not_)
    reason: Text = Field(default="", exclude_if=operator.not_)


class TorchinfoRow(Frozen):
    """One line of torchinfo's table: a call of a module. What no column needs is absent.

    Attributes:
        layer: type, depth and number, as torchinfo writes them.
        input_size, output_size: of the first tensor.
        num_params: of a module without parts all its parameters, of one with parts those that the
            parts have not.
        mult_adds: of a module without parts; torchinfo counts none of others.
        kernel_size, trainable: as torchinfo writes them.
        frozen: whether it has parameters, none of which is trained.
        recursive: whether the module has had a line before; its parameters count in that one.
    """

    layer: Name
    depth: Count
    input_size: Shape | None = Field(default=None, exclude_if=is_none)
    output_size: Shape | None = Field(default=None, exclude_if=is_none)
    num_params: Count | None = Field(default=None, exclude_if=is_none)
    mult_adds: Count | None = Field(default=None, exclude_if=is_none)
    kernel_size: Name | None = Field(default=None, exclude_if=is_none)
    trainable: Name | None = Field(default=None, exclude_if=is_none)
    frozen: bool = Field(default=False, exclude_if=operator.not_)
    recursive: bool = Field(default=False, exclude_if=operator.not_)


class TorchinfoReport(PeerReport):
    """torchinfo's table of a model.

    Attributes:
        columns: those that were asked for, in their order.
        total_params, trainable_params, total_mult_adds: torchinfo's own sums.
        rows: in its order.
    """

    columns: tuple[Column, ...]
    total_params: Count = 0
    trainable_params: Count = 0
    total_mult_adds: Count = 0
    rows: tuple[TorchinfoRow, ...] = ()


class MemlabRow(Frozen):
    """One tensor in memlab's account.

    Attributes:
        name: as memlab writes it; ``a(->b)`` has its bytes in ``b``.
        shape: as memlab writes it: that of a scalar is ``(1,)``.
        bytes: of its storage, in blocks of 512, corrected.
    """

    name: Path
    shape: Shape
    bytes: Count


class MemlabLine(Frozen):
    """One line of a function in memlab's line profile.

    Attributes:
        line: number in its file.
        code: the line itself.
        active_bytes, reserved_bytes: the most that CUDA's allocator held while it ran, in any
            call; ``None`` for a line that did not run.
    """

    line: Positive
    code: Text
    active_bytes: Count | None = Field(default=None, exclude_if=is_none)
    reserved_bytes: Count | None = Field(default=None, exclude_if=is_none)


class MemlabFunction(Frozen):
    """memlab's line profile of one function.

    Attributes:
        name: its qualified name.
        lines: all of its source.
    """

    name: Name
    lines: tuple[MemlabLine, ...]


class MemlabReport(PeerReport):
    """memlab's account of the tensors after a run.

    Attributes:
        elements: of all tensors, what several share counted in each.
        bytes: in blocks of 512, what several share counted once, corrected.
        uncorrected_bytes: as memlab itself says: bytes multiplied by the element size.
        allocated: bytes that CUDA's allocator had handed out then; ``None`` on a CPU.
        tensors: parameters with their gradients, buffers, inputs, then all others of the run.
        functions: line profiles of chosen functions.
    """

    elements: Count = 0
    bytes: Count = 0
    uncorrected_bytes: Count = 0
    allocated: Count | None = Field(default=None, exclude_if=is_none)
    tensors: tuple[MemlabRow, ...] = ()
    functions: tuple[MemlabFunction, ...] = Field(default=(), exclude_if=operator.not_)

    @model_validator(mode="after")
    def _adds_up(self) -> MemlabReport:
        if sum(row.bytes for row in self.tensors) != self.bytes:
            raise ValueError("the bytes of memlab's tensors do not add up to their sum")
        return self
