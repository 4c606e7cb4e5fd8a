from __future__ import annotations

from types import SimpleNamespace

import pytest

from layerbench.environment.devices import cuda, nvml
from layerbench.records.conditions import DeviceLook

NOT_SUPPORTED = 3


class FakeNvml:
    """NVML with one GPU, as much of it as is called."""

    def __init__(self, **values: int) -> None:
        self._values = values
        self.asked: list[int] = []

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle) -> int:
        handle._obj.value = {b"GPU-1": 7, b"MIG-2": 8}.get(name, 0)
        return 0 if handle._obj.value else 6

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle, whole) -> int:
        whole._obj.value = 7
        return 0 if handle.value == 8 else 2

    def __getattr__(self, function: str):
        name = function.removeprefix("nvmlDeviceGet")
        if name.startswith("__") or name == "Gone":
            raise AttributeError(name)

        def read(handle, *arguments) -> int:
            self.asked.append(handle.value)
            *which, value = arguments
            if name not in self._values:
                return NOT_SUPPORTED
            assert which == {"ClockInfo": [1], "MaxClockInfo": [1], "Temperature": [0]}.get(
                name, []
            )
            value._obj.value = self._values[name]
            return 0

        return read


def opened(library: FakeNvml, monkeypatch: pytest.MonkeyPatch, *names: str):
    monkeypatch.setattr(nvml, "_library", lambda: library)
    return nvml.open_gpu(names)


def test_a_gpu_is_read_in_si_units(monkeypatch):
    library = FakeNvml(
        ClockInfo=1410,
        MaxClockInfo=1980,
        PowerUsage=400_500,
        Temperature=63,
        CurrentClocksThrottleReasons=0x1 | 0x4 | 0x40,
    )
    gpu = opened(library, monkeypatch, "GPU-1")
    assert gpu.look() == DeviceLook(
        1410e6, 1980e6, 400.5, 63.0, ("power cap", "hardware thermal slowdown")
    )


def test_what_a_gpu_does_not_tell_is_unknown(monkeypatch):
    assert opened(FakeNvml(PowerUsage=10_000), monkeypatch, "GPU-1").look() == DeviceLook(
        power_w=10.0
    )


def test_a_part_of_a_gpu_has_the_clock_of_the_whole(monkeypatch):
    library = FakeNvml(ClockInfo=1200)
    assert opened(library, monkeypatch, "GPU-2", "MIG-2").look().clock_hz == 1200e6
    assert set(library.asked) == {7}


def test_without_the_gpu_or_the_library_there_is_none(monkeypatch):
    assert opened(FakeNvml(), monkeypatch, "GPU-9") is None
    monkeypatch.setattr(nvml, "_library", lambda: None)
    assert nvml.open_gpu(["GPU-1"]) is None


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setattr(nvml, "_LIBRARY", "no-such-library.so")
    assert nvml._library.__wrapped__() is None


@pytest.fixture
def torch_cuda(monkeypatch):
    fake = SimpleNamespace(
        get_device_properties=lambda index: SimpleNamespace(uuid="1"),
        clock_rate=lambda index: 2100,
        power_draw=lambda index: 250_000,
        temperature=lambda index: 55,
    )
    monkeypatch.setattr(cuda, "cuda", fake)
    return fake


def test_a_gpu_is_looked_at_by_nvml(torch_cuda, monkeypatch):
    monkeypatch.setattr(nvml, "_library", lambda: FakeNvml(ClockInfo=1700))
    assert cuda.Cuda(0).look() == DeviceLook(clock_hz=1700e6)


def test_else_by_what_torch_has(torch_cuda, monkeypatch):
    monkeypatch.setattr(nvml, "_library", lambda: None)
    assert cuda.Cuda(0).look() == DeviceLook(2100e6, None, 250.0, 55.0)

    def missing(index):
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    torch_cuda.clock_rate = missing
    assert cuda.Cuda(0).look() is None
