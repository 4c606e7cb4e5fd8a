"""Devices: each has a clock, memory, and a description.

A new kind of device is one new file in this folder that offers `DeviceType` objects in a tuple
``DEVICE_TYPES``. Nothing here loads torch before `get`, `names` or `torch_settings` is called.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from layerbench.environment.devices.device import Device, DeviceType, MemoryInfo
from layerbench.errors import DeviceUnavailable
from layerbench.introspection.modules import buffers, parameters
from layerbench.registry import modules, offered

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Device",
    "DeviceType",
    "MemoryInfo",
    "any_accelerator_in_use",
    "device_types",
    "get",
    "names",
    "of_module",
    "torch_settings",
]


def device_types() -> list[DeviceType]:
    """All kinds of devices: this folder's and other packages', preferred ones first."""
    kinds: list[DeviceType] = []
    for file in modules(__name__, __path__):
        kinds.extend(getattr(file, "DEVICE_TYPES", ()))
    return sorted([*kinds, *offered("layerbench.devices")], key=lambda kind: kind.rank)


def names() -> list[str]:
    """The devices on this machine, preferred ones first: ``["cuda:0", "cpu"]``."""
    return [name for kind in device_types() for name in kind.names()]


def get(name: str | None = None) -> Device:
    """The device of this name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``xpu``, ``mps``, ...; ``None`` or ``auto`` for the
            best accelerator there is, else the CPU. A ``torch.device`` goes by its name.

    Raises:
        DeviceUnavailable: it is not on this machine; the message lists those that are.
    """
    wanted = str(name or "auto").strip().lower()
    present: list[str] = []
    for kind in device_types():
        here = kind.names()
        if here and wanted == "auto":
            return kind.open(here[0].partition(":")[0])
        if _is_among(wanted, here):
            return kind.open(wanted)
        present.extend(here)
    raise DeviceUnavailable(
        f"no device {str(name)!r} on this machine, which has {', '.join(present)}; "
        "--device cpu always works"
    )


def of_module(module: nn.Module, inputs: object = ()) -> Device:
    """The device of a module's first parameter or buffer; of a module without any, its inputs'.

    Args:
        module: that is about to run.
        inputs: what it is called with, in Python's own containers; without a tensor, the CPU.

    Raises:
        DeviceUnavailable: the module's tensors hold no values.
    """
    from layerbench.introspection.nested import tensors_in_plain  # load torch
    from layerbench.introspection.tensors import check_values

    tensors = (*parameters(module), *buffers(module))
    check_values(tensors)
    tensors = tensors or tuple(islice(tensors_in_plain(inputs), 1))
    return get(str(tensors[0].device) if tensors else "cpu")


def _is_among(wanted: str, here: list[str]) -> bool:
    """Whether a name means one of these: itself, a kind, or the only one of its kind."""
    kinds = {name.partition(":")[0] for name in here}
    only_ones = {f"{name}:0" for name in here if ":" not in name}
    return wanted in kinds | only_ones | set(here)


def torch_settings() -> dict[str, str]:
    """PyTorch's switches that change speed, by name (see `environment.devices.settings`)."""
    from layerbench.environment.devices import settings

    return settings.torch_settings()


def any_accelerator_in_use() -> bool:
    """Whether this process may hold memory of an accelerator."""
    from layerbench.environment.devices import accelerator, cuda

    return bool(cuda.cuda.is_initialized()) or accelerator.any_in_use()
