"""Borders of a forward: where the calls of modules begin and end, and which need a mark.

Between two borders the host runs on in one module. Where it put no work into the device's queue
meanwhile, both are the same moment for the device, and one event marks both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._ops import HigherOrderOperator

from layerbench.instruments.kernels import ROOT, KernelForward
from layerbench.instruments.modes import OperatorMode
from layerbench.instruments.operators import operator_name, run_seen
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import parts_of, storage_of

ENTRY = ROOT
"""The border at which the model itself begins; module ``i`` begins at border ``i``."""
EXIT = ~ROOT
"""The border at which the model ends; module ``i`` ends at border ``~i``."""


@dataclass(frozen=True)
class Way:
    """How a forward went.

    Attributes:
        borders: in order: a module's index where its call begins, its complement (``~index``) where
            it ends.
        launched: for each border whether work was put into the device's queue since the border
            before.
    """

    borders: tuple[int, ...]
    launched: tuple[bool, ...]

    def pieces(self, modules: int) -> NDArray[np.int64]:
        """Shape (modules,): pieces of work between two marks, in a module and what it called."""
        pieces = [0] * modules
        for launched, running, _ in zip(
            self.launched, _running(self.borders), self.borders, strict=True
        ):
            for module in set(running) if launched else ():
                pieces[module] += 1
        return np.array(pieces, dtype=np.int64)


class Borders:
    """Crosses the borders of a forward, with a mark at each that needs one.

    Where a forward goes as the one before it that was observed, a border takes the mark of the
    one before if nothing was launched between them; the first and the last have their own, so that
    what nobody saw is within the whole. From the first border on at which it goes
    another way, every border has a mark of its own.

    Args:
        mark: marks a moment.
        count: gives the number that something has come to; ``None`` for nothing.

    Attributes:
        crossed: borders of this forward, as of `Way`.
        marks: of each the mark.
        numbers: of each the count, where there is one.
        is_other_way: whether this forward went another way than the observed one.
        thread: identity of the thread whose borders count; empty, none do.
        elsewhere: indices of modules that other threads called meanwhile.
    """

    def __init__(self, mark: Callable[[], int], count: Callable[[], int] | None = None) -> None:
        self._mark = mark
        self._count = count
        self.crossed: list[int] = []
        self.marks: list[int] = []
        self.numbers: list[int] = []
        self.thread: set[int] = set()
        self.elsewhere: set[int] = set()
        self.is_other_way = False
        self._expected: tuple[int | None, ...] = ()
        self._launched: tuple[bool, ...] = ()
        self._as_expected = False
        self._launches: Launches | None = None
        self._seen: list[bool] = []

    @contextmanager
    def of_forward(self, way: Way | None, launches: Launches | None = None) -> Iterator[None]:
        """One forward of this thread, in a ``with`` block.

        Args:
            way: how it is expected to go; ``None`` where that is not known.
            launches: sees what it launches; for a forward that is observed.
        """
        self.crossed, self.marks, self.numbers, self._seen = [], [], [], []
        self.is_other_way, self._as_expected = False, way is not None
        self._expected = (*way.borders, None) if way else ()  # an end that no border equals
        self._launched = way.launched if way else ()
        self._launches = launches
        self.thread.add(get_ident())
        try:
            yield
        finally:
            self.thread.clear()

    def cross(self, border: int) -> None:
        """Come to a border, as of `Way`."""
        at = len(self.crossed)
        self.crossed.append(border)
        if self._count is not None:
            self.numbers.append(self._count())
        if self._launches is not None:
            self._seen.append(self._launches.taken())
        if self._as_expected:
            if self._expected[at] != border:
                self._as_expected, self.is_other_way = False, True
            elif border not in (ENTRY, EXIT) and not self._launched[at]:
                self.marks.append(self.marks[-1])
                return
        self.marks.append(self._mark())

    def just_entered(self, index: int) -> bool:
        """Whether the last border was the beginning of this module's call."""
        return self.crossed[-1] == index

    def way(self) -> Way:
        """How the forward went that was just observed."""
        return Way(tuple(self.crossed), tuple(self._seen))


class Launches(OperatorMode):
    """Sees whether operators put work into a device's queue.

    An operator launches nothing that gives only views of what it was given, or memory without
    values. Where that is not certain it counts as launching, which costs one more mark.

    Known limitations: kernels that are launched without an operator are not seen.

    Args:
        device_type: of the device, as PyTorch calls it.
    """

    supports_higher_order_operators = True

    def __init__(self, device_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device_type = device_type
        self._any = False

    def note(self) -> None:
        """Take it that work was launched."""
        self._any = True

    def taken(self) -> bool:
        """Whether work was launched since this was last asked."""
        taken, self._any = self._any, False
        return taken

    def operator(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        """Run an operator, and note whether it launched work."""
        if isinstance(func, HigherOrderOperator):
            self._any = True
            return run_seen(func, args, keywords, self)
        output = func(*args, **keywords)
        self._any = self._any or self._launches(func, (args, keywords), output)
        return output

    def _launches(self, func: Any, given: object, output: object) -> bool:  # noqa: ANN401
        try:
            came, made = list(tensors_in(given)), list(tensors_in(output))
            if all(tensor.device.type != self._device_type for tensor in (*came, *made)):
                return False
            if func._schema.is_mutable or not made:
                return True
            if operator_name(func) in _WITHOUT_VALUES:
                return False
            return not _storages(made) <= _storages(came)
        except Exception:  # a tensor class of the user's own may refuse any of it
            return True


_WITHOUT_VALUES = frozenset(
    f"aten.{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)


def _storages(tensors: Sequence[torch.Tensor]) -> set[int]:
    found = set()
    for tensor in tensors:
        for part in parts_of(tensor):
            storage = storage_of(part)
            found.add(id(part) if storage is None else storage._cdata)
    return found


def added_up(
    borders: Sequence[int], positions: Sequence[int], cost_ns: int, modules: int
) -> KernelForward:
    """Give the time between two borders to the module that was running.

    Args:
        borders: of one forward, as of `Way`.
        positions: of their marks, in nanoseconds.
        cost_ns: what a mark itself takes on the device's queue, which is taken off.
        modules: how many indices there are.

    Returns:
        nothing of it idle, and no kernels: what the device did between two marks is not known. The
        modules' own times add up to the span exactly.
    """
    own, inclusive, calls = [0] * modules, [0] * modules, [0] * modules
    before = positions[0]
    for border, running, position in zip(borders, _running(borders), positions, strict=True):
        time = max(0, position - before - cost_ns)
        before = position
        if time:
            own[running[-1]] += time
            for module in set(running):
                inclusive[module] += time
        if border >= 0:
            calls[border] += 1
    return KernelForward(
        inclusive_ns=np.array(inclusive, dtype=np.int64),
        self_ns=np.array(own, dtype=np.int64),
        calls=np.array(calls, dtype=np.int64),
        span_ns=inclusive[ROOT],
        idle_ns=0,
        counts=np.zeros(modules, dtype=np.int64),
        kernels={},
        functions={},
        order={(module, ""): at for at, module in enumerate(dict.fromkeys(_entered(borders)))},
    )


def _entered(borders: Sequence[int]) -> Iterator[int]:
    return (border for border in borders if border >= 0)


def running_in(borders: Sequence[int]) -> int:
    """The innermost module running behind the last border."""
    running = [ROOT]
    for border in borders:
        if border >= 0:
            running.append(border)
        else:
            running.pop()
    return running[-1]


def _running(borders: Sequence[int]) -> Iterator[Sequence[int]]:
    """The modules running just before each border, the innermost last. One list, read at once."""
    running: list[int] = []
    for border in borders:
        yield running
        if border >= 0:
            running.append(border)
        else:
            running.pop()
