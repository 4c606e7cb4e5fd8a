"""A forward captured as a CUDA graph, and which layer each kernel of its replay belongs to.

A replay launches all kernels at once, and runs no code of the model. So nothing tells which layer
launched a kernel. The forward without the graph launches the same kernels in the same order: there
the profiler tells the layers (docs/decisions/0034).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from layerbench.environment.devices import Device
from layerbench.environment.devices import cuda as cuda_devices
from layerbench.environment.run_context import raise_model_error
from layerbench.errors import ModelRunError, UsageError, first_line
from layerbench.instruments.kernel_timer import in_root, profiled
from layerbench.instruments.kernels import HostEvent, Kernel, KernelForward, added_up, events_of
from layerbench.instruments.modules import Call
from layerbench.records.workload import Workload
from layerbench.text import beginning

# Libraries choose their algorithms, and allocate, in the first forwards: PyTorch asks for a few.
_WARM_UP = 3
# Characters of a kernel's name in a sentence.
_SHOWN = 60


def check_graphs(workload: Workload, device: Device) -> None:
    """Refuse a workload with a CUDA graph where there are none.

    Raises:
        UsageError: the device has none, or the model is to be compiled as well.
    """
    if not workload.cuda_graph:
        return
    if device.kind != cuda_devices.Cuda.kind:
        raise UsageError(
            f"--cuda-graph needs a GPU of CUDA or ROCm: {device.torch_device} has no such graphs"
        )
    if workload.compile:
        raise UsageError(
            "--cuda-graph captures a model that is not compiled: with --compile take "
            "--compile=reduce-overhead, which captures graphs of its own"
        )


def captured(call: Call, device: Device, model: str) -> Call:
    """Capture a forward, as PyTorch's documentation says: after some on a side stream.

    The inputs are read where they lie now, and the weights, too.

    Args:
        call: runs the model.
        device: a GPU.
        model: its name, for messages.

    Returns:
        replays it.

    Raises:
        ModelRunError: it cannot be captured; the line says why.
    """
    cuda: Any = cuda_devices.cuda
    try:
        with cuda.device(device.torch_device.index):
            side = cuda.Stream()
            side.wait_stream(cuda.current_stream())
            with cuda.stream(side):
                for _ in range(_WARM_UP):
                    call()
            cuda.current_stream().wait_stream(side)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                call()
    except Exception as error:
        cause = error.__cause__ if isinstance(error, ModelRunError) and error.__cause__ else error
        said = f"{model} cannot be captured as a CUDA graph: {first_line(cause)}"
        if not isinstance(cause, Exception):
            raise
        raise_model_error(cause, device, said)
    replay: Call = graph.replay
    return replay


@dataclass(frozen=True)
class Seen:
    """What the profiler saw of one forward.

    Attributes:
        host: operators and ranges.
        kernels: in the order of their starts.
    """

    host: Sequence[HostEvent]
    kernels: Sequence[Kernel]

    @classmethod
    def of(cls, results: Any) -> Seen:  # noqa: ANN401 - torch's private class
        """From what `profiled` gives."""
        host, kernels = events_of(results)
        return cls(host, sorted(kernels, key=lambda kernel: (kernel.start_ns, kernel.end_ns)))


class ReplayTimer:
    """Times the layers' kernels in replays of a graph.

    Args:
        eager: what the profiler saw of the forward without the graph, with ranges of modules.
        modules: how many indices the ranges have.
        device: where it runs.

    Attributes:
        unlike: why kernels of a replay are not known; empty where each was.
    """

    def __init__(self, eager: Seen, modules: int, device: Device) -> None:
        self._eager = eager
        self._modules = modules
        self._device = device
        self.unlike = ""

    def run(self, call: Call, *, shapes: bool = False) -> KernelForward:  # noqa: ARG002
        """Replay once under the profiler and add the kernels up.

        Args:
            call: replays.
            shapes: those of the forward without the graph are known.
        """
        replayed = Seen.of(profiled(in_root(call, self._device), self._device)).kernels
        self.unlike = self.unlike or why_unlike(self._eager.kernels, replayed)
        if self.unlike:
            return added_up([], replayed, self._modules)
        pairs = zip(replayed, self._eager.kernels, strict=True)
        kernels = [replace(kernel, launched_by=like.launched_by) for kernel, like in pairs]
        return added_up(self._eager.host, kernels, self._modules)


def why_unlike(eager: Sequence[Kernel], replayed: Sequence[Kernel]) -> str:
    """Why kernels of a replay are not those of the forward without the graph; empty if they are.

    Args:
        eager, replayed: in the order of their starts.
    """
    if not replayed:
        return "the profiler shows no kernel of a graph"
    for number, (kernel, like) in enumerate(zip(replayed, eager, strict=False), 1):
        if kernel.name != like.name:
            names = (beginning(one.name, _SHOWN) for one in (kernel, like))
            return f"kernel {number} is {' in the graph, and '.join(names)} without it"
    if len(replayed) != len(eager):
        return f"the graph has {len(replayed)} kernels, and the forward without it {len(eager)}"
    return ""
