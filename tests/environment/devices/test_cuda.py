"""What NVIDIA's GPUs are asked, and what their answers mean, without one."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from layerbench.environment.devices import cuda
from layerbench.environment.devices.cuda import Cuda

DETAILS = "550.54.15, 1980, 2619, 700.00, Enabled, Enabled"


@pytest.fixture
def gpu(monkeypatch):
    """A torch.cuda with a GPU of 1000 bytes that this process has not used yet."""
    fake = SimpleNamespace(
        free=100,
        reserved=0,
        has_context=False,
        is_initialized=lambda: True,
        get_device_properties=lambda _: SimpleNamespace(uuid="12-34"),
        mem_get_info=lambda _: (fake.free, 1000),
        memory_reserved=lambda _: fake.reserved,
        memory_allocated=lambda _: 0,
    )
    monkeypatch.setattr(cuda, "cuda", fake)
    monkeypatch.setattr(
        torch._C, "_cuda_hasPrimaryContext", lambda _: fake.has_context, raising=False
    )
    return fake


@pytest.fixture
def smi(monkeypatch):
    """What nvidia-smi answers, by the GPU's name; what it does not know it does not answer."""
    answers: dict[str, str | None] = {}

    def run_and_read(command):
        (name,) = (word for word in command if word.startswith("--id="))
        return answers.get(name.removeprefix("--id="))

    monkeypatch.setattr(cuda, "run_and_read", run_and_read)
    return answers


# --- other processes -------------------------------------------------------------------------


def test_others_are_counted_before_this_process_is_on_the_gpu(gpu, smi):
    """PyTorch counts as initialized by then: it was asked for the GPU's name."""
    smi["GPU-12-34"] = "999999998\n999999999"
    assert Cuda(0).other_processes() == 2


@pytest.mark.parametrize("change", [{"reserved": 1}, {"has_context": True}])
def test_a_process_on_the_gpu_that_is_not_listed_has_another_number_there(gpu, smi, change):
    vars(gpu).update(change)
    smi["GPU-12-34"] = "999999998\n999999999"
    assert Cuda(0).other_processes() is None
    smi["GPU-12-34"] = f"{os.getpid()}\n999999999"
    assert Cuda(0).other_processes() == 1


# --- slices of a GPU -------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [None, "No devices were found"])
def test_a_slice_of_a_gpu_has_details_and_processes(gpu, smi, refused):
    smi["GPU-12-34"] = refused
    names = cuda._smi_ids(gpu.get_device_properties(0))
    smi["MIG-12-34"] = DETAILS
    assert cuda.smi_details(names)["driver"] == "550.54.15"
    smi["MIG-12-34"] = "999999999"
    assert Cuda(0).other_processes() == 1


def test_a_gpu_that_nvidia_smi_does_not_know_has_none(gpu, smi):
    assert cuda.smi_details(cuda._smi_ids(gpu.get_device_properties(0))) == {}
    assert Cuda(0).other_processes() is None
    assert cuda._smi_ids(SimpleNamespace()) == []


# --- memory ----------------------------------------------------------------------------------


def test_libraries_that_fail_on_a_full_gpu_lack_memory(gpu):
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`")
    assert not Cuda(0).is_out_of_memory(error)
    gpu.free = 49
    assert Cuda(0).is_out_of_memory(error)


def test_what_the_allocator_keeps_is_nothing_to_a_library(gpu):
    gpu.free, gpu.reserved = 10, 900
    assert Cuda(0).memory().free_bytes == 910
    assert Cuda(0).is_out_of_memory(RuntimeError("GET was unable to find an engine to execute"))


def test_a_gpu_that_has_failed_answers_nothing(gpu):
    def fail(_: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    gpu.mem_get_info = fail
    assert not Cuda(0).is_out_of_memory(RuntimeError("CUDNN_STATUS_NOT_INITIALIZED"))


def test_what_the_allocator_holds_now(gpu):
    gpu.reserved = 70
    held = Cuda(0).held()
    assert (held.allocated, held.reserved) == (0, 70)
