"""A GPU of this machine as a card: the description that `--device FILE.toml` takes. Loads torch.

What a data sheet would say of its FLOP/s follows from the multiprocessors, the highest clock and
what a multiprocessor of the compute capability does in a clock.
"""

from __future__ import annotations

import json
import re
from typing import Any

from layerbench.errors import DeviceUnavailable, UsageError
from layerbench.records.card import Card, Format, limits_of, plain_name
from layerbench.records.options import checked

# Operations of dense products that a multiprocessor does in a clock, half precision summed in
# float32; a multiply-add is two. Sources: the whitepapers of the architectures.
_IN_A_CLOCK: dict[str, dict[Format, int]] = {
    "7.0": {"fp16": 1024},
    "7.5": {"fp16": 1024},
    "8.0": {"tf32": 1024, "fp16": 2048, "bf16": 2048},
    "8.6": {"tf32": 512, "fp16": 1024, "bf16": 1024},
    "8.9": {"tf32": 512, "fp16": 1024, "bf16": 1024},
    "9.0": {"tf32": 2048, "fp16": 4096, "bf16": 4096},
    "10.0": {"tf32": 4096, "fp16": 8192, "bf16": 8192},
    "10.3": {"tf32": 4096, "fp16": 8192, "bf16": 8192},
    "12.0": {"tf32": 512, "fp16": 1024, "bf16": 1024},
    "12.1": {"tf32": 512, "fp16": 1024, "bf16": 1024},
}
# On cards for games the tensor cores sum in float32 at half the rate.
_HALVED = re.compile(r"geforce|titan", re.IGNORECASE)
_KHZ = 1e3
_WATTS = re.compile(r"([\d.]+) W")


def present() -> Card:
    """The GPU that PyTorch would take.

    Raises:
        DeviceUnavailable: there is none with CUDA.
        UsageError: its figures cannot be read, or its compute capability is not known.
    """
    import torch

    from layerbench.environment.devices import cuda

    names = cuda.CudaType().names()
    if not names or not torch.version.cuda:
        raise DeviceUnavailable(
            "there is no NVIDIA GPU on this machine to describe: `layerbench devices` lists those "
            "that are known without it"
        )
    device = cuda.Cuda(cuda.cuda.current_device())
    watts = _WATTS.match(device.describe().details.get("power limit", ""))
    return described(
        cuda.cuda.get_device_properties(device.index), float(watts.group(1)) if watts else None
    )


def described(properties: Any, power_w: float | None = None) -> Card:  # noqa: ANN401 - torch's private class
    """A card of what PyTorch knows of it.

    Args:
        properties: as `torch.cuda.get_device_properties` gives them: clocks in kHz, bytes.
        power_w: the limit of the board's power.

    Raises:
        UsageError: a figure is not there or not plausible, or the compute capability is not
            known.
    """
    capability = f"{properties.major}.{properties.minor}"
    clock_hz = _figure(properties, "clock_rate") * _KHZ
    memory_clock_hz = _figure(properties, "memory_clock_rate") * _KHZ
    bus_bits = int(_figure(properties, "memory_bus_width"))
    multiprocessors = int(_figure(properties, "multi_processor_count"))
    if capability not in _IN_A_CLOCK:
        raise UsageError(
            f"{properties.name}: compute capability {capability} is not known, only "
            f"{', '.join(_IN_A_CLOCK)}"
        )
    rates: dict[Format, float] = {"fp32": 2.0 * limits_of(capability).cores}
    halved = capability in ("8.6", "8.9", "12.0") and _HALVED.search(properties.name)
    for name, operations in _IN_A_CLOCK[capability].items():
        rates[name] = operations / 2 if halved else float(operations)
    values = {
        "name": plain_name(properties.name) or "gpu",
        "title": properties.name,
        "capability": capability,
        "multiprocessors": multiprocessors,
        "clock_hz": clock_hz,
        "memory_bytes": int(_figure(properties, "total_memory")),
        "memory_clock_hz": memory_clock_hz,
        "bus_bits": bus_bits,
        # A line moves a bit at each edge of the clock.
        "bandwidth": 2 * memory_clock_hz * bus_bits / 8,
        "l2_bytes": int(_figure(properties, "L2_cache_size")),
        "flops": {name: rate * multiprocessors * clock_hz for name, rate in rates.items()},
        "power_w": power_w,
        "sources": {
            "card": "CUDA's device attributes on a machine that has it",
            "bandwidth": "twice the memory clock x bus_bits / 8",
            "flops": "multiprocessors x clock_hz x operations in a clock of compute capability "
            f"{capability}; not from a data sheet",
        },
    }
    return checked(Card, values, lambda name: f"{properties.name}: {name}")


def _figure(properties: Any, name: str) -> float:  # noqa: ANN401 - torch's private class
    value = getattr(properties, name, None)
    if not value:
        raise UsageError(
            f"{properties.name}: this version of PyTorch does not tell its {name}: a later one may"
        )
    return float(value)


def toml(card: Card) -> str:
    """The description of a card as a file has it; `layerbench.environment.cards.get` reads it."""
    values = card.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if value not in ({}, [])]
    return "\n".join([f"[{_key(card.name)}]", *lines, ""])


def _value(value: object) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # A text of JSON is one of TOML, but for a letter that TOML has no escape for.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
