"""Code as Inductor writes it for a GPU, which runs on the simulated accelerator.

Inductor has no backend for `sim`. So the code is written by hand, as `torch._inductor` 2.14 writes
it: a device guard, streams, kernels of Triton's that are run on them, functions of libraries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _RecordFunctionFast as RecordFunction

from layerbench.instruments.compilation import Compilation, CompiledKernel
from tests.simulated import load

CODE = """
class Runner:
    def __init__(self, partitions):
        self.partitions = partitions

    def recursively_apply_fns(self, fns):
        self.partitions = [fn(c) for fn, c in zip(fns, self.partitions)]

    def call(self, args):
        arg0_1, arg1_1, arg2_1 = args
        args.clear()
        partition0_args = [arg0_1, arg1_1, arg2_1]
        del arg0_1, arg1_1, arg2_1
        (buf4,) = self.partitions[0](partition0_args)
        del partition0_args
        return (buf4, )

def partition_0(args):
    arg0_1, arg1_1, arg2_1 = args
    args.clear()
    assert_size_stride(arg0_1, (4, 4), (4, 1))
    with torch.cuda._DeviceGuard(0):
        torch.cuda.set_device(0)
        arg0_1 = copy_if_misaligned(arg0_1)
        buf0 = empty_strided_cuda((4, 4), (4, 1), torch.float32)
        # Topologically Sorted Source Nodes: [x], Original ATen: [aten.t, aten.mm]
        # [Provenance debug handles] extern_kernels.mm:1
        extern_kernels.mm(arg0_1, reinterpret_tensor(arg1_1, (4, 4), (1, 4), 0), out=buf0)
        del arg0_1
        del arg1_1
        buf1 = buf0; del buf0  # reuse
        # Topologically Sorted Source Nodes: [x_1], Original ATen: [aten.relu]
        # [Provenance debug handles] triton_poi_fused_relu_0:2
        raw_stream0 = get_raw_stream(0)
        triton_poi_fused_relu_0.run(buf1, 16, stream=raw_stream0)
        buf2 = empty_strided_cuda((4, 4), (4, 1), torch.float32)
        # Topologically Sorted Source Nodes: [x_2], Original ATen: [aten.t, aten.mm]
        # [Provenance debug handles] extern_kernels.mm:3
        extern_kernels.mm(buf1, reinterpret_tensor(arg2_1, (4, 4), (1, 4), 0), out=buf2)
        del arg2_1
        del buf1
        buf3 = buf2; del buf2  # reuse
        # Topologically Sorted Source Nodes: [x_3], Original ATen: [aten.relu]
        # [Provenance debug handles] triton_poi_fused_relu_0:4
        raw_stream0 = get_raw_stream(0)
        triton_poi_fused_relu_0.run(buf3, 16, stream=raw_stream0)
        # Topologically Sorted Source Nodes: [x_4], Original ATen: [aten.sort]
        # [Provenance debug handles] torch.ops.aten.sort.default:5
        buf4 = torch.ops.aten.sort.default(buf3)[0]
        assert_size_stride(buf4, (4, 4), (4, 1))
        del buf3
    return (buf4, )

runner = Runner(partitions=[partition_0,])
call = runner.call
recursively_apply_fns = runner.recursively_apply_fns
"""


class Chain(nn.Module):
    """What the code was compiled of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(4, 4, bias=False) for _ in range(2))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        return x.sort()[0]


class Triton:
    """A kernel of Triton's: of this name and length, within the range that Inductor gives it."""

    def __init__(self, name: str, nanoseconds: int) -> None:
        self._name, self._nanoseconds = name, nanoseconds

    def run(self, *_: object, stream: object) -> None:
        assert stream == "stream 0"
        with RecordFunction(self._name):
            load().launch(self._name, self._nanoseconds)


class Library:
    """A library's functions, each of as many kernels as it takes."""

    def __init__(self, name: str, nanoseconds: Sequence[int]) -> None:
        self._name, self._nanoseconds = name, nanoseconds

    def mm(self, left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> None:
        with RecordFunction("aten::mm"):
            for number, nanoseconds in enumerate(self._nanoseconds):
                load().launch(f"{self._name}_{number}", nanoseconds)


def module_of(file: Path, names: Mapping[str, object]) -> ModuleType:
    """The code in a file, loaded as Inductor does."""
    file.write_text(CODE)
    spec = importlib.util.spec_from_file_location("code_of_a_gpus_graph", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    cuda = SimpleNamespace(_DeviceGuard=lambda _: nullcontext(), set_device=lambda _: None)
    vars(module).update(
        torch=SimpleNamespace(cuda=cuda, ops=torch.ops, float32=torch.float32),
        assert_size_stride=torch._C._dynamo.guards.assert_size_stride,
        reinterpret_tensor=torch.as_strided,
        empty_strided_cuda=lambda *layout: torch.empty_strided(
            *layout[:2], dtype=layout[2], device="sim:0"
        ),
        copy_if_misaligned=torch.clone,
        get_raw_stream=lambda index: f"stream {index}",
        **names,
    )
    spec.loader.exec_module(module)
    return module


def compilation_of(
    module: ModuleType, made: Mapping[int, CompiledKernel], wrap: Callable[..., Any] | None = None
) -> type[Compilation]:
    """Stands for `Compilation`: compiles a `Chain` to this code.

    Args:
        module: of `module_of`.
        made: the code's kernels.
        wrap: put around the graph's partitions, as CUDA graphs are.
    """

    class Written(Compilation):
        def __init__(self, model: Chain, mode: str) -> None:
            self.graphs, self.failed = [], ""
            self.tells, self.traced = True, 0

            def runs(x: torch.Tensor) -> torch.Tensor:
                if not self.graphs:
                    self.traced += 1
                    self._add(module, made)
                    if wrap is not None:
                        module.recursively_apply_fns([wrap])
                (result,) = module.call([x, model.first.weight, model.second.weight])
                return result  # type: ignore[no-any-return]

            self.runs = runs

    return Written
