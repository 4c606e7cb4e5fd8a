"""The recipe of a memory prediction: fake tensors, a model of the allocator, stated terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import layerbench
from layerbench import zoo
from layerbench.devices import Device
from layerbench.errors import LayerbenchError, ModelRunError, NotEnoughMemory, UsageError
from layerbench.estimation.allocator import Block, CachingAllocator
from layerbench.estimation.kernels import chosen_as_on_gpu
from layerbench.estimation.workspaces import CONTEXT, Workspaces
from layerbench.guards import input_bytes, memory_explained, refuse_too_large, torch_version
from layerbench.instruments.attach import mode_set, tensors_replaced
from layerbench.instruments.memory import events, hold, peak_bytes
from layerbench.instruments.storages import Allocation, Trace
from layerbench.instruments.structure import first_line
from layerbench.nested import map_tensors
from layerbench.records import Interval, MemoryEstimate
from layerbench.records.memory import Optimizer
from layerbench.tracing import RunFailed, Traced, trace_run
from layerbench.units import bytes_
from layerbench.workload import Workload
from layerbench.zoo import Built

DEVICE = "cuda"

Level = Literal["low", "figure", "high"]

# Among free blocks of one size the device's addresses decide, and nobody knows them; and what ran
# before has cut the free memory into other pieces. One large segment, or a twentieth where there
# are many, more or less.
_SEGMENT = 20 * 2**20
_FRAGMENTED = 0.05


def predict(
    workload: Workload, *, optimizer: Optimizer | None = None, subject: Built | None = None
) -> MemoryEstimate:
    """Predict the memory that a workload needs on a CUDA device, without one.

    The state predicted is a steady one: libraries have taken their workspaces, an optimizer
    has its state.

    Args:
        workload: what would run; a training workload needs an optimizer.
        optimizer: makes it a training step.
        subject: a model that was handed over, with its inputs; it stays as it was.

    Raises:
        ModelRunError: the model does not take the input.
        NotEnoughMemory: a model that has to run for real on the CPU does not fit there.
    """
    try:
        return _predict_fake(workload, optimizer, subject)
    except _FakeDoesNotSuffice as error:
        reason = str(error)
    workspaces = Workspaces()
    traced = _real_run(workload, optimizer, subject, workspaces)
    note = f"replayed from a real run on the CPU, as fake tensors do not suffice: {reason}"
    return _record(workload, optimizer, traced, "replayed", workspaces, (note,))


def refuse_hopeless(workload: Workload, device: Device, optimizer: Optimizer | None) -> None:
    """Refuse a real run whose tensors cannot fit, before an operating system kills it.

    Looked at only where the input alone takes a hundredth of what is free; a model that fake
    tensors do not suffice for is let through.

    Raises:
        NotEnoughMemory: with the bytes that the run needs at least, and those that are free.
    """
    free = device.memory().free_bytes
    if input_bytes(workload) * 100 < free:
        return
    try:
        needed = _predict_fake(workload, optimizer, None).peak_interval.low
    except (_FakeDoesNotSuffice, LayerbenchError):
        return
    if needed > free:
        raise NotEnoughMemory(
            f"the run needs at least {bytes_(needed)} for its tensors, and {bytes_(free)} are "
            f"free on {device.kind}: take a smaller input or batch, or predict with --device cuda"
        )


class _FakeDoesNotSuffice(Exception):
    """A model looks at values, or runs an operator that knows no fake tensors."""


def _predict_fake(
    workload: Workload, optimizer: Optimizer | None, subject: Built | None
) -> MemoryEstimate:
    reason = ""
    for device in _stand_in_devices(training=optimizer is not None):
        workspaces = Workspaces()
        try:
            traced = _fake_run(workload, optimizer, subject, workspaces, device)
        except LayerbenchError:
            raise
        except Exception as error:
            reason = first_line(error)
        else:
            return _record(workload, optimizer, traced, "fake", workspaces, ())
    raise _FakeDoesNotSuffice(reason)


# --- running -------------------------------------------------------------------------------


def _fake_run(
    workload: Workload,
    optimizer: str | None,
    subject: Built | None,
    workspaces: Workspaces,
    device: str,
) -> Traced:
    from torch._subclasses.fake_tensor import FakeTensorMode

    built = subject or zoo.build_shapes(workload)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    # Meta tensors need no mode: PyTorch's own kernels for them give shapes.
    fakes: AbstractContextManager[object] = (
        _Elementwise()  # type: ignore[no-untyped-call]
        if device == "meta"
        else FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
    )
    with (
        mode_set(built.module, workload.mode == "train"),
        fakes,
        tensors_replaced(built.module, fake),
        chosen_as_on_gpu(),
    ):
        args, kwargs = map_tensors((built.args, built.kwargs), fake)
        return trace_run(
            Built(built.module, args, kwargs),
            optimizer=optimizer,
            device=device,
            for_gpu=True,
            workspace=workspaces,
            stepping=_OptimizerStep,
        )


def _stand_in_devices(*, training: bool) -> tuple[str, ...]:
    """What the tensors that stand in for a GPU's say they are on, in the order to be tried.

    Without a GPU, autograd's engine refuses to go backward over CUDA tensors, fake ones too: it
    asks the driver for the current stream; and some CUDA operators know no fake tensors.
    There meta tensors stand in, which are fast, or fake CPU tensors, which know more operators.
    What runs is the same but for attention and dropout, which are chosen here (a test compares
    them).
    """
    return ("meta", "cpu") if training and not torch.cuda.is_available() else (DEVICE, "cpu")


def _real_run(
    workload: Workload, optimizer: str | None, subject: Built | None, workspaces: Workspaces
) -> Traced:
    from layerbench import devices

    cpu = devices.get("cpu")
    with memory_explained(cpu):
        refuse_too_large(workload, cpu, subject)
        built = subject or zoo.build(workload, load_weights=False)
        if subject is not None and optimizer is not None:
            built = Built(copy.deepcopy(subject.module), subject.args, subject.kwargs)
        try:
            with mode_set(built.module, workload.mode == "train"):
                return trace_run(
                    built,
                    optimizer=optimizer,
                    device="cpu",
                    for_gpu=True,
                    workspace=workspaces,
                )
        except RunFailed as error:
            raise ModelRunError(f"{workload.model}: {error}") from error


class _Elementwise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers at once for operators on meta tensors that lie alike: the result does too.

    PyTorch's own answer goes through its reference implementations in Python, which is most of
    the time that a network of concatenations would take.
    """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        del types
        in_place = _ELEMENTWISE.get(func)
        if in_place is not None and _lie_alike(args):
            return args[0] if in_place else torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def _lie_alike(args: Sequence[Any]) -> bool:
    first, *others = (arg for arg in args if isinstance(arg, torch.Tensor))
    return first is args[0] and all(
        other.is_meta
        and other.dtype == first.dtype
        and other.shape == first.shape
        and other.stride() == first.stride()
        for other in others
    )


_ATEN = torch.ops.aten
# Whether each works in place.
_ELEMENTWISE = {
    _ATEN.add.Tensor: False,
    _ATEN.add_.Tensor: True,
    _ATEN.mul.Tensor: False,
    _ATEN.mul_.Tensor: True,
    _ATEN.relu_.default: True,
    _ATEN.silu_.default: True,
    _ATEN.silu_backward.default: False,
    _ATEN.threshold_backward.default: False,
}


class _OptimizerStep(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers for an optimizer what fake tensors cannot, or only slowly.

    A step count reads as 1. An operator on a list of tensors, which without a GPU would be
    taken apart into one for each, changes nothing that memory shows where it works in
    place, and else gives a list of new tensors.
    """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        del types
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cpu":
            return 1.0
        name = func.overloadpacket.__name__
        if name.startswith("_foreach_") and name.endswith("_"):
            return None
        if name in _LIKE_THEIR_INPUTS:
            return [torch.empty_like(tensor) for tensor in args[0]]
        return func(*args, **(kwargs or {}))


_LIKE_THEIR_INPUTS = frozenset(
    f"_foreach_{name}"
    for name in ("abs", "add", "addcdiv", "addcmul", "div", "lerp", "maximum", "mul", "neg", "pow",
                 "reciprocal", "rsqrt", "sqrt", "sub")
)  # fmt: skip


# --- the allocator -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Replayed:
    """What the model of the allocator made of a trace.

    Attributes:
        sizes: of the block that each allocation got.
        reserved: bytes of all segments at the end; they are never given back.
    """

    sizes: list[int]
    reserved: int


def replay(trace: Trace, level: Level) -> _Replayed:
    """Put a trace through the allocator, with workspaces at one of their three sizes."""
    allocator = CachingAllocator()
    blocks: dict[int, Block] = {}
    sizes = [0] * len(trace.allocations)
    for allocation, index, birth in events(trace):
        if birth:
            wanted = _wanted(allocation, level)
            if wanted > 0:
                blocks[index] = allocator.allocate(wanted)
                sizes[index] = blocks[index].size
        elif index in blocks:
            allocator.release(blocks.pop(index))
    return _Replayed(sizes, allocator.reserved)


def _wanted(allocation: Allocation, level: Level) -> int:
    if allocation.low is None or allocation.high is None or level == "figure":
        return allocation.bytes
    return allocation.low if level == "low" else allocation.high


# --- the record ----------------------------------------------------------------------------


def _record(
    workload: Workload,
    optimizer: Optimizer | None,
    traced: Traced,
    how: str,
    workspaces: Workspaces,
    notes: Sequence[str],
) -> MemoryEstimate:
    levels: tuple[Level, ...] = ("low", "figure", "high")
    runs = {level: replay(traced.trace, level) for level in levels}
    figure = hold(traced.trace, runs["figure"].sizes, traced.modules, traced.calls)
    allocated = [peak_bytes(traced.trace, run.sizes) for run in runs.values()]
    reserved = [run.reserved for run in runs.values()]
    peak_interval = Interval(low=min(allocated), high=max(allocated))
    reserved_interval = Interval(
        low=max(min(reserved) - _spread(min(reserved)), peak_interval.low),
        high=max(reserved) + _spread(max(reserved)),
    )
    return MemoryEstimate.model_validate(
        {
            "workload": workload,
            "device": DEVICE,
            "how": how,
            "training": optimizer is not None,
            "optimizer": optimizer,
            "torch": torch_version(),
            "layerbench": layerbench.__version__,
            "model_type": traced.model_type,
            "peak_bytes": figure.peak.bytes,
            "peak_interval": peak_interval,
            "reserved_bytes": runs["figure"].reserved,
            "reserved_interval": reserved_interval,
            "total_bytes": runs["figure"].reserved + CONTEXT.bytes,
            "total_interval": Interval(
                low=reserved_interval.low + CONTEXT.low,
                high=reserved_interval.high + CONTEXT.high,
            ),
            "peak_owner": figure.peak.owner,
            "peak_phase": figure.peak.phase,
            "peak_operator": figure.peak.operator,
            "by_category": figure.peak.by_category,
            "rows": figure.rows,
            "timeline": figure.timeline,
            "workspaces": workspaces.terms(),
            "notes": tuple(notes),
        }
    )


def _spread(reserved: int) -> int:
    return max(_SEGMENT, int(reserved * _FRAGMENTED))


def check_device(device: str) -> None:
    """Raise `UsageError` for a device whose memory cannot be predicted."""
    if device.partition(":")[0] != DEVICE:
        raise UsageError(f"memory can be predicted for {DEVICE}, not for {device}")
