"""What runs (`Workload`) and how it is measured (`Plan`): frozen, plain data, no torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from layerbench.records.bounds import Count, Name, Positive, Seed, Shape
from layerbench.records.defaults import FUNCTION_ITERATIONS, MEASURED_ITERATIONS, WARMUP_ITERATIONS

Mode = Literal["eval", "train"]
MemoryFormat = Literal["contiguous", "channels_last"]
DType = Literal["float32", "float16", "bfloat16", "float64"]
JOINED = "+"
_FORMAT = r"(bfloat|complex|float)[0-9]{1,3}(_[a-z0-9_]{1,20})?"
NumberFormats = Annotated[str, Field(pattern=rf"^{_FORMAT}(\+{_FORMAT}){{0,7}}$")]
"""One of PyTorch's names, or several joined where a model has them: ``bfloat16+float32``."""
Granularity = Literal["whole", "blocks", "layers"]


OWN_WEIGHTS = "own"


class Frozen(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    # Built when first used: a reader of one kind of record does not wait for all the others.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class Workload(Frozen):
    """What runs: two records with equal workloads measured the same work.

    Attributes:
        model: a model spec as the zoo reads it, e.g. ``resnet50``, ``timm:NAME``,
            ``package.module:callable``; for a module handed over in Python, its class name.
        input: the input as named by the user: ``pascal`` or a shape such as ``8x3x224x224``.
        shape: the resolved shape of the (first) input tensor, batch first.
        batch: the first entry of ``shape``: images per forward.
        dtype: of floating parameters and inputs, which are converted to it. Of a model of the
            user's that nobody asked to convert, the formats it has; the one that most of its
            parameters have comes first.
        weights: ``None`` for random ones, `OWN_WEIGHTS` for those that the user's own model came
            with, else the name that the model's library has for them.
    """

    model: Name
    input: Name
    shape: Shape
    batch: Count
    dtype: NumberFormats = "float32"
    memory_format: MemoryFormat = "contiguous"
    mode: Mode = "eval"
    seed: Seed = 0
    weights: Name | None = None
    compile: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """The number formats one by one."""
        return tuple(self.dtype.split(JOINED))


def named_format(dtype: str) -> DType | None:
    """The format that a model can be converted to; ``None`` for those that it keeps."""
    return next((name for name in get_args(DType) if name == dtype), None)


def real_format(workload: Workload) -> DType:
    """The format that most of a workload's arithmetic is in; of a complex one its parts'."""
    first = workload.formats[0]
    parts = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
    return named_format(parts.get(first, first)) or "float32"


class Plan(Frozen):
    """How a workload is measured.

    Attributes:
        warmup: unmeasured rounds before the first measured one.
        iterations: measured rounds; each runs the forward untouched and instrumented.
        processes: fresh processes the measurement is repeated in.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        granularity: ``whole`` times the model alone, ``blocks`` its blocks, ``layers`` all modules.
        function_iterations: forwards in the pass that times functions; not more than
            ``iterations`` unless it is asked for.
        until: stop once the half-width of the whole model's 95 % interval, relative to its
            median, is at most this (``0.01`` for 1 %); ``None`` runs ``iterations`` rounds.
        max_iterations: the cap of a run that goes on ``until``.
    """

    warmup: Count = WARMUP_ITERATIONS
    iterations: Positive = MEASURED_ITERATIONS
    processes: Positive = 1
    threads: Positive | None = None
    granularity: Granularity = "layers"
    function_iterations: Count = Field(
        default_factory=lambda plan: min(FUNCTION_ITERATIONS, plan["iterations"])
    )
    until: float | None = Field(default=None, gt=0, lt=1)
    max_iterations: Positive | None = None
