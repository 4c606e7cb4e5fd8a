"""Device rounds: forwards under torch.profiler, which sees each kernel on the device's own clock.

Around every module's call stands a range, so that the operator that launched a kernel tells the
module. The host is slower for being watched; the kernels are not, only the gaps between them
(docs/decisions/0034).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from threading import RLock, get_ident
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _RecordFunctionFast as RecordFunction
from torch.compiler import is_dynamo_compiling
from torch.profiler import ProfilerActivity, profile

from layerbench.environment.devices import Device
from layerbench.errors import first_line
from layerbench.instruments.attach import (
    Attachment,
    Forward,
    Replacement,
    function_at,
    usual_place,
)
from layerbench.instruments.kernels import RANGE, ROOT, KernelForward, added_up, events_of
from layerbench.instruments.modules import Call, modules_at
from layerbench.instruments.profiler_use import library_silent, other_profiler, steps_kept

NOT_BUILT_IN = "PyTorch's profiler has no way to see this kind of device"
SAW_NONE = "PyTorch's profiler was shown none: it may lack a permission"

# Without it some releases warn that a second cycle would lose the first one's events.
_OPTIONS: dict[str, Any] = (
    {"acc_events": True} if "acc_events" in inspect.signature(profile.__init__).parameters else {}
)
# PyTorch has one profiler for the process: a second one, of a model that another thread measures,
# would end the first and lose its kernels.
_ONE_AT_A_TIME = RLock()


class KernelTimer:
    """Times the kernels of a model's modules.

    Args:
        model: any module.
        paths: index → path of the modules of the result; ``paths[0]`` must be ``""``.
        timed_paths: those with ranges; a call of any other counts as part of its caller.
        device: where the model runs.
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], timed_paths: frozenset[str], device: Device
    ) -> None:
        self._modules = len(paths)
        self._device = device
        self._thread: set[int] = set()
        index_of = {path: index for index, path in enumerate(paths)}
        replaced: list[Replacement] = []
        for path, module in modules_at(model, timed_paths - {""}).items():
            place = usual_place(module)
            replaced.append(
                (module, place, self._ranged(function_at(module, place), index_of[path]))
            )
        self._attachment = Attachment(replaced)

    def _ranged(self, original: Forward, index: int) -> Forward:
        name, thread = f"{RANGE}{index}", self._thread

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or get_ident() not in thread:
                return original(*args, **kwargs)
            with RecordFunction(name):
                return original(*args, **kwargs)

        return forward

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:
        """Run one forward under the profiler and add its kernels up.

        Args:
            call: runs the model.
            shapes: whether the shapes of the functions' tensors are noted, which takes the host
                longer.
        """
        host, kernels = events_of(self.results(call, shapes=shapes))
        return added_up(host, kernels, self._modules)

    def results(self, call: Call, *, shapes: bool = False) -> Any:  # noqa: ANN401
        """What `profiled` gives of one forward; arguments as for `run`."""
        with self.ranges():
            return profiled(in_root(call, self._device), self._device, shapes=shapes)

    @contextmanager
    def ranges(self) -> Iterator[None]:
        """Ranges around the modules' calls in this thread for the duration of a ``with`` block."""
        with self._attachment.attached():
            self._thread.add(get_ident())
            try:
                yield
            finally:
                self._thread.clear()


def in_root(call: Call, device: Device) -> Callable[[], object]:
    """Runs the model within its own range, and waits for the device."""
    wait = device.clock().synchronize

    def run() -> None:
        with RecordFunction(f"{RANGE}{ROOT}"):
            call()
        wait()

    return run


def profiled(run: Callable[[], object], device: Device, *, shapes: bool = False) -> Any:  # noqa: ANN401
    """Run something under the profiler and give what that saw; other threads wait meanwhile.

    Args:
        run: waits for the device at its end.
        device: where it runs.
        shapes: whether the shapes of operators' tensors are noted.
    """
    activity = kernel_activity(device)
    activities = [ProfilerActivity.CPU, *([activity] if activity is not None else [])]
    with (
        _ONE_AT_A_TIME,
        library_silent(),
        steps_kept(),
        profile(activities=activities, record_shapes=shapes, **_OPTIONS) as profiler,
    ):
        run()
    return profiler.profiler.kineto_results


def kernel_activity(device: Device) -> ProfilerActivity | None:
    """What the profiler calls the device's kernels; ``None`` where it has no name for them."""
    if device.kind == "cpu":
        return None
    supported: set[ProfilerActivity] = torch.autograd._supported_activities()  # type: ignore[attr-defined]
    for name in (device.kind.upper(), "PrivateUse1"):
        activity: ProfilerActivity | None = getattr(ProfilerActivity, name, None)
        if activity is not None and activity in supported:
            return activity
    return None


def sees_kernels(device: Device) -> bool:
    """Whether the profiler sees kernels there, see `why_unseen`."""
    return not why_unseen(device)


def why_unseen(device: Device) -> str:
    """Why the profiler sees no kernels there: it may not be allowed to, or not be built in.

    Tried on one small addition, unless somebody else uses the profiler: theirs sees nothing of
    ours, and loses nothing by us.

    Returns:
        a phrase; empty where kernels are seen.
    """
    if kernel_activity(device) is None:
        return NOT_BUILT_IN
    with _ONE_AT_A_TIME:  # our own in another thread is nobody else's
        return other_profiler(thorough=True) or _why_unseen(device)


def _why_unseen(device: Device) -> str:
    wait = device.clock().synchronize
    tensor = torch.zeros(16, device=device.torch_device)

    def add() -> None:
        tensor.add(1)
        wait()

    try:
        _, kernels = events_of(profiled(add, device))
    except RuntimeError as error:
        return f"the profiler failed: {first_line(error)}"
    return "" if any(kernel.end_ns > kernel.start_ns for kernel in kernels) else SAW_NONE
