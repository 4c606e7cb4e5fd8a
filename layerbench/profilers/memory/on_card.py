"""What a traced run takes on one card: cuDNN's plans, cuBLAS's workspace, context and capacity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from layerbench.instruments.storage_tracker import Allocation, KernelMemory, Trace
from layerbench.profilers.memory.cudnn_plans import (
    Convolution,
    ConvolutionPlan,
    CudnnPlans,
    cudnn_plans,
)
from layerbench.profilers.memory.replay import OF_A_CARD, OF_ANY_GPU, Doubt
from layerbench.profilers.memory.run_for_gpu import RunForGpu
from layerbench.profilers.memory.workspaces import (
    CONTEXT,
    CUBLAS,
    CUBLAS_FROM_HOPPER,
    cublas_term,
    of_earlier_releases,
)
from layerbench.records.card import Card
from layerbench.records.memory import Workspace
from layerbench.records.workload import Workload, autocast_format

_HOPPER = (9, 0)


@dataclass(frozen=True)
class OnDevice:
    """A trace with the sizes that workspaces have on a device.

    Attributes:
        trace: of the run, sizes put in.
        terms: what is taken besides tensors, for the record; the last one is the context.
        notes: what the reader should know.
        memory_bytes: of the device; ``None`` where none is named.
        plans: cuDNN's for the device; ``None`` where they are not asked.
        doubt: how far what is reserved there may be from the model of the allocator.
    """

    trace: Trace
    terms: tuple[Workspace, ...]
    notes: tuple[str, ...] = ()
    memory_bytes: int | None = None
    plans: CudnnPlans | None = None
    doubt: Doubt = OF_ANY_GPU

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

    def smaller(self, kernel: object) -> Sequence[int]:
        """Workspaces of the plans that PyTorch tries next, each smaller than the one before."""
        if not isinstance(kernel, Convolution) or self.memory_bytes is None:
            return ()
        if self.plans is None:
            return (0,)  # nearly all have one that needs none
        return self.plans.smaller(kernel)


@dataclass(frozen=True)
class CardWorkspaces:
    """What kernels take on a card.

    Attributes:
        card: that it is.
        sizes: by kernel; those that cuDNN has no plan for are missing.
        plans: of its convolutions.
        asked: what has the plans.
    """

    card: Card
    sizes: Mapping[object, KernelMemory]
    plans: Mapping[Convolution, ConvolutionPlan | None]
    asked: CudnnPlans

    @property
    def unknown(self) -> int:
        """Number of kinds of convolutions without a plan."""
        return sum(plan is None for plan in self.plans.values())

    @property
    def doubt(self) -> Doubt:
        """How far what is reserved may be from the model of the allocator."""
        return OF_ANY_GPU if self.unknown else OF_A_CARD

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        return _notes(self.asked, len(self.plans), self.unknown, self.card)


def workspaces_on(card: Card, kernels: Iterable[object], *, bounds: bool = True) -> CardWorkspaces:
    """What kernels take on a card, with cuDNN's own answers where it can be asked.

    Without ``bounds`` only the figures are asked for, which takes a third of the time.
    """
    asked = cudnn_plans(card)
    cublas = CUBLAS_FROM_HOPPER if card.version >= _HOPPER else CUBLAS.bytes
    convolutions = {kernel for kernel in kernels if isinstance(kernel, Convolution)}
    plans = {kernel: asked.of(kernel) for kernel in convolutions}
    sizes: dict[object, KernelMemory] = {
        kernel: _workspace(kernel, plan.workspace, asked, bounds)
        for kernel, plan in plans.items()
        if plan is not None
    }
    # A product with a bias may go another way, which takes less.
    sizes[CUBLAS] = KernelMemory(cublas, 0 if bounds else cublas, cublas)
    return CardWorkspaces(card, sizes, plans, asked)


def on_device(
    run: RunForGpu, card: Card | None, memory_bytes: int | None = None, *, bounds: bool = True
) -> OnDevice:
    """A run on a card, or on a GPU that is not named, where workspaces stay within their bounds.

    Args:
        run: traced.
        card: ``None`` where none is named.
        memory_bytes: of the device, where it is not what the card's data sheet says.
        bounds: of a card's workspaces, too, and not the figures alone.
    """
    trace, workspaces = run.traced.trace, run.workspaces
    if card is None:
        return OnDevice(trace, (*workspaces.terms(), CONTEXT))
    found = workspaces_on(card, (one.kernel for one in trace.allocations), bounds=bounds)
    sizes = found.sizes
    allocations = [
        _sized(one, sizes[one.kernel]) if one.kernel in sizes else one for one in trace.allocations
    ]
    cublas = sizes[CUBLAS].bytes
    terms = [cublas_term(cublas, 0, cublas)] if workspaces.products else []
    terms += _engines(found.plans, sizes)
    if found.unknown:
        terms += [term for term in workspaces.terms() if term.name.startswith("cuDNN")]
    return OnDevice(
        replace(trace, allocations=allocations),
        (*terms, CONTEXT),
        found.notes,
        card.memory_bytes if memory_bytes is None else memory_bytes,
        found.asked,
        found.doubt,
    )


def _workspace(kernel: Convolution, size: int, asked: CudnnPlans, bounds: bool) -> KernelMemory:
    if not bounds:
        return KernelMemory(size, size, size)
    likely = asked.likely(kernel)
    return KernelMemory(size, min(likely), max(*likely, of_earlier_releases(kernel)))


def _sized(allocation: Allocation, memory: KernelMemory) -> Allocation:
    return allocation.sized(memory.bytes, memory.low, memory.high, allocation.kernel)


def _engines(
    plans: Mapping[Convolution, ConvolutionPlan | None], sizes: Mapping[object, KernelMemory]
) -> list[Workspace]:
    """A term for each engine, the largest workspace first."""
    by_engine: dict[str, list[KernelMemory]] = {}
    for kernel, plan in plans.items():
        if plan is not None:
            by_engine.setdefault(plan.engine.partition("_")[0], []).append(sizes[kernel])
    terms = [
        Workspace(
            name=f"cuDNN {engine}",
            bytes=max(one.bytes for one in taken),
            low=max(one.low for one in taken),
            high=max(one.high for one in taken),
            inside=True,
            why=f"the largest of {len(taken)} kinds of convolutions that it runs; given back "
            "after each; the bounds are those of cuDNN's other first plans, and of earlier "
            "releases",
        )
        for engine, taken in by_engine.items()
    ]
    return sorted(terms, key=lambda term: (-term.bytes, -term.high, term.name))


def notes_on_format(workload: Workload, card: Card | None) -> tuple[str, ...]:
    """What PyTorch does with a format that the card does not compute in."""
    if card is None:
        return ()
    computed = autocast_format(workload.precision) or workload.dtype
    if computed == "bfloat16" and "bf16" not in card.flops:
        return (
            f"{card.title} does not compute in bf16: PyTorch emulates its products, and cuDNN has "
            "no plan for its convolutions, which end with an error there",
        )
    if workload.precision == "tf32" and "tf32" not in card.flops:
        return (f"{card.title} has no TF32: PyTorch passes that over and multiplies float32",)
    return ()


def _notes(asked: CudnnPlans, convolutions: int, unknown: int, card: Card) -> tuple[str, ...]:
    if not unknown:
        return ()
    if asked.missing:
        return (f"the workspaces of convolutions are within bounds only: {asked.missing}",)
    return (
        f"cuDNN has no plan for {unknown} of {convolutions} kinds of convolutions on "
        f"{card.title}: their workspaces are within bounds only",
    )
