"""The life of every tensor storage in a run: who allocated it, when, and when it was freed.

A dispatch mode sees each operator below autograd, so also those of the backward and of an
optimizer; a weak reference on each storage tells its end. The same works on real tensors of any
device and on fake ones (`torch._subclasses.FakeTensorMode`), which have shapes but no memory.
What a kernel takes and gives back inside one operator is not a tensor and is not seen here.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerbench.instruments.autocast_seen import as_called
from layerbench.instruments.calls import CallTree
from layerbench.instruments.in_place import InPlace
from layerbench.instruments.module_tracker import OUTSIDE, RunningModule
from layerbench.instruments.operators import operator_name, run_seen
from layerbench.instruments.replaced import Layer, function_replaced
from layerbench.introspection.tensors import bytes_of, holders_of, parts_of, storage_of
from layerbench.records.memory import Category, Phase


@dataclass(slots=True)
class Allocation:
    """One storage.

    Attributes:
        bytes: as asked for.
        owner: path of the module that ran, ``None`` outside all.
        phase: what was going on.
        operator: that allocated it; empty for what was there before.
        category: what it is for; `instruments.memory_attribution` finds out what the
            tracker cannot know.
        born, died: moments on one count of events; ``None`` while it lives.
        low, high: bounds of ``bytes`` where they are not known but estimated.
        place: the call of the owner that ran, a node of `Trace.calls`; ``None`` where that is not
            known.
        kernel: what a workspace is for, as the rule of workspaces knows it.
    """

    bytes: int
    owner: str | None
    phase: Phase
    operator: str
    category: Category
    born: int
    died: int | None = None
    low: int | None = None
    high: int | None = None
    place: int | None = None
    kernel: object = None

    def sized(self, size: int, low: int | None, high: int | None, kernel: object) -> Allocation:
        """The same with other bytes."""
        # By position: this runs for every storage of every batch that is looked at.
        return Allocation(
            size, self.owner, self.phase, self.operator, self.category, self.born, self.died,
            low, high, self.place, kernel,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One operator.

    Attributes:
        owner, phase, operator, place: as in `Allocation`.
        begin, end: moments: events between them are the operator's own.
    """

    owner: str | None
    phase: Phase
    operator: str
    begin: int
    end: int
    place: int | None = None


@dataclass
class Trace:
    """Everything a run did to memory, in order.

    Attributes:
        allocations: of all storages seen, in order of birth.
        steps: the operators, in order.
        marks: moments that the run named, such as the end of the forward.
        calls: in which the operators ran.
    """

    allocations: list[Allocation] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    calls: CallTree = field(default_factory=CallTree)

    def cut(self, moment: int) -> None:
        """Forget what happened after a moment."""
        self.allocations = [one for one in self.allocations if one.born <= moment]
        for allocation in self.allocations:
            if allocation.died is not None and allocation.died > moment:
                allocation.died = None
        self.steps = [step for step in self.steps if step.begin <= moment]


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """Memory that a kernel takes besides its outputs, an estimate with its bounds, in bytes.

    Attributes:
        lasting: a name where it is taken once and kept, as a library's workspace is; empty
            where it is given back when the operator ends.
        after: how many of the operator's outputs are there when it is taken; ``None`` for all.
        kernel: what it is for, where its size depends on the device.
    """

    bytes: int
    low: int
    high: int
    lasting: str = ""
    after: int | None = None
    kernel: object = None


LOADED = "loaded"
"""The moment when model and input are there and nothing has run."""

WorkspaceRule = Callable[[Any, Sequence[Any], dict[str, Any], Any], Iterable[KernelMemory]]
"""What the kernels of an operator take: (operator, arguments, keyword arguments, output)."""

OperatorListener = Callable[[Step, Any, Sequence[Any], dict[str, Any], Any], object]
"""Hears of each operator that has run: what is noted of it, and what a `WorkspaceRule` gets."""


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes storages while it is entered.

    Args:
        running: says which module an operator belongs to.
        device: storages on other devices are passed over; ``None`` notes all.
        workspace: what kernels take inside an operator, where that is known.
        for_gpu: the tensors stand for a GPU's: what would lie on the host all the same is passed
            over.
        release: called before each operator; frees memory that nobody but us holds.
        listener: hears of each operator.

    Known limitations: a storage allocated inside an operator and not returned by it (a kernel's
    temporary) is not seen; nor is one whose tensor a C++ extension makes without the
    dispatcher.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        running: RunningModule,
        device: str | None = None,
        workspace: WorkspaceRule | None = None,
        for_gpu: bool = False,
        release: Callable[[], object] = lambda: None,
        listener: OperatorListener | None = None,
    ) -> None:
        # The first operator under a dispatch mode loads it otherwise, and meanwhile the frames of
        # that import keep tensors alive that are gone in every later run.
        importlib.import_module("torch._dynamo")
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace(calls=running.calls)
        self.phase: Phase = "load"
        self._running = running
        self._device = device
        self._workspace = workspace
        self._for_gpu = for_gpu
        self._parts_of = holders_of if for_gpu else parts_of
        self._release = release
        self._listener = listener
        self._alive: dict[int, tuple[weakref.ref[_Holder], Allocation]] = {}
        self._lasting: dict[str, Allocation] = {}
        self._names: dict[object, str] = {}
        self._in_place = InPlace()
        self._now = 0
        self._lock = threading.RLock()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an OpOverload; its type is private to torch
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        del types
        if func is _DEVICE:
            # Fake tensors ask for their device as an operator, more often than all others.
            return _device(args[0])
        keywords = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return run_seen(func, args, keywords, self)
        # Threads of the forward's own come here, too, and fake tensors are not made for them.
        with self._lock, as_called(func):
            return self._run(func, args, keywords)

    def _run(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        self._release()
        place, phase = self._running.place(), self.phase
        begin = self._tick()
        target = self._in_place.target(func, args, begin, self._allocation_of)
        output = func(*args, **keywords)
        name = self._names.get(func) or self._names.setdefault(func, operator_name(func))
        taken = [] if self._workspace is None else self._workspace(func, args, keywords, output)
        waiting = deque(taken)
        leaves = (output,) if isinstance(output, torch.Tensor) else tree_leaves(output)
        for there, leaf in enumerate(leaves, 1):
            if isinstance(leaf, torch.Tensor) and not _is_view_without_storage(func, leaf):
                self._see(leaf, place, phase, name, "activations")
            while waiting and waiting[0].after == there:
                self._note_kernel_memory(waiting.popleft(), place, phase, name)
        for kernel_memory in waiting:
            self._note_kernel_memory(kernel_memory, place, phase, name)
        if target is not None:
            self._in_place.note(target, self._allocation_of(output), self._now)
        step = Step(self._owner(place), phase, name, begin, self._now, place)
        self.trace.steps.append(step)
        if self._listener is not None:
            self._listener(step, func, args, keywords, output)
        return output

    def add(self, tensor: torch.Tensor, category: Category) -> None:
        """Note a tensor that is there already, or say what one is for."""
        for part in self._parts_of(tensor):
            allocation = self._allocation_of(part)
            if allocation is not None:
                allocation.category = category
            else:
                self._see_part(part, OUTSIDE, self.phase, "", category)

    def add_packed(self, size: int, category: Category) -> None:
        """Note memory that a library holds for as long as the model is there."""
        self.trace.allocations.append(
            Allocation(size, None, self.phase, "", category, self._tick(), place=OUTSIDE)
        )

    def leave_out(self, tensor: torch.Tensor) -> None:
        """Count a tensor as nothing: it would lie elsewhere."""
        for part in self._parts_of(tensor):
            allocation = self._allocation_of(part)
            if allocation is not None:
                allocation.bytes = 0

    def replaced_bytes(self, tensors: Iterable[torch.Tensor]) -> int:
        """Bytes of parameters and buffers that live on, though they are none of these tensors."""
        self._release()
        present = {_memory(part)[0] for tensor in tensors for part in self._parts_of(tensor)}
        return sum(
            allocation.bytes
            for key, (_, allocation) in self._alive.items()
            if allocation.category in ("parameters", "buffers") and key not in present
        )

    def mark(self, name: str) -> None:
        """Name this moment."""
        self.trace.marks[name] = self._tick()

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """What is noted in the block belongs to this phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def random_states_seen(self) -> Iterator[None]:
        """Note what `torch.get_rng_state` gives, as a checkpoint keeps it: no operator makes it.

        It lies on the host: for a GPU nothing is noted.
        """
        if self._for_gpu:
            yield
            return

        def noting(layer: Layer) -> Callable[[], torch.Tensor]:
            def seen() -> torch.Tensor:
                with self._lock:
                    place, begin, name = self._running.place(), self._tick(), "torch.get_rng_state"
                    state: torch.Tensor = layer.beneath()
                    self._see(state, place, self.phase, name, "activations")
                    owner = self._owner(place)
                    self.trace.steps.append(Step(owner, self.phase, name, begin, self._now, place))
                return state

            return seen

        with function_replaced(torch, "get_rng_state", noting):
            yield

    def finish(self) -> Trace:
        """The trace; live storages have no end. The tracker must not be entered again.

        What libraries take once and keep is there from the moment ``loaded`` on: a run that
        goes on finds it so.
        """
        self.mark("end")
        # Threads end their operators in another order than they began them.
        self.trace.steps.sort(key=lambda step: step.begin)
        self._alive.clear()
        self._in_place.settle(self.trace)
        for allocation in self._lasting.values():
            allocation.born = self.trace.marks.get(LOADED, 0)
        return self.trace

    def _allocation_of(self, part: torch.Tensor) -> Allocation | None:
        key, holder, _ = _memory(part)
        entry = self._alive.get(key)
        return entry[1] if entry is not None and entry[0]() is holder else None

    def _see(
        self,
        tensor: torch.Tensor,
        place: int | None,
        phase: Phase,
        operator: str,
        category: Category,
    ) -> None:
        for part in self._parts_of(tensor):
            self._see_part(part, place, phase, operator, category)

    def _see_part(
        self,
        tensor: torch.Tensor,
        place: int | None,
        phase: Phase,
        operator: str,
        category: Category,
    ) -> None:
        if self._device is not None and _device(tensor).type != self._device:
            return
        key, holder, size = _memory(tensor)
        entry = self._alive.get(key)
        if entry is not None and entry[0]() is holder:
            if entry[1].bytes == size:
                return
            # Resized in place, as an ``out=`` variant does: the old memory is given back.
            entry[1].died = self._tick()
        allocation = Allocation(
            size, self._owner(place), phase, operator, category, self._tick(), place=place
        )
        self.trace.allocations.append(allocation)
        self._alive[key] = (weakref.ref(holder, _Ending(self, key, allocation)), allocation)

    def _note_kernel_memory(
        self, memory: KernelMemory, place: int | None, phase: Phase, operator: str
    ) -> None:
        if memory.lasting in self._lasting:
            return
        place = OUTSIDE if memory.lasting else place
        allocation = Allocation(
            memory.bytes,
            self._owner(place),
            phase,
            operator,
            "workspace",
            self._tick(),
            low=memory.low,
            high=memory.high,
            place=place,
            kernel=memory.kernel,
        )
        self.trace.allocations.append(allocation)
        if memory.lasting:
            self._lasting[memory.lasting] = allocation
        else:
            allocation.died = self._tick()

    def _owner(self, place: int | None) -> str | None:
        return OUTSIDE if place is None else self.trace.calls.paths[place]

    def _ended(self, key: int, allocation: Allocation) -> None:
        if allocation.died is None:
            allocation.died = self._tick()
        entry = self._alive.get(key)
        if entry is not None and entry[1] is allocation:
            del self._alive[key]

    def _tick(self) -> int:
        self._now += 1
        return self._now


class _Ending:
    """Called when a storage is freed. Holds the tracker weakly: a storage may outlive the run."""

    __slots__ = ("_allocation", "_key", "_tracker")

    def __init__(self, tracker: StorageTracker, key: int, allocation: Allocation) -> None:
        self._tracker = weakref.ref(tracker)
        self._key = key
        self._allocation = allocation

    def __call__(self, _: object) -> None:
        tracker = self._tracker()
        if tracker is not None and tracker._alive:
            tracker._ended(self._key, self._allocation)


_DEVICE = torch.ops.prim.device.default


def _device(tensor: torch.Tensor) -> torch.device:
    """Where a tensor is, or a fake one says it is: its attribute is an operator, this is not."""
    fake: torch.device | None = getattr(tensor, "fake_device", None)
    return tensor.device if fake is None else fake


_Holder = torch.UntypedStorage | torch.Tensor
"""What lives as long as the memory."""


def _memory(tensor: torch.Tensor) -> tuple[int, _Holder, int]:
    """What identifies a tensor's memory, what lives as long as it, and its bytes.

    That is the storage; a tensor without one (mkldnn) stands for itself. The zeros that stand for
    a tangent which is not there (`torch.func.jvp`) have a storage that takes no memory.
    """
    storage = storage_of(tensor)
    if storage is None:
        return id(tensor), tensor, bytes_of(tensor)
    size = 0 if tensor._is_zerotensor() else storage.nbytes()
    return storage._cdata, storage, size


def _is_view_without_storage(func: Any, tensor: torch.Tensor) -> bool:  # noqa: ANN401
    return bool(getattr(func, "is_view", False)) and storage_of(tensor) is None
