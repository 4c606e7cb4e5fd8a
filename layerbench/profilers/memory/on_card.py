"""What a traced run takes on one card: cuDNN's plans, cuBLAS's workspace, context and capacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from layerbench.instruments.storage_tracker import Allocation, Trace
from layerbench.profilers.memory.cudnn_plans import (
    Convolution,
    ConvolutionPlan,
    CudnnPlans,
    cudnn_plans,
)
from layerbench.profilers.memory.run_for_gpu import RunForGpu
from layerbench.profilers.memory.workspaces import (
    CONTEXT,
    CUBLAS,
    CUBLAS_FROM_HOPPER,
    cublas_term,
)
from layerbench.records.card import Card
from layerbench.records.memory import Workspace

_HOPPER = (9, 0)


@dataclass(frozen=True)
class OnDevice:
    """A trace with the sizes that workspaces have on a device.

    Attributes:
        trace: of the run, sizes put in.
        terms: what is taken besides tensors, for the record; the last one is the context.
        notes: what the reader should know.
        memory_bytes: of the device; ``None`` where none is named.
        plans: cuDNN's for the device; ``None`` where none is named.
    """

    trace: Trace
    terms: tuple[Workspace, ...]
    notes: tuple[str, ...] = ()
    memory_bytes: int | None = None
    plans: CudnnPlans | None = None

    @property
    def context(self) -> Workspace:
        """What the driver and the libraries take outside the allocator."""
        return self.terms[-1]

    @property
    def capacity(self) -> int | None:
        """Bytes that the allocator can have."""
        if self.memory_bytes is None:
            return None
        return max(0, self.memory_bytes - self.context.bytes)

    def smaller(self, allocation: Allocation) -> Sequence[int]:
        """Workspaces of the plans that PyTorch tries next, each smaller than the one before."""
        if self.plans is None or not isinstance(allocation.kernel, Convolution):
            return ()
        return [plan.workspace for plan in self.plans.smaller(allocation.kernel)]


def on_device(run: RunForGpu, card: Card | None, memory_bytes: int | None = None) -> OnDevice:
    """A run on a card, with cuDNN's own answers where it can be asked.

    Without a card, on a GPU that is not named, workspaces stay within their bounds. A card's memory
    is what its data sheet says where ``memory_bytes`` says no other.
    """
    trace, workspaces = run.traced.trace, run.workspaces
    if card is None:
        return OnDevice(trace, (*workspaces.terms(), CONTEXT))
    asked = cudnn_plans(card)
    cublas = CUBLAS_FROM_HOPPER if card.version >= _HOPPER else CUBLAS.bytes
    kernels = {one.kernel for one in trace.allocations if isinstance(one.kernel, Convolution)}
    plans = {kernel: asked.of(kernel) for kernel in kernels}
    sizes: dict[object, int] = {kernel: plan.workspace for kernel, plan in plans.items() if plan}
    sizes[CUBLAS] = cublas
    allocations = [
        _sized(one, sizes[one.kernel]) if one.kernel in sizes else one for one in trace.allocations
    ]
    terms = [cublas_term(cublas)] if workspaces.products else []
    terms += _engines(plans.values())
    unknown = [kernel for kernel, plan in plans.items() if plan is None]
    if unknown:
        terms += [term for term in workspaces.terms() if term.name.startswith("cuDNN")]
    return OnDevice(
        replace(trace, allocations=allocations),
        (*terms, CONTEXT),
        _notes(asked, len(plans), len(unknown), card),
        card.memory_bytes if memory_bytes is None else memory_bytes,
        asked,
    )


def _sized(allocation: Allocation, size: int) -> Allocation:
    sized = copy(allocation)
    sized.bytes = sized.low = sized.high = size
    return sized


def _engines(plans: Iterable[ConvolutionPlan | None]) -> list[Workspace]:
    """A term for each engine, the largest workspace first."""
    uses: Counter[str] = Counter()
    largest: dict[str, int] = {}
    for plan in plans:
        if plan is not None:
            engine = plan.engine.partition("_")[0]
            uses[engine] += 1
            largest[engine] = max(largest.get(engine, 0), plan.workspace)
    return [
        Workspace(
            name=f"cuDNN {engine}",
            bytes=size,
            low=size,
            high=size,
            inside=True,
            why=f"the largest of {uses[engine]} kinds of convolutions that it runs; given back "
            "after each",
        )
        for engine, size in sorted(largest.items(), key=lambda item: -item[1])
    ]


def _notes(asked: CudnnPlans, convolutions: int, unknown: int, card: Card) -> tuple[str, ...]:
    if not unknown:
        return ()
    if asked.missing:
        return (f"the workspaces of convolutions are within bounds only: {asked.missing}",)
    return (
        f"cuDNN has no plan for {unknown} of {convolutions} kinds of convolutions on "
        f"{card.title}: their workspaces are within bounds only",
    )
