"""A model's structure: shapes, parameters, FLOPs, bytes. Nothing in it depends on a machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerbench.records.bounds import Count, Name, Path, Positive, Shape, Text, is_none
from layerbench.records.graph import Graphs
from layerbench.records.kinds import Record
from layerbench.records.peers import TorchinfoReport
from layerbench.records.rows import ModuleRow, Tree
from layerbench.records.workload import Frozen, Workload


class Operator(Frozen):
    """An operator that ran and whose arithmetic has no formula.

    Attributes:
        name: as PyTorch's dispatcher calls it, ``aten.grid_sampler_2d``.
        calls: in one forward.
        paths: the modules that ran it.
    """

    name: Name
    calls: Positive
    paths: tuple[Path, ...]


class StructureRow(ModuleRow):
    """One module.

    Attributes:
        input_shapes, output_shapes: of the tensors in the first call.
        parameters: elements of the parameters in it and below, shared ones counted once.
        trainable: those of them that require a gradient.
        own_parameters: elements of the parameters it holds itself.
        own_parameter_bytes: of what it holds of them, and of what a library has packed for it;
            ``None`` where all are plain numbers of their format.
        buffers: elements of the buffers in it and below.
        flops: of all its calls in one forward, the modules below it included; ``None`` for a
            module that did not run, or whose inside could not be seen.
        self_flops: without the modules below it.
        kernel_size: of a convolution or a pooling; ``None`` for what has none, and in records of
            before it was noted.
        groups: of a convolution.
        output_bytes: of the tensors it returned in its first call.
        uncounted: names of operators it ran itself whose arithmetic has no formula.
        note: what a reader should know, such as other names it goes by.
    """

    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: Count
    trainable: Count
    own_parameters: Count
    own_parameter_bytes: Count | None = Field(default=None, exclude_if=is_none)
    buffers: Count
    flops: Count | None = None
    self_flops: Count | None = None
    kernel_size: Shape | None = Field(default=None, exclude_if=is_none)
    groups: Positive | None = Field(default=None, exclude_if=is_none)
    output_bytes: Count | None = None
    uncounted: tuple[Name, ...] = ()
    note: Text = ""


class Structure(Record):
    """The structure of one model on one input.

    Attributes:
        how: ``meta`` where shapes alone ran, ``cpu`` where the model had to run for real.
        torch: version of PyTorch; which operators a model runs depends on it.
        parameters, trainable, buffers: elements.
        parameter_bytes, buffer_bytes: as they are stored.
        flops: of one forward; a multiply-add is two. ``macs``: half of it.
        rows: modules in tree order, children in order of execution.
        graphs: what their children and functions hand to each other; ``None`` in records of before
            it was noted.
        uncounted: operators whose arithmetic is not in ``flops``.
        notes: what the reader should know.
        torchinfo: torchinfo's table of the same model; ``None`` where it was not asked for.
    """

    record: Literal["structure"] = "structure"
    workload: Workload
    how: Literal["meta", "cpu"]
    torch: Name
    layerbench: Name
    model_type: Name
    parameters: Count
    trainable: Count
    parameter_bytes: Count
    buffers: Count
    buffer_bytes: Count
    flops: Count
    rows: Tree[StructureRow]
    graphs: Graphs = Field(default=None, exclude_if=is_none)
    uncounted: tuple[Operator, ...] = ()
    notes: tuple[Text, ...] = ()
    torchinfo: TorchinfoReport | None = Field(default=None, exclude_if=is_none)

    @property
    def macs(self) -> int:
        """Multiply-adds: half the FLOPs."""
        return self.flops // 2
