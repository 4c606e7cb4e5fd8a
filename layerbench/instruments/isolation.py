"""Leaves alone: each on the inputs that it had in the model's forward, hot and with cold caches.

In one forward every leaf is met where it is called. There it runs by itself again and again, and
then once more for the model. So autocast, gradients, device and queue are as they are there, and
what is kept are one call's inputs and one module's tensors at a time. What a call writes is put
back before the next one: an input, running statistics, a cache, generators of random numbers.

Calls of one module that are alike in shapes, formats and plain arguments are timed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench.environment import devices
from layerbench.errors import UsageError, first_line
from layerbench.instruments.attach import (
    Attachment,
    Forward,
    Replacement,
    function_at,
    usual_place,
)
from layerbench.instruments.autocast_seen import autocast_type
from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.modules import Call
from layerbench.instruments.python_state import PythonState
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.tensor_state import TensorState
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.units import bytes_

AloneTimer = Callable[[Call], int]
"""Runs something once and gives the nanoseconds that it took."""

# Of one module, calls that are not alike.
_MOST_KINDS = 16
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


@dataclass
class Alone:
    """What one leaf takes alone for its calls in one forward, all added up.

    Attributes:
        hot_ns: shape (hot calls,): each call at once after another one.
        cold_ns: shape (cold calls,): each with the caches swept before it.
    """

    hot_ns: NDArray[np.int64]
    cold_ns: NDArray[np.int64]

    def plus(self, other: Alone | None) -> Alone:
        """With another call's times."""
        if other is None:
            return self
        return Alone(self.hot_ns + other.hot_ns, self.cold_ns + other.cold_ns)


@dataclass
class Isolator:
    """Times leaves alone within a forward.

    Args:
        leaves: by path; none of them calls another.
        timer: makes what times one leaf.
        sweep: leaves the caches cold.
        hot_calls, cold_calls: that are timed of each kind.
        device_type: of the model's device, as autocast calls it.

    Attributes:
        found: what leaves take alone, by path.
        failed: why others have no times, by path.
    """

    leaves: Mapping[str, nn.Module]
    timer: Callable[[nn.Module], AloneTimer]
    sweep: Callable[[], object]
    hot_calls: int
    cold_calls: int
    device_type: str = "cpu"
    found: dict[str, Alone] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _kinds: dict[tuple[str, object], Alone] = field(default_factory=dict)
    _thread: set[int] = field(default_factory=set)

    def run(self, call: Call, met: Callable[[int], object] = lambda _: None) -> None:
        """Run one forward; each leaf is timed when it is called.

        Args:
            call: runs the model once.
            met: hears how many leaves have been timed.
        """
        self._met = met
        attachment = Attachment(self._replacements())
        with attachment.attached():
            self._thread.add(get_ident())
            try:
                call()
            finally:
                self._thread.clear()
        for path in self.failed:
            self.found.pop(path, None)

    def _replacements(self) -> Iterator[Replacement]:
        for path, module in self.leaves.items():
            if is_compiled(module):
                self.failed[path] = "it is compiled"
                continue
            place = usual_place(module)
            yield module, place, self._met_at(module, function_at(module, place), path)

    def _met_at(self, module: nn.Module, original: Forward, path: str) -> Forward:
        thread = self._thread

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if not is_dynamo_compiling() and get_ident() in thread and path not in self.failed:
                thread.clear()  # what it calls meanwhile, itself perhaps, belongs to it
                try:
                    self._add(module, original, path, args, kwargs)
                finally:
                    thread.add(get_ident())
                    self._met(len(self.found))
            return original(*args, **kwargs)

        return forward

    def _add(
        self,
        module: nn.Module,
        original: Forward,
        path: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        kind = (path, self._kind_of(module, args, kwargs))
        if kind not in self._kinds:
            if sum(known == path for known, _ in self._kinds) >= _MOST_KINDS:
                self.failed[path] = f"it had more than {_MOST_KINDS} kinds of inputs"
                return
            try:
                self._kinds[kind] = self._alone(module, original, args, kwargs)
            except Exception as error:  # the model's own call may well go through
                self.failed[path] = first_line(error)
                return
        self.found[path] = self._kinds[kind].plus(self.found.get(path))

    def _kind_of(self, module: nn.Module, *values: object) -> object:
        """What calls are alike by, besides the module: hashable."""
        types = dict.fromkeys(("cpu", self.device_type))
        cast = map(autocast_type, types)
        modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *cast)
        return (getattr(module, "training", None), modes, *map(_shape_of, values))

    def _alone(
        self, module: nn.Module, original: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Alone:
        if any(isinstance(value, Iterator) for value in (*args, *kwargs.values())):
            raise UsageError("an iterator among its inputs cannot be put back")
        if any(map(_is_in_graph, tensors_in((args, kwargs)))):
            args, kwargs = map_tensors((args, kwargs), _cut_off)
        timer = self.timer(module)
        with _as_before((module, args, kwargs)) as renew:
            output: list[object] = []

            def run() -> None:
                output.append(original(*args, **kwargs))

            def timed(prepare: Callable[[], object] = lambda: None) -> int:
                output.clear()
                renew()
                prepare()
                return timer(run)

            run()
            for _ in range(2):  # a timer of its own kind may have to see a call first
                timed()
            hot = [timed() for _ in range(self.hot_calls)]
            cold = [timed(self.sweep) for _ in range(self.cold_calls)]
        return Alone(np.array(hot, dtype=np.int64), np.array(cold, dtype=np.int64))


@contextmanager
def _as_before(roots: tuple[object, ...]) -> Iterator[Callable[[], None]]:
    """Put back what calls do to a module and its inputs: when asked, and at the end.

    Yields:
        what puts it back; of what the first call did not change, nothing is asked again.

    Raises:
        UsageError: something cannot be put back.
        MemoryError: there is no room to keep the tensors.
    """
    python = PythonState(roots)
    if python.unkept:
        raise UsageError(f"{python.unkept[0]} cannot be put back")
    room = devices.get("cpu").memory().free_bytes // 2
    tensors = TensorState([*python.tensors, *python.table_tensors], room=room, hold=True)
    draws = RandomState()
    every = (python.restore, tensors.restore, draws.restore)
    needed: list[Callable[[], bool]] | None = None

    def renew() -> None:
        nonlocal needed
        if needed is None:
            needed = [restore for restore in every if restore()]
            return
        for restore in needed:
            restore()

    try:
        if tensors.without_room:
            raise MemoryError(f"no room to keep {bytes_(tensors.without_room)} of its tensors")
        yield renew
    finally:
        python.restore()
        tensors.restore()
        draws.put_back()


def _is_in_graph(tensor: torch.Tensor) -> bool:
    return tensor.grad_fn is not None and torch.is_grad_enabled()


def _cut_off(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that no backward leads out of, into which a layer may write as into this one."""
    return tensor.detach().requires_grad_().clone() if _is_in_graph(tensor) else tensor


def _shape_of(value: object) -> object:
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout is torch.strided and not value.is_nested else ()
        shape = () if value.is_nested else tuple(value.shape)
        return (type(value), shape, strides, value.dtype, value.device, value.requires_grad)
    if isinstance(value, (list, tuple)):
        return (type(value), *map(_shape_of, value))
    if isinstance(value, dict):
        return (type(value), *((str(name), _shape_of(each)) for name, each in value.items()))
    if isinstance(value, _PLAIN):
        return (type(value), value)
    return type(value)
