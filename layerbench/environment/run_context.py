"""What surrounds every run on a device: threads, gradients, and errors that say what to do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
import torch

from layerbench.environment import cgroups, devices, watch
from layerbench.environment.collection import no_collection
from layerbench.environment.devices import Device
from layerbench.environment.watch import EnvironmentWatch
from layerbench.errors import LayerbenchError, ModelRunError, NotEnoughMemory, first_line
from layerbench.records.workload import Workload
from layerbench.units import bytes_


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Set the intra-op threads for the measurement, and restore the caller's number."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_version() -> str:
    """PyTorch's version without the build, which changes no prediction and no count."""
    return str(torch.__version__).partition("+")[0]


def watch_environment(device: Device) -> EnvironmentWatch:
    """Begin to watch the machine around the run."""
    return watch.watch(
        device.describe(),
        software_settings=devices.torch_settings(),
        threads=torch.get_num_threads(),
        interop_threads=torch.get_num_interop_threads(),
        other_processes_on_device=device.other_processes,
        look=device.look,
    )


def input_bytes(workload: Workload) -> int:
    """Bytes of the workload's (first) input tensor, at least."""
    item: int = min(getattr(torch, name).itemsize for name in workload.formats)
    return int(np.prod(workload.shape, dtype=object)) * item


def check_input_fits(workload: Workload, device: Device) -> None:
    """Refuse an input that does not fit, before anything is allocated.

    It is made in the host's memory and copied to the device, so that it has to fit in both.

    Raises:
        NotEnoughMemory: with the bytes that the input needs, and those that are free.
    """
    needed = input_bytes(workload)
    room = [(device.memory().free_bytes, f"on {device.kind}")]
    if device.kind != "cpu":
        room.append((cgroups.host_memory()[1], "on the host, where inputs are made"))
    for free, where in room:
        if needed > free:
            raise NotEnoughMemory(
                f"the input {'x'.join(map(str, workload.shape))} alone needs {bytes_(needed)}, "
                f"and {bytes_(free)} are free {where}: take a smaller shape or batch"
            )


def free_unused(device: Device) -> None:
    """Give back what ran before in this process and left behind on an accelerator.

    Peaks would count it: a model may wait in a circle of references for the garbage collector, and
    the allocator keeps the memory of tensors that are gone.
    """
    if device.kind != "cpu":
        gc.collect()
        device.forget_freed()


@contextmanager
def memory_explained(device: Device) -> Iterator[None]:
    """Turn an allocator's failure into one line with the bytes requested and free."""
    try:
        yield
    except LayerbenchError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or device.is_out_of_memory(error)):
            raise
        requested = device.requested_bytes(error)
        amount = f"requested {bytes_(requested)}" if requested else "the allocator gave up"
        raise NotEnoughMemory(
            f"not enough memory on {device.kind}: {amount}, {bytes_(device.memory().free_bytes)} "
            "free: take a smaller input or batch"
        ) from error


def raise_model_error(error: Exception, device: Device, line: str | Callable[[], str]) -> NoReturn:
    """Raise one line in place of a model's error; lack of memory and our own errors stay.

    Args:
        error: of the model.
        device: that it ran on.
        line: what is said; a function where it takes another run to say it.

    Raises:
        ModelRunError: with the line.
    """
    if isinstance(error, LayerbenchError) or device.is_out_of_memory(error):
        raise error
    raise ModelRunError(line if isinstance(line, str) else line()) from error


@contextmanager
def model_errors(
    device: Device, before: str, passed: type[Exception] = LayerbenchError
) -> Iterator[None]:
    """Turn a model's error into one line, see `raise_model_error`.

    Args:
        device: that it runs on.
        before: the beginning of the line, before the error's own words.
        passed: errors that are no failure.
    """
    try:
        yield
    except passed:
        raise
    except Exception as error:
        raise_model_error(error, device, f"{before}: {first_line(error)}")


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Collect once, then not inside the block.

    A collection would add to some layer's time. When it frees a tensor is no property of a model.
    Where the collector is off already it collects for the sake of an accelerator alone: of the
    memory that garbage holds there nothing else frees any.
    """
    if gc.isenabled() or devices.any_accelerator_in_use():
        gc.collect()
    with no_collection():
        yield


@contextmanager
def gradients_on(on: bool) -> Iterator[None]:
    """Switch the recording of autograd's graph on or off.

    Without: `torch.no_grad`. A tensor that a model keeps from inference mode can take no part in
    a backward, ever, and a model that takes gradients in its forward does not run there
    (docs/decisions/0017).
    """
    if on:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    else:
        with torch.no_grad():
            yield
