"""Traces of torch.profiler, written by hand as Kineto writes them, with known answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerbench.profilers.trace_profile import profile_trace
from layerbench.records.trace_profile import TraceProfile, TraceRow

Event = dict[str, Any]

HEADER = {
    "schemaVersion": 1,
    "deviceProperties": [{"id": 0, "name": "NVIDIA A100-SXM4-40GB", "totalGlobalMem": 42505273344}],
    "with_stack": 1,
    "displayTimeUnit": "ms",
    "baseTimeNanoseconds": 1790857026000000000,
}
PROCESS, MAIN, AUTOGRAD = 900, 900, 931


def event(
    category: str, name: str, start: float, duration: float, thread: int = MAIN, **args: Any
) -> Event:
    """An event with a length, times in microseconds; ``_`` in an argument's name is a blank."""
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": PROCESS,
        "tid": thread,
        "ts": start,
        "dur": duration,
        "args": {name.replace("_", " "): value for name, value in args.items()},
    }


def module(name: str, start: float, duration: float) -> Event:
    return event("python_function", f"nn.Module: {name}", start, duration, Python_id=1)


def operator(name: str, start: float, duration: float, external: int, sequence: int = -1) -> Event:
    numbers = {"External_id": external} | ({"Sequence_number": sequence} if sequence >= 0 else {})
    return event("cpu_op", name, start, duration, **numbers, Fwd_thread_id=0)


def node(name: str, start: float, duration: float, sequence: int, thread: int = AUTOGRAD) -> Event:
    whole = f"autograd::engine::evaluate_function: {name}"
    return event(
        "cpu_op", whole, start, duration, thread, Sequence_number=sequence, Fwd_thread_id=1
    )


def launch(correlation: int, start: float, thread: int = MAIN) -> Event:
    return event(
        "cuda_runtime", "cudaLaunchKernel", start, 4, thread, cbid=211, correlation=correlation
    )


def kernel(name: str, correlation: int, start: float, duration: float, **args: Any) -> Event:
    ran = event("kernel", name, start, duration, 7, correlation=correlation, **args)
    return ran | {"pid": 0}


def cuda_step(number: int, at: float, convolution: float = 200) -> list[Event]:
    """A training step of 1000 µs on a GPU: two layers, a loss, a backward, an optimizer."""
    first, seq, ext = 500 + 10 * number, 7 + 3 * number, 100 * number
    return [
        event("user_annotation", f"ProfilerStep#{number}", at, 1000),
        event("python_function", "train.py(12): step", at, 990, Python_id=1),
        operator("aten::copy_", at + 10, 50, ext),
        launch(first, at + 20),
        module("Net_0", at + 100, 400),
        module("Conv2d_0", at + 110, 100),
        operator("aten::conv2d", at + 120, 60, ext + 1, seq),
        operator("aten::convolution", at + 125, 50, ext + 2, seq),
        launch(first + 1, at + 150),
        module("Linear_0", at + 300, 100),
        operator("aten::linear", at + 310, 80, ext + 3),
        operator("aten::addmm", at + 320, 60, ext + 4, seq + 1),
        launch(first + 2, at + 350),
        operator("aten::mse_loss", at + 520, 40, ext + 5, seq + 2),
        launch(first + 3, at + 530),
        node("MseLossBackward0", at + 600, 30, seq + 2),
        node("AddmmBackward0", at + 640, 60, seq + 1),
        event(
            *("cpu_op", "AddmmBackward0", at + 645, 50, AUTOGRAD),
            Sequence_number=seq + 1,
            Fwd_thread_id=1,
        ),
        launch(first + 4, at + 650, AUTOGRAD),
        node("ConvolutionBackward0", at + 710, 90, seq),
        launch(first + 5, at + 720, AUTOGRAD),
        event(
            *("cpu_op", "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad"),
            *(at + 810, 10, AUTOGRAD),
        ),
        event("user_annotation", "Optimizer.step#SGD.step", at + 850, 100),
        operator("aten::_foreach_add_", at + 860, 40, ext + 6),
        launch(first + 6, at + 880),
        event("gpu_user_annotation", "Optimizer.step#SGD.step", at + 880, 30, 7) | {"pid": 0},
        kernel("Memcpy HtoD", first, at + 30, 5) | {"cat": "gpu_memcpy"},
        kernel("conv_kernel", first + 1, at + 160, convolution),
        kernel("gemm_kernel", first + 2, at + 400, 50),
        kernel("mse_kernel", first + 3, at + 540, 10),
        kernel("gemm_kernel", first + 4, at + 660, 100),
        kernel("dgrad_kernel", first + 5, at + 760, 150),
        # Kernels overlap on two streams: the device is busy once.
        kernel("wgrad_kernel", first + 5, at + 760, 150) | {"tid": 8},
        kernel("adam_kernel", first + 6, at + 920, 20),
    ]


def cuda_trace() -> list[Event]:
    """Three steps; the convolution takes 200, 210 and 220 µs on the device."""
    named = {"ph": "M", "name": "thread_name", "pid": PROCESS, "tid": MAIN, "ts": 0}
    return [
        {**named, "args": {"name": "thread 900 (python)"}},
        *cuda_step(3, 1000),
        *cuda_step(4, 2100, convolution=210),
        *cuda_step(5, 3200, convolution=220),
        {"ph": "s", "id": 7, "pid": PROCESS, "tid": MAIN, "ts": 1125, "cat": "fwdbwd", "name": "f"},
        {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 4300},
    ]


def written(path: Path, events: Sequence[object], header: dict[str, Any] = HEADER) -> Path:
    """A trace file, laid out as Kineto does; compressed where its name says so."""
    begun = json.dumps(header, indent=2)[:-2] if header else "{"
    comma = "," if header else ""
    text = f'{begun}{comma}\n  "traceEvents": [\n  '
    text += ",\n  ".join(json.dumps(one, indent=2) for one in events)
    text += f'\n  ],\n  "traceName": "{path.name}"\n}}\n'
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def profiled(
    folder: Path, events: Sequence[object], header: dict[str, Any] = HEADER
) -> TraceProfile:
    return profile_trace(written(folder / "t.json", events, header))


def rows(record: TraceProfile) -> dict[str, TraceRow]:
    return {row.path: row for row in record.rows}
