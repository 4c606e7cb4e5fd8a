"""What is common to devices: errors that mean that memory ran out."""

from __future__ import annotations

import pytest

from layerbench.environment.devices import MemoryInfo
from layerbench.environment.devices.cpu import Cpu

CUDNN_9 = "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_{}_ALLOCATION_FAILED"
PERHAPS = [
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
]


@pytest.mark.parametrize("whose", ["HOST", "DEVICE"])
def test_cudnn_9_says_it_in_other_words(whose):
    assert Cpu().is_out_of_memory(RuntimeError(CUDNN_9.format(whose)))


@pytest.mark.parametrize("said", PERHAPS)
@pytest.mark.parametrize(("free", "full"), [(49, True), (50, False)])
def test_what_may_mean_something_else_counts_where_little_is_free(monkeypatch, said, free, full):
    memory = MemoryInfo(total_bytes=1000, free_bytes=free)
    monkeypatch.setattr(Cpu, "memory", lambda _: memory)
    assert Cpu().is_out_of_memory(RuntimeError(said)) == full
    assert not Cpu().is_out_of_memory(ValueError(said))
