"""What a model computes in while it runs: autocast around each forward, TF32 for the block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import torch

from layerbench.environment.devices import Device
from layerbench.errors import UsageError, first_line
from layerbench.records.workload import Precision, autocast_format

Made = TypeVar("Made")
backends: Any = torch.backends  # not typed throughout

# NVIDIA's GPUs multiply TF32 from compute capability 8.0 on, AMD's XF32 from gfx94x on.
_LEAST_CAPABILITY = {"cuda": (8, 0), "hip": (9, 4)}


def check_precision(precision: Precision | None, device: Device) -> None:
    """Refuse a precision that the device does not have, which PyTorch would pass over.

    Raises:
        UsageError: with the reason.
    """
    reason = None
    if precision == "tf32":
        reason = _why_no_tf32(device)
    elif precision is not None:
        reason = _why_no_autocast(precision, device.torch_device.type)
    if reason:
        raise UsageError(f"precision {precision} is not for {device.torch_device}: {reason}")


@contextmanager
def precision_set(precision: Precision | None, device: Device) -> Iterator[None]:
    """Let float32 be multiplied as TF32 in the block, if that is the precision.

    PyTorch's switches are as they were afterwards. Autocast is each forward's own: `autocasting`.

    Raises:
        UsageError: the device does not have the precision.
    """
    check_precision(precision, device)
    with switches_set(precision):
        yield


@contextmanager
def switches_set(precision: Precision | None) -> Iterator[None]:
    """As `precision_set`, of a precision that is known to be the device's."""
    if precision != "tf32":
        yield
        return
    switches = _Switches()
    try:
        switches.allow()
        yield
    finally:
        switches.put_back()


def autocast(precision: Precision | None, kind: str) -> AbstractContextManager[object]:
    """What a forward of this precision runs in, on this kind of device.

    It can be entered again, but not within itself.
    """
    computed = autocast_format(precision)
    return torch.autocast(kind, dtype=getattr(torch, computed)) if computed else nullcontext()


def autocasting(
    forward: Callable[..., Made], precision: Precision | None, kind: str
) -> Callable[..., Made]:
    """The forward within autocast of its own, whose cached weights end with it; or as it is."""
    if autocast_format(precision) is None:
        return forward
    around = autocast(precision, kind)

    def cast(*args: Any, **kwargs: Any) -> Made:  # noqa: ANN401 - stands for any forward
        with around:
            return forward(*args, **kwargs)

    return cast


def _why_no_autocast(precision: Precision, kind: str) -> str | None:
    """PyTorch warns of some formats and raises at others; ``None`` where it does neither."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            autocast(precision, kind)
    except Exception as error:
        return first_line(error)
    return None


def _why_no_tf32(device: Device) -> str | None:
    kind = device.torch_device.type
    if kind == "cpu":
        return None if _cpu_multiplies_tf32() else "the CPU has no AMX-FP16, which PyTorch asks for"
    if kind != "cuda":
        return "PyTorch has no TF32 there"
    name = "hip" if torch.version.hip else kind
    major, minor = torch.cuda.get_device_capability(device.torch_device)
    if (major, minor) < _LEAST_CAPABILITY[name]:
        return f"its compute capability is {major}.{minor}"
    return None


def _cpu_multiplies_tf32() -> bool:
    """As PyTorch's ``use_mkldnn_tf32_linear`` asks, ``aten/src/ATen/native/mkldnn/Linear.cpp``."""
    asked: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(asked.get("amx_fp16")) and bool(backends.mkldnn.is_available())


_PARENTS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))
_OPERATORS = tuple(
    (kind, what) for kind in ("cuda", "mkldnn") for what in ("matmul", "conv", "rnn")
)


class _Switches:
    """PyTorch's switches of TF32, in both of its interfaces, as they are now."""

    def __init__(self) -> None:
        self._each = self._read_each()
        self._older: dict[str, Any] = {}
        # Each raises where somebody has set it through the newer interface.
        with suppress(RuntimeError):
            self._older["matmul"] = torch.get_float32_matmul_precision()
        with suppress(RuntimeError):
            self._older["cudnn"] = backends.cudnn.allow_tf32

    @staticmethod
    def _read_each() -> dict[tuple[str, str], str]:
        """By backend and operator, each as it was set itself: one not set says what is above it."""
        read = getattr(torch._C, "_get_fp32_precision_getter", None)
        if read is None:  # before PyTorch 2.9
            return {}
        each: dict[tuple[str, str], str] = {}
        try:
            for place in _PARENTS:
                each[place] = read(*place)
                _set(place, "none")
            each |= {place: read(*place) for place in _OPERATORS}
        finally:
            for place in _PARENTS:
                if place in each:
                    _set(place, each[place])
        return each

    def allow(self) -> None:
        """Let float32 be multiplied as TF32."""
        if "matmul" in self._older:
            torch.set_float32_matmul_precision("high")
        if "cudnn" in self._older:
            backends.cudnn.allow_tf32 = True
        for place in _OPERATORS if self._each else ():
            _set(place, "tf32")

    def put_back(self) -> None:
        """Set all of them as they were."""
        if "matmul" in self._older:
            torch.set_float32_matmul_precision(self._older["matmul"])
        if "cudnn" in self._older:
            backends.cudnn.allow_tf32 = self._older["cudnn"]
        for place, value in self._each.items():
            _set(place, value)


def _set(place: tuple[str, str], value: str) -> None:
    torch._C._set_fp32_precision_setter(*place, value)
