"""Code as Inductor writes it, with its kernels timed by a manual clock."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from layerbench.instruments import compilation
from layerbench.instruments.compilation import CompiledGraph, CompiledKernel

# Allocating takes 1 ns, a check 2, a kernel of Inductor's own 10, a library's 100.
CODE = '''
def after(nanoseconds, result=None):
    clock[0] += nanoseconds
    return result

class Freed:
    """Memory that takes 1000 ns to free."""
    def __del__(self):
        after(1000)

def empty_strided_cpu(*layout):
    return after(1, Freed())

def assert_size_stride(*layout):
    after(2)

def cpp_fused_relu_0(*buffers):
    after(10)

class extern_kernels:
    @staticmethod
    def convolution(*buffers):
        return after(100, Freed())

class Runner:
    def call(self, args):
        arg0_1, = args
        args.clear()
        assert_size_stride(arg0_1, (8, ), (1, ))
        buf0 = empty_strided_cpu((8, ), (1, ))
        # [Provenance debug handles] cpp_fused_relu_0:1
        cpp_fused_relu_0(arg0_1, buf0)
        del arg0_1
        # [Provenance debug handles] extern_kernels.convolution:2
        buf1 = extern_kernels.convolution(buf0)
        assert_size_stride(buf1, (8, ), (1, ))
        del buf0
        buf2 = buf1; del buf1  # reuse
        # [Provenance debug handles] cpp_fused_relu_0:3
        cpp_fused_relu_0(buf2)
        return (buf2, )

runner = Runner()
'''


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    """The code, loaded as Inductor does."""
    file = tmp_path / "code.py"
    file.write_text(CODE)
    spec = importlib.util.spec_from_file_location("code_of_a_graph", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    vars(module)["clock"] = [0]
    spec.loader.exec_module(module)
    return module


def test_a_kernels_time_has_what_the_code_does_for_it(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {number: CompiledKernel(f"kernel {number}") for number in (1, 2, 3)}
    graph = CompiledGraph.of(module, made)
    monkeypatch.setattr(compilation.time, "perf_counter_ns", lambda: module.clock[0])
    code = module.Runner.call.__code__
    graph.attach()
    try:
        module.runner.call([module.Freed()])
    finally:
        graph.detach()
    assert [kernel.name for kernel in graph.kernels] == ["kernel 1", "kernel 2", "kernel 3"]
    # It allocates its result, and frees what it was the last to read: 1 + 10 + 1000. The
    # library's result is checked: 100 + 2 + 1000. The last one writes into what is there.
    assert graph.times_ns() == {0: (1, 1011), 1: (1, 1102), 2: (1, 10)}
    assert module.Runner.call.__code__ is code
    assert "_layerbench_now" not in vars(module)
