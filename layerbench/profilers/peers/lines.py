"""pytorch-memlab's line profile: what CUDA's allocator held at each line of chosen functions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.run_context import gradients_on
from layerbench.errors import UsageError
from layerbench.instruments.attach import Forward
from layerbench.introspection.modules import named_modules
from layerbench.profilers.peers import loaded, quietly
from layerbench.profilers.peers.memlab import PACKAGE
from layerbench.records.peers import MemlabFunction, MemlabLine
from layerbench.zoo import Built
from layerbench.zoo.callable import imported

Function = Callable[..., Any]

_ACTIVE = ("active_bytes", "all", "peak")
_RESERVED = ("reserved_bytes", "all", "peak")


def check_lines(lines: Sequence[str], device: Device) -> None:
    """Refuse a line profile where there is nothing to read.

    Args:
        lines: the functions that were named.
        device: where the model runs.

    Raises:
        UsageError: the device is no CUDA one.
    """
    if lines and device.torch_device.type != "cuda":
        raise UsageError(
            "--lines needs a GPU: memlab's line profile reads CUDA's allocator, and this run is on "
            f"{device.torch_device.type}; add --device cuda on a machine that has one"
        )


def functions_named(names: Sequence[str], model: nn.Module) -> tuple[Function, ...]:
    """The functions to look at.

    Args:
        names: each the path of a module, for its forward, or ``package.module:callable`` or
            ``path/to/file.py:callable``.
        model: whose modules they are.

    Raises:
        UsageError: there is none of a name, or it is not written in Python.
    """
    modules = dict(named_modules(model, remove_duplicate=False))
    return tuple(_function(name, modules) for name in names)


def _function(name: str, modules: dict[str, nn.Module]) -> Function:
    if ":" in name:
        value = imported(name)
    elif name in modules:
        value = modules[name]
    else:
        raise UsageError(f"--lines {name}: the model has no such module; give package:callable")
    if isinstance(value, nn.Module):
        value = type(value)
    if inspect.isclass(value) and issubclass(value, nn.Module):
        value = value.forward
    function = inspect.unwrap(inspect.unwrap(value).__func__ if inspect.ismethod(value) else value)
    if not inspect.isfunction(function):
        raise UsageError(f"--lines {name}: it has no lines in Python")
    return function


def line_profile(
    functions: Sequence[Function],
    built: Built,
    device: Device,
    *,
    gradients: bool,
    casting: Callable[[Forward], Forward] = lambda forward: forward,
) -> tuple[MemlabFunction, ...]:
    """What CUDA's allocator held at each line, in one forward.

    To be called where whatever a forward changes is put back. The allocator's peaks start anew.

    Args:
        functions: in their order.
        built: the model and its inputs, on the device.
        device: a CUDA one.
        gradients: whether the forward keeps what a backward needs.
        casting: gives the forward as it runs within autocast.

    Raises:
        PeerFailed: memlab is not installed.
        Exception: whatever the model raises.
    """
    package, _ = loaded(PACKAGE)
    profiler = package.LineProfiler(*functions, target_gpu=device.torch_device.index or 0)
    with _trace_put_back(), gradients_on(gradients), quietly(), profiler:
        casting(built.module)(*built.args, **built.kwargs)
    with quietly():
        figures = _figures(profiler)
    return tuple(_profiled(function, figures) for function in functions)


@contextmanager
def _trace_put_back() -> Iterator[None]:
    """Its profile ends with no trace function at all: a debugger's would be gone."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)


_Figures = dict[tuple[str, int], tuple[int, int]]


def _figures(profiler: Any) -> _Figures:  # noqa: ANN401 - memlab's LineProfiler
    """Active and reserved bytes by the function's name and the line's number."""
    table = profiler.display()._line_records
    if not len(table):
        return {}
    return {
        (str(name), int(line)): (int(active), int(reserved))
        for (name, line), active, reserved in zip(
            table.index, table[_ACTIVE], table[_RESERVED], strict=True
        )
    }


def _profiled(function: Function, figures: _Figures) -> MemlabFunction:
    source, first = inspect.getsourcelines(function)
    name = function.__qualname__
    lines = []
    for number, code in enumerate(source, start=first):
        active, reserved = figures.get((name, number), (None, None))
        lines.append(
            MemlabLine(
                line=number, code=code.rstrip(), active_bytes=active, reserved_bytes=reserved
            )
        )
    return MemlabFunction(name=name, lines=tuple(lines))
