"""The operators of a workload as a GPU would run them, each with its work and its shape.

A model is traced with a batch that is a large prime. A dimension that is a multiple of it is the
batch's, so that all amounts are known for any batch from one trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.environment.run_context import check_input_fits
from layerbench.errors import LayerbenchError, ModelRunError, NotTraceable, at_least
from layerbench.instruments.calls import CallTree
from layerbench.instruments.flops import formula_of
from layerbench.instruments.memory_attribution import ITERATION
from layerbench.instruments.storage_tracker import Step, Trace
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import shape_of
from layerbench.profilers.latency.kinds import Kind, kind_of
from layerbench.profilers.latency.optimizer_passes import optimizer_step
from layerbench.profilers.memory.batch_line import PRIME_BATCH
from layerbench.profilers.memory.run_for_gpu import FakeDoesNotSuffice, RunForGpu, run_fake
from layerbench.profilers.memory.runs_by_batch import can_change_batch, with_batch
from layerbench.records.memory import Optimizer, Phase
from layerbench.records.samples import RowFacts
from layerbench.records.workload import Workload
from layerbench.zoo import Built


class Amount(NamedTuple):
    """A quantity that grows with the batch.

    Attributes:
        fixed: what is there with any batch.
        each: what each image adds.
    """

    fixed: int = 0
    each: int = 0

    def at(self, batch: int) -> int:
        """The quantity with this many images."""
        return self.fixed + self.each * batch

    def __add__(self, other: object) -> Amount:
        if not isinstance(other, Amount):
            return NotImplemented
        return Amount(self.fixed + other.fixed, self.each + other.each)

    def times(self, factor: int) -> Amount:
        """So many times the quantity."""
        return Amount(self.fixed * factor, self.each * factor)


NOTHING = Amount()
ONE = Amount(1)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator that runs kernels.

    Attributes:
        owner, place, phase: as in `instruments.storage_tracker.Step`.
        name: without its overload, such as ``aten.convolution``.
        kind: what the model of times has learned of.
        flops: as layerbench counts them.
        read, written: bytes of the tensors that go in and come out.
        m, n, k, groups: of its products: rows, columns and the length of the sums, as often as
            there are groups. Of a normalization ``n`` is its length, ``m`` how many there are.
        window: elements of a convolution's or pooling's window.
        stride: of a convolution.
        format: of the numbers that are multiplied, such as ``float16``.
        strided: whether a tensor that goes in does not lie in order.
        backward: whether it computes gradients.
        changed: whether a cast changes the format of its input.
    """

    owner: str | None
    place: int | None
    phase: Phase
    name: str
    kind: Kind
    flops: Amount
    read: Amount
    written: Amount
    m: Amount = NOTHING
    n: Amount = NOTHING
    k: Amount = NOTHING
    groups: Amount = ONE
    window: int = 1
    stride: int = 1
    format: str = "float32"
    strided: bool = False
    backward: bool = False
    changed: bool = False


@dataclass(frozen=True)
class OperatorTrace:
    """The operators of one forward, or of one training step.

    Attributes:
        operators: in the order in which they run.
        modules, calls, tree: as in `profilers.memory.traced_run.Traced`; ``tree`` of the calls
            that the operators' places are in.
        batch: that amounts are right for; ``None`` where they are for any.
        notes: what the reader should know.
        run: that showed them: with any batch, the one at `batch_line.PRIME_BATCH`.
    """

    operators: tuple[Operator, ...]
    modules: tuple[RowFacts, ...]
    calls: Mapping[str, Any]
    tree: CallTree
    batch: int | None = None
    notes: tuple[str, ...] = ()
    run: RunForGpu | None = None


@one_at_a_time
def trace_operators(
    workload: Workload,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    steps: int = 1,
) -> OperatorTrace:
    """The operators that a workload runs on a GPU.

    Args:
        workload: what would run; its batch matters only where it cannot be changed.
        optimizer: makes it a training step.
        subject: a model that was handed over, with its inputs; it stays as it was.
        steps: of a training; two where the run's memory is of interest, too.

    Raises:
        UsageError: the batch is empty.
        ModelRunError: the model does not take the input.
        NotTraceable: only a real run would show its operators.
        NotEnoughMemory: a model that cannot be built without memory does not fit here.
    """
    at_least("the batch", workload.batch, 1)
    if subject is None and can_change_batch(workload):
        try:
            work = with_batch(workload, PRIME_BATCH)
            return _fake_trace(work, optimizer, None, steps, prime=True)
        except FakeDoesNotSuffice as error:
            if error.built and error.needs:
                raise _refusal(workload, error) from None
    try:
        return _fake_trace(workload, optimizer, subject, steps)
    except FakeDoesNotSuffice as error:
        if error.built or subject is not None:
            raise _refusal(workload, error) from None
    # Its constructor needs values, which says nothing of its forward.
    check_input_fits(workload, devices.get("cpu"))
    built = zoo.build(workload, load_weights=False)
    try:
        return _fake_trace(workload, optimizer, built, steps)
    except FakeDoesNotSuffice as error:
        raise _refusal(workload, error) from None


def _fake_trace(
    workload: Workload,
    optimizer: Optimizer | None,
    subject: Built | None,
    steps: int,
    *,
    prime: bool = False,
) -> OperatorTrace:
    """The operators of a run without memory; for any batch where the workload's is the prime."""
    listeners: list[_Listener] = []

    def listen() -> _Listener:
        listeners.append(_Listener(PRIME_BATCH if prime else None))
        return listeners[-1]

    accepts: Callable[[Built], bool] = _batch_is_seen if prime else lambda _: True
    run = run_fake(workload, optimizer, subject, listen, steps, accepts)
    return _trace(run, listeners[-1], optimizer, None if prime else workload.batch)


def _batch_is_seen(built: Built) -> bool:
    """Whether the batch is a dimension of an input; of a list of images it is none."""
    tensors = tensors_in((built.args, built.kwargs))
    return any(side and side % PRIME_BATCH == 0 for one in tensors for side in shape_of(one))


def _refusal(workload: Workload, error: FakeDoesNotSuffice) -> LayerbenchError:
    """What is said of a model that could not be traced."""
    module, line = error.where
    at = f" ({line})" if line else ""
    if not error.needs:
        return ModelRunError(f"{workload.model}: {error}{at}")
    where = f" in {module}" if module else ""
    return NotTraceable(
        f"{workload.model}: {error.needs}{where}{at}, so its operators are not known unless it "
        "runs, and no time is predicted: measure it on the card with layerbench timer; layerbench "
        "mem --device predicts its memory all the same"
    )


def _trace(
    run: RunForGpu, listener: _Listener, optimizer: Optimizer | None, batch: int | None
) -> OperatorTrace:
    traced = run.traced
    begin = traced.trace.marks[ITERATION]
    operators = tuple(operator for moment, operator in listener.heard if moment >= begin)
    if optimizer is not None:
        operators += tuple(_optimizer_operators(traced.trace, optimizer))
    return OperatorTrace(
        operators,
        traced.modules,
        traced.calls,
        traced.trace.calls,
        batch,
        (*traced.notes, *run.notes),
        run,
    )


def _optimizer_operators(trace: Trace, optimizer: Optimizer) -> Iterator[Operator]:
    """One for each module whose parameters got gradients; `torch.optim` takes all at once."""
    step = optimizer_step(optimizer)
    sizes: Counter[tuple[str | None, int | None]] = Counter()
    for allocation in trace.allocations:
        if allocation.category == "gradients" and allocation.born >= trace.marks[ITERATION]:
            sizes[allocation.owner, allocation.place] += allocation.bytes
    for (owner, place), size in sizes.items():
        yield Operator(
            owner=owner,
            place=place,
            phase="optimizer",
            name=f"torch.optim.{optimizer}",
            kind="optimizer",
            flops=NOTHING,
            read=Amount(step.read * size),
            written=Amount(step.written * size),
        )


class _Listener:
    """Notes each operator that runs kernels, with the moment at which it began."""

    def __init__(self, batch: int | None) -> None:
        self.heard: list[tuple[int, Operator]] = []
        self._batch = batch

    def __call__(
        self,
        step: Step,
        func: Any,  # noqa: ANN401 - an OpOverload
        args: Sequence[Any],
        keywords: dict[str, Any],
        output: Any,  # noqa: ANN401 - whatever it returned
    ) -> None:
        if _runs_nothing(func) or step.phase == "optimizer":
            return
        ins = [leaf for leaf in tree_leaves((args, keywords)) if isinstance(leaf, torch.Tensor)]
        outs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        if not outs:
            return
        kind = kind_of(step.operator, args)
        operator = Operator(
            owner=step.owner,
            place=step.place,
            phase=step.phase,
            name=step.operator,
            kind=kind,
            flops=self._flops(func, args, keywords, output),
            read=self._bytes(ins),
            written=self._bytes(outs),
            format=_format(ins or outs),
            strided=any(one.numel() > 1 and not one.is_contiguous() for one in ins),
            backward=step.phase == "backward",
            changed=kind == "copy" and bool(ins) and ins[0].dtype != outs[0].dtype,
        )
        describe = _DESCRIBE.get(kind)
        if describe is not None:
            operator = describe(_Call(operator, args, ins, outs, self._size))
        self.heard.append((step.begin, operator))

    def _size(self, shape: Sequence[int]) -> Amount:
        """Elements of a shape."""
        batch = self._batch
        if batch is None:
            return Amount(prod(shape))
        for at, side in enumerate(shape):
            if side and side % batch == 0:
                return Amount(0, side // batch * prod(shape[:at]) * prod(shape[at + 1 :]))
        return Amount(prod(shape))

    def _bytes(self, tensors: Sequence[torch.Tensor]) -> Amount:
        total = NOTHING
        for tensor in tensors:
            total += self._size(shape_of(tensor)).times(tensor.element_size())
        return total

    def _flops(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload
        args: Sequence[Any],
        keywords: dict[str, Any],
        output: object,
    ) -> Amount:
        formula = formula_of(func)
        if formula is None:
            return NOTHING
        try:
            flops = formula(args, keywords, output)
        except Exception:
            return NOTHING
        return self._size((flops,))


class _Call(NamedTuple):
    """What a description is made of.

    Attributes:
        operator: without what is its kind's own.
        args: positional ones.
        ins, outs: tensors that went in and came out.
        size: elements of a shape.
    """

    operator: Operator
    args: Sequence[Any]
    ins: Sequence[torch.Tensor]
    outs: Sequence[torch.Tensor]
    size: Callable[[Sequence[int]], Amount]

    @property
    def backward(self) -> bool:
        """Whether it is the operator of a gradient, whose first argument is another gradient."""
        return self.operator.name.endswith("_backward")


def _convolution(call: _Call) -> Operator:
    """A product of as many rows as the output has places, for each group of channels."""
    args = call.args
    if call.backward:
        result, image, weight, how = args[0], args[1], args[2], args[4:10]
    else:
        result, image, weight, how = call.outs[0], args[0], args[1], args[3:9]
    stride, transposed, groups = how[0], how[3], how[5]
    shape, filters = shape_of(image if transposed else result), shape_of(weight)
    return replace(
        call.operator,
        m=call.size((shape[0], *shape[2:])),
        n=Amount(filters[0] // groups),
        k=Amount(prod(filters[1:])),
        groups=call.size((groups,)),
        window=prod(filters[2:]),
        stride=stride[0] if len(stride) else 1,
    )


def _product(call: _Call) -> Operator:
    matrices = [one for one in call.ins if one.dim() >= 2][-2:]
    if len(matrices) < 2:
        return call.operator
    *batches, rows, inner = shape_of(matrices[0])
    return replace(
        call.operator,
        m=call.size((rows,)),
        n=call.size((shape_of(call.outs[0])[-1],)),
        k=call.size((inner,)),
        groups=call.size(batches),
    )


def _attention(call: _Call) -> Operator:
    first = 1 if call.backward else 0
    query, key = shape_of(call.ins[first]), shape_of(call.ins[first + 1])
    if len(query) != 4:
        return call.operator
    return replace(
        call.operator,
        m=Amount(query[2]),
        n=Amount(key[2]),
        k=Amount(query[3]),
        groups=call.size(query[:2]),
    )


def _rows(call: _Call) -> Operator:
    shape = shape_of(max((*call.ins, *call.outs), key=lambda one: one.numel()))
    return replace(call.operator, m=call.size(shape[:-1]), n=call.size(shape[-1:]))


def _planes(call: _Call) -> Operator:
    """``m`` planes of ``n`` places each, images times channels of them."""
    shape = shape_of(call.outs[0])
    return replace(call.operator, m=call.size(shape[:2]), n=call.size(shape[2:]))


def _window(call: _Call) -> Operator:
    sides = next((arg for arg in call.args if isinstance(arg, list) and len(arg) in (1, 2, 3)), [1])
    return replace(call.operator, window=prod(sides))


_DESCRIBE: Mapping[Kind, Callable[[_Call], Operator]] = {
    "convolution": _convolution,
    "grouped convolution": _convolution,
    "depthwise convolution": _convolution,
    "product": _product,
    "batched product": _product,
    "attention": _attention,
    "layer norm": _rows,
    "group norm": _rows,
    "softmax": _rows,
    "reduction": _rows,
    "pooling": _window,
    "interpolation": _planes,
}


@cache
def _runs_nothing(func: Any) -> bool:  # noqa: ANN401 - an OpOverload
    """Views, and what only asks for memory."""
    if getattr(func, "is_view", False):
        return True
    name = getattr(getattr(func, "overloadpacket", None), "__name__", "")
    return name in _NO_KERNEL


_NO_KERNEL = frozenset(
    {
        "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "as_strided_",
        "detach", "detach_", "lift_fresh", "lift", "_unsafe_view", "resize_", "set_", "device",
        "sym_size", "sym_numel", "sym_stride", "_local_scalar_dense", "_unsafe_split",
    }
)  # fmt: skip


def _format(tensors: Sequence[torch.Tensor]) -> str:
    """The narrowest floating format of the largest tensors: what products are computed in."""
    floating = [one.dtype for one in tensors if one.dtype.is_floating_point]
    if not floating:
        return str(tensors[0].dtype).removeprefix("torch.") if tensors else "float32"
    return str(min(floating, key=lambda one: one.itemsize)).removeprefix("torch.")
