"""PyTorch's switches that change speed, as text for the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

import torch

backends: Any = torch.backends  # not typed throughout


def torch_settings() -> dict[str, str]:
    """The present switches, by their names in PyTorch.

    One that this version of PyTorch lacks, or refuses to read because it was set through a
    newer interface, is left out. So is a precision of float32 that nobody set: what stands for the
    backend, or for all of them, counts there.
    """
    values = {name: _value(read) for name, read in _SWITCHES.items()}
    return {name: value for name, value in values.items() if value is not None}


# What has a precision of float32 of its own, from PyTorch 2.9 on; the first is for all of them.
_WITH_PRECISION = (
    "",
    "cuda.matmul.",
    "cudnn.",
    "cudnn.conv.",
    "cudnn.rnn.",
    "mkldnn.",
    "mkldnn.matmul.",
    "mkldnn.conv.",
    "mkldnn.rnn.",
)


def _precision(name: str) -> str | None:
    precision: str = attrgetter(f"{name}fp32_precision")(backends)
    return None if precision == "none" else precision


_SWITCHES: dict[str, Callable[[], object]] = {
    "float32_matmul_precision": torch.get_float32_matmul_precision,
    "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    "mkldnn": lambda: backends.mkldnn.is_available() and backends.mkldnn.enabled,
    "parallel_backend": lambda: _parallel_backend(torch.__config__.parallel_info()),
    "cuda.matmul.allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
    "cudnn.enabled": lambda: backends.cudnn.enabled,
    "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
    "cudnn.benchmark": lambda: backends.cudnn.benchmark,
    "cudnn.deterministic": lambda: backends.cudnn.deterministic,
    **{f"{name}fp32_precision": partial(_precision, name) for name in _WITH_PRECISION},
}


def _value(read: Callable[[], object]) -> str | None:
    try:
        value = read()
    except (AttributeError, RuntimeError):
        return None
    return None if value is None else str(value)


def _parallel_backend(information: str) -> str | None:
    for line in information.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "ATen parallel backend":
            return value.strip()
    return None
