from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from layerbench.environment import devices
from layerbench.environment.devices import accelerator, cuda
from layerbench.environment.devices.accelerator import Accelerator, WaitingClock
from layerbench.environment.devices.clocks import DeviceEvents, PerfCounter
from layerbench.environment.devices.cpu import Cpu, cpu_slug
from layerbench.environment.devices.device import slug
from layerbench.errors import DeviceUnavailable

NAMES = {
    "AMD EPYC": "amd-epyc",
    "AMD EPYC 7B12": "amd-epyc-7b12",
    "AMD EPYC 7763 64-Core Processor": "amd-epyc-7763",
    "AMD EPYC-Milan Processor": "amd-epyc-milan",
    "AMD Ryzen 7 5800X 8-Core Processor": "amd-ryzen-7-5800x",
    "AMD Ryzen 7 PRO 4750U with Radeon Graphics": "amd-ryzen-7-pro-4750u",
    "AMD Ryzen 5 3400G with Radeon Vega Graphics": "amd-ryzen-5-3400g",
    "AMD Ryzen AI 9 HX 370 w/ Radeon 890M": "amd-ryzen-ai-9-hx-370",
    "AMD Ryzen Threadripper PRO 5995WX 64-Cores": "amd-ryzen-threadripper-pro-5995wx",
    "AMD FX(tm)-8350 Eight-Core Processor": "amd-fx-8350",
    "AMD A10-7850K Radeon R7, 12 Compute Cores 4C+8G": "amd-a10-7850k",
    "Intel(R) Xeon(R) CPU @ 2.20GHz": "intel-xeon",
    "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz": "intel-xeon-e5-2680-v4",
    "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz": "intel-xeon-platinum-8375c",
    "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz": "intel-xeon-gold-6148",
    "Intel Xeon Processor (Skylake, IBRS)": "intel-xeon-skylake-ibrs",
    "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz": "intel-core-i7-8550u",
    "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz": "intel-core-i7-1165g7",
    "Intel(R) Core(TM) Ultra 7 155H": "intel-core-ultra-7-155h",
    "Intel(R) Core(TM)2 Duo CPU     E8400  @ 3.00GHz": "intel-core-2-duo-e8400",
    "QEMU Virtual CPU version 2.5+": "qemu-virtual-cpu-version-2-5",
    "Common KVM processor": "common-kvm",
    "Neoverse-N1": "neoverse-n1",
    "Apple M2 Pro": "apple-m2-pro",
    "": "unknown",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_the_folder_name_of_a_cpu(name, expected):
    assert cpu_slug(name, 16) == f"{expected}-16c"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"),
        ("Tesla T4", "tesla-t4"),
        ("AMD Instinct MI300X", "amd-instinct-mi300x"),
        ("Intel(R) Arc(TM) A770 Graphics", "intel-arc-a770-graphics"),
    ],
)
def test_the_folder_name_of_a_gpu(name, expected):
    assert slug(name) == expected


# --- the registry


class FakeType:
    def __init__(self, rank, *names):
        self.rank = rank
        self._names = list(names)

    def names(self):
        return self._names

    def open(self, name):
        return f"opened {name}"


@pytest.fixture
def machine(monkeypatch):
    """A machine with two GPUs, an accelerator without numbers, and a CPU."""
    kinds = [FakeType(0, "cuda:0", "cuda:1"), FakeType(50, "mps"), FakeType(100, "cpu")]
    monkeypatch.setattr(devices, "device_types", lambda: kinds)
    return kinds


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        (None, "cuda"),
        ("auto", "cuda"),
        ("cuda", "cuda"),
        ("CUDA:1", "cuda:1"),
        (torch.device("cuda", 1), "cuda:1"),
        ("mps", "mps"),
        ("mps:0", "mps:0"),
        ("cpu", "cpu"),
    ],
)
def test_a_device_is_found_by_name(machine, name, opened):
    assert devices.get(name) == f"opened {opened}"


@pytest.mark.parametrize("name", ["cuda:2", "xpu", "tpu", "mps:1", "cpu:1", "cuda:one", "meta"])
def test_a_device_that_is_not_there_is_one_line(machine, name):
    with pytest.raises(DeviceUnavailable) as error:
        devices.get(name)
    assert str(error.value) == (
        f"no device {name!r} on this machine, which has cuda:0, cuda:1, mps, cpu; "
        "--device cpu always works"
    )


def test_auto_passes_over_kinds_that_are_not_there(machine):
    machine[0].names = list
    assert devices.get("auto") == "opened mps"


def test_every_file_of_the_folder_is_found():
    kinds = {type(kind).__name__ for kind in devices.device_types()}
    assert {"CudaType", "AcceleratorType", "CpuType"} <= kinds


def test_a_new_file_is_enough(tmp_path, monkeypatch):
    source = "class T:\n rank = -1\n names = lambda self: ['tpu']\n open = lambda self, n: n\n"
    (tmp_path / "tpu.py").write_text(f"{source}DEVICE_TYPES = (T(),)\n")
    monkeypatch.setattr(devices, "__path__", [*devices.__path__, str(tmp_path)])
    try:
        assert devices.names()[0] == "tpu"
        assert devices.get() == "tpu"
    finally:
        sys.modules.pop("layerbench.environment.devices.tpu", None)


def test_the_cpu_is_always_the_last_choice():
    assert devices.names()[-1] == "cpu"
    assert devices.get("cpu").kind == "cpu"


@pytest.mark.parametrize("name", devices.names())
def test_what_every_device_can_do(name):
    device = devices.get(name)
    assert name.partition(":")[0] == device.kind == device.torch_device.type
    information, memory = device.describe(), device.memory()
    assert information.kind == device.kind
    assert information.name
    assert information.slug == slug(information.slug)
    assert 0 < memory.free_bytes <= memory.total_bytes
    assert information.memory_bytes == memory.total_bytes
    assert all(isinstance(value, str) for value in information.details.values())
    others = device.other_processes()
    assert others is None or others >= 0


@pytest.mark.parametrize("name", devices.names())
def test_every_devices_clock_runs_forward(name):
    device = devices.get(name)
    clock = device.clock()
    clock.reserve(3)
    for _ in range(2):
        marks = [clock.mark()]
        for _ in range(2):
            torch.ones(64, 64, device=device.torch_device).sum()
            marks.append(clock.mark())
        clock.synchronize()
        positions = clock.resolve(marks)
        assert positions == sorted(positions)
        assert positions[-1] > positions[0]
        host = clock.resolve_host(marks)
        assert host is None or host == sorted(host)
        clock.release()


# --- memory that runs out


def test_the_cpu_allocators_failure_is_understood():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8)
    assert Cpu().is_out_of_memory(error.value)
    assert Cpu().requested_bytes(error.value) == 2**50


OUT_OF_MEMORY = [
    (
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 123 bytes."),
        123,
    ),
    (
        torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
            "79.10 GiB of which 1.50 GiB is free."
        ),
        2 * 2**30,
    ),
    (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.50 MiB."), 21_495_808),
    (torch.cuda.OutOfMemoryError("Tried to allocate more than 1EB memory."), None),
    (
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 17.87 GB, max allowed: 18.13 GB). "
            "Tried to allocate 128.00 MB on private pool."
        ),
        128 * 2**20,
    ),
    (RuntimeError("CUDA error: out of memory"), None),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), None),
    (RuntimeError("std::bad_alloc"), None),
    (MemoryError(), None),
]


@pytest.mark.parametrize(("error", "requested"), OUT_OF_MEMORY)
def test_every_allocators_words_are_understood(error, requested):
    assert Cpu().is_out_of_memory(error)
    assert Cpu().requested_bytes(error) == requested


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x8 and 4x2)"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_taken_for_it(error):
    assert not Cpu().is_out_of_memory(error)
    assert Cpu().requested_bytes(error) is None


# --- the CPU


def test_the_cpu_is_described_by_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr("layerbench.environment.machine.cpu_model", lambda: "AMD EPYC 7B12")
    monkeypatch.setattr("layerbench.environment.machine.affinity", lambda: (0, 2, 4))
    monkeypatch.setattr("layerbench.environment.cgroups.core_quota", lambda: 2.5)
    monkeypatch.setattr("layerbench.environment.cgroups.host_memory", lambda: (2**34, 2**33))
    information = Cpu().describe()
    assert information.slug == "amd-epyc-7b12-3c"
    assert information.name == "AMD EPYC 7B12"
    assert information.memory_bytes == 2**34
    assert information.details["core quota"] == "2.5"
    assert isinstance(Cpu().clock(), PerfCounter)


# --- CUDA, without a GPU


def test_what_nvidia_smi_says_is_kept_with_units_and_gaps_left_out():
    line = "550.54.15, 1980, 2619, 700.00, Enabled, [N/A]\n"
    assert cuda.parse_smi(line) == {
        "driver": "550.54.15",
        "highest SM clock": "1980 MHz",
        "memory clock": "2619 MHz",
        "power limit": "700.00 W",
        "persistence mode": "Enabled",
    }
    assert cuda.parse_smi("No devices were found") == {}


@pytest.mark.parametrize(
    ("printed", "present", "expected"),
    [
        (None, True, None),
        ("", True, 0),
        ("", False, 0),
        ("10\n", True, 0),
        ("10\n11\n99\n98\n", True, 2),
        ("99\n98\n", False, 2),
        ("99\n98\n", True, None),  # a container's: this process is one of them
        ("10\n10\n", True, 0),
        ("[N/A]\n", True, 0),
    ],
)
def test_other_processes_on_a_gpu(printed, present, expected):
    assert cuda.count_others(printed, own={10, 11}, present=present) == expected


class FakeTorchEvent:
    def __init__(self, enable_timing=False):
        assert enable_timing
        self.streams = []

    def record(self, stream):
        self.streams.append(stream)

    def query(self):
        return True

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1.5 if end.streams else pytest.fail("not recorded")


@pytest.fixture
def gpus(monkeypatch):
    """A torch.cuda with as many GPUs as set."""
    waited = []
    fake = SimpleNamespace(
        Event=FakeTorchEvent,
        count=1,
        device_count=lambda: fake.count,
        current_device=lambda: 1,
        current_stream=lambda index: f"stream of {index}",
        synchronize=waited.append,
        is_available=lambda: fake.count > 0,
        mem_get_info=lambda index: (100, 1000),
        memory_reserved=lambda index: 70,
        memory_allocated=lambda index: 30,
        waited=waited,
    )
    monkeypatch.setattr(cuda, "cuda", fake)
    return fake


def test_gpus_are_numbered(gpus):
    gpus.count = 2
    assert cuda.CudaType().names() == ["cuda:0", "cuda:1"]
    gpus.count = 0
    assert cuda.CudaType().names() == []


def test_cuda_without_a_number_is_the_current_gpu(gpus):
    assert cuda.CudaType().open("cuda").torch_device == torch.device("cuda:1")
    assert cuda.CudaType().open("cuda:0").torch_device == torch.device("cuda:0")


def test_events_exist_on_the_gpu_before_they_are_needed(gpus):
    clock = cuda.Cuda(0).clock()
    clock.reserve(1)
    assert clock._pool[0].streams == ["stream of 0"]


def test_with_several_gpus_events_go_to_the_right_one(gpus):
    gpus.count = 2
    clock = cuda.Cuda(1).clock()
    clock.reserve(2)
    marks = [clock.mark(), clock.mark()]
    clock.synchronize()
    assert set(gpus.waited) == {1}
    assert clock.resolve(marks) == [0, 1_500_000]
    assert {stream for event in clock._pool for stream in event.streams} == {"stream of 1"}


def test_memory_that_pytorch_holds_in_reserve_is_free(gpus):
    memory = cuda.Cuda(0).memory()
    assert (memory.total_bytes, memory.free_bytes) == (1000, 140)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_clock_measures_what_the_queue_does():
    device = devices.get("cuda")
    clock = device.clock()
    work = torch.ones(2048, 2048, device=device.torch_device)
    clock.reserve(3)
    marks = [clock.mark()]
    for times in (1, 20):
        for _ in range(times):
            work = (work @ work).clamp(max=1.0)
        marks.append(clock.mark())
    clock.synchronize()
    start, middle, end = clock.resolve(marks)
    assert start == 0
    assert end - middle > 0


# --- other accelerators, without one


class SilentModule:
    """A backend of torch that knows as little as one can."""

    def __init__(self, **known):
        self.__dict__.update(known)


@pytest.fixture
def backend(monkeypatch):
    """Puts a made-up backend into torch under the name ``xpu``."""
    waited = []
    accelerator = SimpleNamespace(synchronize=waited.append, is_available=lambda: False)
    monkeypatch.setattr(torch, "accelerator", accelerator, raising=False)  # from 2.6 on

    def install(**known):
        monkeypatch.setattr(torch, "xpu", SilentModule(**known))
        return waited

    return install


def test_generic_events_are_used_where_they_work(backend, monkeypatch):
    backend()

    class Event(FakeTorchEvent):
        def __init__(self, device, enable_timing):
            assert device == torch.device("xpu", 1)
            super().__init__(enable_timing)

    monkeypatch.setattr(torch, "Event", Event)
    assert isinstance(Accelerator("xpu", 1).clock(), DeviceEvents)


def test_a_backends_own_events_are_used_where_generic_ones_do_not_work(backend, monkeypatch):
    waited = backend(Event=FakeTorchEvent)

    def refuse(**_):
        raise RuntimeError("no generic events")

    monkeypatch.setattr(torch, "Event", refuse)
    clock = Accelerator("xpu").clock()
    assert isinstance(clock, DeviceEvents)
    clock.mark()
    clock.synchronize()
    assert waited[-1] == torch.device("xpu")


def test_only_a_stream_is_handed_to_generic_events(backend, monkeypatch):
    """They read beyond the end of anything else."""
    backend(Event=FakeTorchEvent, current_stream=lambda device: f"stream of {device}")
    monkeypatch.setattr(torch, "Event", lambda **_: pytest.fail("used"))
    clock = Accelerator("xpu", 1).clock()
    clock.reserve(1)
    assert clock._pool[0].streams == ["stream of xpu:1"]


def test_events_that_cannot_be_told_a_queue(backend, monkeypatch):
    class Event(FakeTorchEvent):
        def record(self):
            super().record("the only one")

    backend(Event=Event)
    monkeypatch.delattr(torch, "Event")
    clock = Accelerator("xpu").clock()
    marks = [clock.mark(), clock.mark()]
    assert clock.has_passed(marks[1])
    assert clock.resolve(marks) == [0, 1_500_000]


def test_without_events_each_mark_waits_for_the_device(backend, monkeypatch):
    waited = backend()
    monkeypatch.delattr(torch, "Event")
    clock = Accelerator("xpu").clock()
    assert isinstance(clock, WaitingClock)
    before = len(waited)
    marks = [clock.mark(), clock.mark()]
    assert len(waited) == before + 2
    assert clock.resolve(marks) == marks == sorted(marks)


def test_an_accelerators_memory_and_name(backend):
    backend(
        mem_get_info=lambda device: (3, 5),
        get_device_name=lambda device: "Data Center GPU Max 1550",
        get_device_properties=lambda device: SimpleNamespace(driver_version="1.3.2"),
    )
    information = Accelerator("xpu").describe()
    assert information.slug == "data-center-gpu-max-1550"
    assert information.memory_bytes == 5
    assert information.details == {"driver": "1.3.2"}


def test_an_accelerator_that_tells_nothing_has_the_hosts_memory(backend, monkeypatch):
    backend()
    monkeypatch.setattr(accelerator, "host_memory", lambda: (9, 7))
    information = Accelerator("xpu").describe()
    assert (information.name, information.memory_bytes, information.details) == ("xpu", 9, {})


def test_accelerators_are_found_once_each(backend, monkeypatch):
    backend(is_available=lambda: True, device_count=lambda: 2)
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda: torch.device("xpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert accelerator.AcceleratorType().names() == ["xpu:0", "xpu:1", "mps"]


def test_cuda_is_left_to_its_own_file(backend, monkeypatch):
    backend(is_available=lambda: False)
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda: torch.device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert accelerator.AcceleratorType().names() == []
