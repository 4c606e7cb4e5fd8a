"""Which plan cuDNN has for a convolution on a GPU that is described, and not here.

cuDNN 9.8 and later takes the description of a device as JSON, and plans for it.
`nvidia-cudnn-frontend` (the extra ``cudnn``) hands it over. The plans are taken in PyTorch's order
(``aten/src/ATen/native/cudnn/Conv_v8.cpp``): heuristic mode A, then the fallback list, without
those that convert their inputs down. The first that can be built, and whose workspace can be had,
runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import islice
from typing import Any, Literal, NamedTuple

from layerbench.records.card import Card

Kind = Literal["forward", "input gradient", "weight gradient"]

WITHOUT_PACKAGE = (
    "nvidia-cudnn-frontend is not installed, which has cuDNN's plans: "
    "pip install 'layerbench[cudnn]'"
)

# Registers that each multiprocessor has, threads of a block and of a warp: alike in all of them.
_REGISTERS = 65_536
_BLOCK_THREADS = 1024
_SHARED_WITHOUT_ASKING = 48 * 1024
# Of cuDNN's first plans, those whose workspaces an interval spans.
MOST_LIKELY = 4
# CUDA 13, the driver that cuDNN is told of.
_DRIVER = 13_000


class Convolution(NamedTuple):
    """One call of cuDNN.

    Attributes:
        kind: which of the three it finds.
        input, weight, output: shapes of the forward's tensors, batch first.
        stride, padding, dilation: one for each spatial dimension.
        dtype: of all tensors, as `torch` names it.
        channels_last: how all of them lie.
        groups: which the shapes tell; it tells apart what they mean.
        tf32: whether products of float32 may be computed in TF32.
    """

    kind: Kind
    input: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    dtype: str
    channels_last: bool
    groups: int = 1
    tf32: bool = True


class ConvolutionPlan(NamedTuple):
    """How cuDNN would run it: the engine with its settings, and its workspace in bytes."""

    engine: str
    workspace: int


class CudnnPlans:
    """cuDNN's plans for one card, each looked for once.

    Attributes:
        missing: why there are none; empty where there are.
    """

    def __init__(self, card: Card) -> None:
        self._taken: dict[Convolution, ConvolutionPlan | None] = {}
        self._likely: dict[Convolution, tuple[int, ...]] = {}
        self._smaller: dict[Convolution, tuple[int, ...]] = {}
        self._properties: Any = None
        self.missing = ""
        try:
            self._properties = _frontend().create_device_properties(json.dumps(described(card)))
        except ImportError:
            self.missing = WITHOUT_PACKAGE
        except Exception as error:
            self.missing = f"cuDNN plans for no device that is not here: {error}"

    def of(self, convolution: Convolution) -> ConvolutionPlan | None:
        """The plan that stands for it; ``None`` where cuDNN has none, or cannot be asked.

        The first one; in float32 the first without tensor cores. PyTorch lets cuDNN take TF32, and
        yet published peaks, of cuDNN 8.9 and 9.1, are those of such plans
        (docs/decisions/0045-plans-of-cudnn-for-a-card.md).
        """
        if self.missing:
            return None
        if convolution not in self._taken:
            plain = convolution._replace(tf32=convolution.tf32 and convolution.dtype != "float32")
            self._taken[convolution] = next(self._plans(plain), None)
        return self._taken[convolution]

    def likely(self, convolution: Convolution) -> tuple[int, ...]:
        """Workspaces that it may have: of the plan that stands for it, and of cuDNN's first ones.

        Which of its first plans is the very first has changed with each release.
        """
        taken = self.of(convolution)
        if taken is None:
            return ()
        if convolution not in self._likely:
            first = islice(self._plans(convolution), MOST_LIKELY)
            sizes = (taken.workspace, *(plan.workspace for plan in first))
            self._likely[convolution] = tuple(dict.fromkeys(sizes))
        return self._likely[convolution]

    def smaller(self, convolution: Convolution) -> tuple[int, ...]:
        """Workspaces of the plans that PyTorch tries one after the other, each smaller.

        A plan with as large a workspace cannot be had either where one before could not.
        """
        if self.missing:
            return ()
        if convolution not in self._smaller:
            found: list[int] = []
            for plan in self._plans(convolution):
                if not found or plan.workspace < found[-1]:
                    found.append(plan.workspace)
                if not found[-1]:
                    break
            self._smaller[convolution] = tuple(found)
        return self._smaller[convolution]

    def _plans(self, convolution: Convolution) -> Iterator[ConvolutionPlan]:
        cudnn = _frontend()
        for mode in (cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK):
            try:
                graph = _graph(cudnn, convolution, self._properties, mode)
                count = graph.get_execution_plan_count()
            except Exception:  # cuDNN knows none for such tensors on such a card
                continue
            for index in range(count):
                try:
                    graph.build_plan_at_index(index)
                except Exception:  # PyTorch goes on likewise
                    continue
                yield ConvolutionPlan(
                    graph.get_plan_name_at_index(index),
                    graph.get_workspace_size_plan_at_index(index),
                )


_PLANS: dict[str, CudnnPlans] = {}


def cudnn_plans(card: Card) -> CudnnPlans:
    """The plans for a card; kept, also for cards that differ in name and size of memory alone."""
    what = described(card) | {"totalGlobalMem": 0, "deviceName": ""}
    key = json.dumps(what)
    if key not in _PLANS:
        _PLANS[key] = CudnnPlans(card)
    return _PLANS[key]


def described(card: Card) -> dict[str, object]:
    """A card as cuDNN wants it: CUDA's device attributes, by cuDNN's names for them."""
    limits, (major, minor) = card.limits, card.version
    return {
        "maxGridSize": [2**31 - 1, 2**16 - 1, 2**16 - 1],
        "maxBlockSize": [_BLOCK_THREADS, _BLOCK_THREADS, 64],
        "regsPerBlock": _REGISTERS,
        "multiProcessorCount": card.multiprocessors,
        "warpSize": 32,
        "maxSharedMemoryPerBlock": _SHARED_WITHOUT_ASKING,
        "maxSharedMemoryPerBlockOptin": limits.shared_bytes_block,
        "reservedSharedMemoryPerBlock": limits.reserved_bytes,
        "maxRegistersPerSM": _REGISTERS,
        "maxCtasPerSM": limits.blocks,
        "maxThreadsPerBlock": _BLOCK_THREADS,
        "maxThreadsPerSM": limits.threads,
        "pciDeviceId": 0,
        "isTccDriver": 0,
        "supportCoopLaunch": 1,
        "totalGlobalMem": card.memory_bytes,
        "smClockRateKHz": int(card.clock_hz / 1000),
        "memClockRateKHz": int(card.memory_clock_hz / 1000),
        "l2CacheSize": card.l2_bytes,
        "cudaDeviceId": 0,
        "deviceVer": 100 * major + 10 * minor,
        "driverVer": _DRIVER,
        "deviceName": card.title,
    }


@cache
def _frontend() -> Any:  # noqa: ANN401 - a module without types
    return import_module("cudnn")


def _graph(cudnn: Any, convolution: Convolution, properties: Any, mode: Any) -> Any:  # noqa: ANN401
    """The graph of one convolution with a heuristic's plans, none of them built."""
    formats = {
        "float32": cudnn.data_type.FLOAT,
        "float16": cudnn.data_type.HALF,
        "bfloat16": cudnn.data_type.BFLOAT16,
        "float64": cudnn.data_type.DOUBLE,
    }
    of_elements = formats[convolution.dtype]
    of_sums = of_elements if convolution.dtype == "float64" else cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=of_elements,
        intermediate_data_type=of_sums,
        compute_data_type=of_sums,
        device_property=properties,
    )

    def tensor(name: str, shape: Sequence[int]) -> Any:  # noqa: ANN401 - cuDNN's
        strides = _strides(shape, convolution.channels_last)
        return graph.tensor(name=name, dim=list(shape), stride=strides, data_type=of_elements)

    how = {
        "padding": list(convolution.padding),
        "stride": list(convolution.stride),
        "dilation": list(convolution.dilation),
    }
    if convolution.kind == "forward":
        shape = convolution.output
        result = graph.conv_fprop(
            image=tensor("input", convolution.input),
            weight=tensor("weight", convolution.weight),
            **how,
        )
    elif convolution.kind == "input gradient":
        shape = convolution.input
        result = graph.conv_dgrad(
            loss=tensor("output", convolution.output),
            filter=tensor("weight", convolution.weight),
            **how,
        )
    else:
        shape = convolution.weight
        result = graph.conv_wgrad(
            image=tensor("input", convolution.input),
            loss=tensor("output", convolution.output),
            **how,
        )
    result.set_output(True).set_data_type(of_elements).set_dim(list(shape))
    result.set_stride(_strides(shape, convolution.channels_last))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([mode])
    unwanted = [cudnn.numerical_note.DOWN_CONVERT_INPUTS]
    if convolution.dtype == "float32" and not convolution.tf32:
        unwanted.append(cudnn.numerical_note.TENSOR_CORE)
    graph.deselect_numeric_notes(unwanted)
    return graph


def _strides(shape: Sequence[int], channels_last: bool) -> list[int]:
    """Elements from one to the next along each dimension, batch first."""
    order = [0, *range(2, len(shape)), 1] if channels_last else range(len(shape))
    strides, step = [0] * len(shape), 1
    for dimension in reversed(list(order)):
        strides[dimension], step = step, step * shape[dimension]
    return strides
