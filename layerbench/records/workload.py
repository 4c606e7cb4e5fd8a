"""What runs (`Workload`) and how it is measured (`Plan`): frozen, plain data, no torch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from layerbench.records.bounds import Count, Name, Path, Positive, Seed, Shape, is_none
from layerbench.records.defaults import (
    CAP_FACTOR,
    FUNCTION_ITERATIONS,
    MEASURED_ITERATIONS,
    WARMUP_ITERATIONS,
)
from layerbench.records.options import MEASURING, STEPS, WHAT_RUNS, Threads, option

Mode = Literal["eval", "train"]
MemoryFormat = Literal["contiguous", "channels_last"]
DType = Literal["float32", "float16", "bfloat16", "float64"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp64", "amp", "amp-bf16"]
# Those that the number formats of a model do not tell.
Computed = Literal["tf32", "amp", "amp-bf16"]
# Of the weights and inputs.
FORMATS: Mapping[Precision, DType] = {
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp64": "float64",
    "amp": "float32",
    "amp-bf16": "float32",
}
# Of what autocast computes.
AUTOCAST: Mapping[Precision, DType] = {"amp": "float16", "amp-bf16": "bfloat16"}
JOINED = "+"
_FORMAT = r"(bfloat|complex|float)[0-9]{1,3}(_[a-z0-9_]{1,20})?"
NumberFormats = Annotated[str, Field(pattern=rf"^{_FORMAT}(\+{_FORMAT}){{0,7}}$")]
"""One of PyTorch's names, or several joined where a model has them: ``bfloat16+float32``."""
Granularity = Literal["whole", "blocks", "layers"]


CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Of `torch.compile`."""


def _mode_of(value: object) -> object:
    """True is the usual mode: records of before there were others say true or false."""
    return "default" if value is True else value


Compile = Annotated[
    Literal[False, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"],
    BeforeValidator(_mode_of),
]
"""How a model is compiled; False for not at all."""

OWN_WEIGHTS = "own"


class Frozen(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    # Built when first used: a reader of one kind of record does not wait for all the others.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


ChannelsLast = Annotated[
    bool, option("Use the channels-last (NHWC) memory format.", panel=WHAT_RUNS)
]
RandomSeed = Annotated[
    Seed, option("Seed of the weights, the input and all else that is drawn.", panel=WHAT_RUNS)
]
PRECISIONS = (
    "Precision to compute in: fp32; tf32 (float32, multiplied as TF32); fp16, bf16 or fp64 "
    "(weights and inputs are converted); amp or amp-bf16 (autocast to float16 or bfloat16, "
    "float32 weights)."
)


def precision_of(dtype: str) -> Precision | None:
    """What weights of this format are computed in without a word; ``None`` for several formats."""
    return next((name for name, weights in FORMATS.items() if weights == dtype), None)


def computed_in(precision: Precision | None) -> Computed | None:
    """The precision as a workload has it: ``None`` for those that its number formats tell."""
    return next((name for name in get_args(Computed) if name == precision), None)


def autocast_format(precision: Precision | None) -> DType | None:
    """What autocast computes in; ``None`` for precisions that are none."""
    return None if precision is None else AUTOCAST.get(precision)


def arithmetic_of(dtype: str, precision: Precision | None) -> str:
    """What is computed in, as reports say it: ``float32``, ``bfloat16``, ``tf32``, ``amp``.

    Formats of weights that the precision does not imply stand behind it.
    """
    if precision is None:
        return dtype
    return precision if dtype == FORMATS[precision] else f"{precision} {dtype}"


def unusual_arithmetic(precision: Precision) -> list[str]:
    """What is computed in, as reports say it; nothing where it is float32, as usual."""
    if precision == "fp32":
        return []
    return [arithmetic_of(FORMATS[precision], computed_in(precision))]


class ReadFile(Frozen):
    """A file that is part of what runs; two with the same content are equal, wherever they lie.

    Attributes:
        path: as the user wrote it.
        sha256: of its bytes.
    """

    path: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        return PurePath(self.path).name

    @property
    def digest(self) -> str:
        """The beginning of the checksum, which tells files of one name apart."""
        return self.sha256[:8]

    def __str__(self) -> str:
        """The name with what tells it from others of that name."""
        return f"{self.name} {self.digest}"

    def __eq__(self, other: object) -> bool:
        """Whether the content is the same."""
        return isinstance(other, ReadFile) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        """By the content."""
        return hash(self.sha256)


class Checkpoint(ReadFile):
    """A file of weights, and which of what it holds are the model's.

    Attributes:
        entry: keys that lead to the weights, with a slash between them; empty where the file holds
            nothing else.
        prefix: that stands before every name there, and before none of the model's.
    """

    entry: Name = ""
    prefix: Name = ""


def _is_one(value: object) -> bool:
    return value == 1


CHECKPOINTED = "activations checkpointed in "
"""Begins the note that names the modules, where nobody did."""
CheckpointActivations = Annotated[
    tuple[Path, ...] | None,
    option(
        "Modules under activation checkpointing: their forward runs again in the backward. "
        "Paths with commas; without a value the blocks, and parts of chains of layers.",
        panel=STEPS,
        metavar="[PATH,...]",
        default_text="none",
    ),
]


class StepOptions(Frozen):
    """What a training step does besides forward, backward and the optimizer's own work.

    Attributes:
        checkpoint_activations: paths of modules; none for blocks, and parts of chains of layers
            (`layerbench.instruments.checkpointed`); ``None`` where no activations are checkpointed.
        gradient_accumulation: micro-batches in a step, each with a forward and a backward.
    """

    checkpoint_activations: CheckpointActivations = Field(default=None, exclude_if=is_none)
    gradient_accumulation: Annotated[
        Positive,
        option(
            "Number of micro-batches in a step, each of --batch images: forward and backward of "
            "each, then the optimizer once.",
            panel=STEPS,
            metavar="N",
        ),
    ] = Field(default=1, exclude_if=_is_one)


PLAIN_STEP = StepOptions()


class Workload(StepOptions):
    """What runs: two records with equal workloads measured the same work.

    Attributes:
        model: a model spec as the zoo reads it, e.g. ``resnet50``, ``timm:NAME``, ``hf:NAME``,
            ``package.module:callable``; for a module handed over in Python, its class name.
        input: the input as named by the user: ``pascal`` or a shape such as ``8x3x224x224``.
        shape: the resolved shape of the (first) input tensor, batch first.
        batch: the first entry of ``shape``: images per forward.
        dtype: of floating parameters and inputs, which are converted to it. Of a model of the
            user's that nobody asked to convert, the formats it has; the one that most of its
            parameters have comes first.
        precision: what is computed in, where that is not ``dtype``.
        weights: ``None`` for random ones, `OWN_WEIGHTS` for those that the user's own model came
            with, else the name that the model's library has for them.
        checkpoint: the file whose weights were loaded onto the model.
        inputs: the file that holds the inputs.
        file: the model itself, where it is a file.
        compile: the mode of `torch.compile`; False where the model runs as it is.
        cuda_graph: whether the forward is captured as a CUDA graph, and replayed.
        ddp: whether it is one process of a training with DistributedDataParallel.
    """

    model: Name
    input: Name
    shape: Shape
    batch: Count
    dtype: NumberFormats = "float32"
    precision: Computed | None = Field(default=None, exclude_if=is_none)
    memory_format: MemoryFormat = "contiguous"
    mode: Mode = "eval"
    seed: Seed = 0
    weights: Name | None = None
    compile: Compile = False
    cuda_graph: bool = Field(default=False, exclude_if=operator.not_)
    ddp: bool = Field(default=False, exclude_if=operator.not_)
    checkpoint: Checkpoint | None = Field(default=None, exclude_if=is_none)
    inputs: ReadFile | None = Field(default=None, exclude_if=is_none)
    file: ReadFile | None = Field(default=None, exclude_if=is_none)

    @property
    def handed_over(self) -> bool:
        """Whether it was a module object, which no name can bring back."""
        # A spec names a module and a callable with a colon between them; a class name has none.
        return self.weights == OWN_WEIGHTS and ":" not in self.model and self.file is None

    def with_step(self, step: StepOptions, *, ddp: bool = False) -> Workload:
        """The workload of a training whose steps are made so, perhaps one process of several."""
        options = {name: getattr(step, name) for name in StepOptions.model_fields}
        return self.model_copy(update={**options, "ddp": ddp})

    @property
    def formats(self) -> tuple[str, ...]:
        """The number formats one by one."""
        return tuple(self.dtype.split(JOINED))

    @property
    def arithmetic(self) -> str:
        """What is computed in, as reports say it: see `arithmetic_of`."""
        return arithmetic_of(self.dtype, self.precision)


def named_format(dtype: str) -> DType | None:
    """The format that a model can be converted to; ``None`` for those that it keeps."""
    return next((name for name in get_args(DType) if name == dtype), None)


def real_format(workload: Workload) -> DType:
    """The format that most of a workload's arithmetic is in; of a complex one its parts'."""
    computed = autocast_format(workload.precision)
    if computed is not None:
        return computed
    first = workload.formats[0]
    parts = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
    return named_format(parts.get(first, first)) or "float32"


class Plan(Frozen):
    """How a workload is measured.

    Attributes:
        granularity: ``whole`` times the model alone, ``blocks`` its blocks, ``layers`` all modules.
        until: ``0.01`` for 1 %; ``None`` runs ``iterations`` rounds.
        max_iterations: the cap of a run that goes on ``until``.
    """

    warmup: Annotated[
        Count, option("Number of warm-up rounds, which are not kept.", panel=MEASURING)
    ] = WARMUP_ITERATIONS
    iterations: Annotated[
        Positive,
        option("Measured rounds; each runs once untouched and once instrumented.", panel=MEASURING),
    ] = MEASURED_ITERATIONS
    processes: Annotated[
        Positive, option("Number of fresh processes to measure in.", panel=MEASURING)
    ] = 1
    threads: Threads = None
    granularity: Annotated[Granularity, option("whole, blocks or layers.", panel=MEASURING)] = (
        "layers"
    )
    function_iterations: Annotated[
        Count,
        option(
            "Further forwards that time functions, such as an add between layers.",
            panel=MEASURING,
            default_text=f"{FUNCTION_ITERATIONS}, and not more than --iterations",
        ),
    ] = Field(default_factory=lambda plan: min(FUNCTION_ITERATIONS, plan["iterations"]))
    until: Annotated[
        float | None,
        option(
            "After the iterations go on until the 95 % interval's half-width is this share of the "
            f"median (such as 1%), at most {CAP_FACTOR} times the iterations.",
            panel=MEASURING,
            metavar="PERCENT",
            gt=0,
            lt=1,
        ),
    ] = None
    max_iterations: Positive | None = None
    isolate: Annotated[
        bool,
        option(
            "Also time every leaf alone, on the inputs that it had: with hot and with cold caches.",
            panel=MEASURING,
            exclude_if=operator.not_,
        ),
    ] = False
    energy: Annotated[
        bool,
        option(
            "Also measure the joules of a forward, where a counter can be read; needs the package "
            "zeus.",
            panel=MEASURING,
            exclude_if=operator.not_,
        ),
    ] = False
