"""A simulated accelerator: `sim`, with two devices whose time passes by stated rules.

Values are computed on the CPU at once. Kernels take the time that the rules say, on queues as a
GPU has them; events take the time of their queue. With a virtual host its time passes only by
what it issues, so that every figure is exact however busy the machine is; with the real one the
host's time is the machine's. `docs/gpu.md` says what it can show and what it cannot.

Its library is built once for each version of PyTorch, by ``g++``, in about a minute.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
SOURCES = ("sim.cpp", "device.h", "operators.h")


class CannotBuildError(Exception):
    """The library cannot be built here; the message says why."""


@cache
def load() -> Simulator:
    """Register the backend `sim` in this process.

    Raises:
        CannotBuildError: no compiler, or it failed.
    """
    library = ctypes.CDLL(str(_built()))
    library.sim_register()
    simulator = Simulator(library)
    torch.utils.rename_privateuse1_backend("sim")
    torch._register_device_module("sim", simulator.module())  # type: ignore[no-untyped-call]
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    return simulator


class Simulator:
    """Sets the rules and reads what happened. Times in nanoseconds, sizes in bytes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library: Any = library
        for name in ("now", "kernels", "kernel_length", "kernel_start", "events"):
            getattr(library, f"sim_{name}").restype = ctypes.c_int64
        library.sim_kernel_name.restype = ctypes.c_char_p

    def reset(self) -> None:
        """Every rule as at first: 1 µs a kernel, a virtual host that spends nothing."""
        self._library.sim_reset()

    def rules(
        self,
        *,
        kernel_ns: int = 1000,
        bytes_per_ns: float = 0,
        flops_per_ns: float = 0,
        launch_ns: int = 0,
        event_host_ns: int = 0,
        event_queue_ns: int = 0,
        named_ns: dict[str, int] | None = None,
        virtual_host: bool = True,
        skip: bool = False,
        limit_bytes: int = 16 << 30,
    ) -> None:
        """State how long things take from here on.

        Args:
            kernel_ns: what every kernel takes, before its bytes or FLOPs.
            bytes_per_ns, flops_per_ns: the roofs; 0 means that they cost nothing. A kernel takes
                the longer of the two.
            launch_ns, event_host_ns: the host's time for a kernel and for an event.
            event_queue_ns: an event's time on the queue.
            named_ns: kernel's name → its whole time.
            virtual_host: whether the host's time passes only by what it issues.
            skip: whether a kernel seen before is not computed again, so that the host is as fast
                as one that launches only; values are then wrong.
            limit_bytes: the memory of a device.
        """
        self.reset()
        library = self._library
        library.sim_kernel_ns(ctypes.c_int64(kernel_ns))
        library.sim_roof(ctypes.c_double(bytes_per_ns), ctypes.c_double(flops_per_ns))
        library.sim_costs(*map(ctypes.c_int64, (launch_ns, event_host_ns, event_queue_ns)))
        for name, duration in (named_ns or {}).items():
            library.sim_named_ns(name.encode(), ctypes.c_int64(duration))
        library.sim_host(ctypes.c_bool(virtual_host))
        library.sim_skip(ctypes.c_bool(skip))
        library.sim_limit(ctypes.c_int64(limit_bytes))

    def limit(self, size: int) -> None:
        """Give each device this much memory."""
        self._library.sim_limit(ctypes.c_int64(size))

    def now_ns(self) -> int:
        """The host's time."""
        return int(self._library.sim_now())

    def advance(self, duration: int) -> None:
        """Let the virtual host work."""
        self._library.sim_advance(ctypes.c_int64(duration))

    def sleep(self, duration: int) -> None:
        """Put a kernel of this length on the present queue."""
        self._library.sim_sleep(ctypes.c_int64(duration))

    @property
    def kernel_count(self) -> int:
        """Kernels since the last `reset`."""
        return int(self._library.sim_kernels())

    @property
    def event_count(self) -> int:
        """Events recorded since the last `reset`."""
        return int(self._library.sim_events())

    def kernels(self, first: int = 0) -> list[tuple[str, int, int]]:
        """(name, start, length) of every kernel since the ``first``."""
        read = self._library
        return [
            (
                read.sim_kernel_name(ctypes.c_int64(index)).decode(),
                int(read.sim_kernel_start(ctypes.c_int64(index))),
                int(read.sim_kernel_length(ctypes.c_int64(index))),
            )
            for index in range(first, self.kernel_count)
        ]

    def module(self) -> types.ModuleType:
        """What PyTorch finds as ``torch.sim``."""
        module: Any = types.ModuleType("torch.sim")
        library = self._library
        module.is_available = lambda: True
        module.is_initialized = lambda: True
        module._lazy_init = lambda: None
        module._is_in_bad_fork = lambda: False
        module.device_count = lambda: 2
        module.current_device = lambda: int(library.sim_device())
        module.set_device = lambda device: library.sim_set_device(torch.device("sim", device).index)
        module.manual_seed_all = lambda _seed: None
        module.manual_seed = lambda _seed: None
        module.get_rng_state = lambda _device=None: torch.get_rng_state()
        module.set_rng_state = lambda state, _device=None: torch.set_rng_state(state)
        module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
        module.get_device_name = lambda _device=None: "Simulated accelerator"
        return module  # type: ignore[no-any-return]


@contextmanager
def rules(**stated: Any) -> Iterator[Simulator]:
    """The simulator under these rules for the duration of a ``with`` block."""
    simulator = load()
    simulator.rules(**stated)
    try:
        yield simulator
    finally:
        simulator.reset()


def _built() -> Path:
    """The library, from the cache where it was built before."""
    target = _cache() / f"sim-{_fingerprint()}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / target.name
            _build(fresh)
            fresh.replace(target)
    return target


def _cache() -> Path:
    named = os.environ.get("LAYERBENCH_SIM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "layerbench-sim"


def _fingerprint() -> str:
    parts = [torch.__version__.encode(), *((HERE / name).read_bytes() for name in SOURCES)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(target: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise CannotBuildError("no C++ compiler: install g++ to try the simulated accelerator")
    torch_folder = Path(torch.__file__).parent
    include, library = torch_folder / "include", torch_folder / "lib"
    command = [
        compiler,
        *("-std=c++20", "-O1", "-shared", "-fPIC", "-DFMT_HEADER_ONLY"),
        f"-I{include}",
        f"-I{include / 'torch/csrc/api/include'}",
        f"-I{include / 'kineto'}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        str(HERE / "sim.cpp"),
        f"-L{library}",
        *("-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"),
        *("-o", str(target)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuildError(f"g++ failed:\n{done.stderr[:4000]}")
