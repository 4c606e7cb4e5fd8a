"""A simulated accelerator: `sim`, with two devices whose time passes by stated rules.

Values are computed on the CPU at once. Kernels take the time that the rules say, on queues as a
GPU has them; events take the time of their queue. With a virtual host, its time passes only by
what it issues, so that every figure is exact however busy the machine is. With the real one the
host's time is the machine's.

It cannot show what a real device alone does: how a caching allocator splits its blocks, which
algorithm cuDNN takes, captured graphs, NCCL, what goes wrong when streams race. An operator is one
kernel with its name.

Its library is built once for each version of PyTorch, by ``g++``, into a cache in the home folder
or in ``LAYERBENCH_SIM_CACHE``.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils import backend_registration

from tests.simulated import recurrent

HERE = Path(__file__).parent
SOURCES = ("sim.cpp", "device.h", "operators.h", "profiler.h")
OLDEST = (2, 11)
"""Of PyTorch: the interfaces that are used here are younger than those of its users."""
FLAGS = (
    "-std=c++20",
    "-O1",
    "-shared",
    "-fPIC",
    "-DFMT_HEADER_ONLY",
    "-DKINETO_NAMESPACE=libkineto",
)


class CannotBuildError(Exception):
    """The library cannot be built here; the message says why."""


class Kernel(NamedTuple):
    """One kernel that a device ran; nanoseconds on the host's clock."""

    name: str
    start_ns: int
    length_ns: int
    device: int
    stream: int


class Simulator:
    """Sets the rules and reads what happened."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library: Any = library
        for name in ("now", "kernels", "events"):
            getattr(library, f"sim_{name}").restype = ctypes.c_int64
        library.sim_register()

    def rules(
        self,
        *,
        kernel_ns: int = 1000,
        bytes_per_ns: float = 0,
        flops_per_ns: float = 0,
        launch_ns: int = 0,
        event_host_ns: int = 0,
        event_queue_ns: int = 0,
        named_ns: Mapping[str, int] | None = None,
        virtual_host: bool = True,
        skip: bool = False,
        limit_bytes: int = 16 << 30,
    ) -> None:
        """State how long things take from here on, and forget what ran before.

        Args:
            kernel_ns: what every kernel takes, before its bytes or FLOPs.
            bytes_per_ns, flops_per_ns: the roofs; 0 means that they cost nothing. A kernel takes
                the longer of the two besides ``kernel_ns``.
            launch_ns, event_host_ns: the host's time for a kernel and for an event.
            event_queue_ns: an event's time on the queue.
            named_ns: kernel's name, such as ``aten::addmm`` → its whole time.
            virtual_host: whether the host's time passes only by what it issues.
            skip: whether a kernel seen before is not computed again, so that the host is as fast
                as one that launches only; values are then wrong.
            limit_bytes: the memory of each device.
        """
        costs = (kernel_ns, launch_ns, event_host_ns, event_queue_ns, limit_bytes)
        stated = _Stated(*costs, bytes_per_ns, flops_per_ns, virtual_host, skip)
        self._library.sim_rules(ctypes.byref(stated))
        for name, duration in (named_ns or {}).items():
            self._library.sim_named_ns(name.encode(), ctypes.c_int64(duration))

    def limit(self, size: int) -> None:
        """Give each device this many bytes."""
        self._library.sim_limit(ctypes.c_int64(size))

    def now_ns(self) -> int:
        """The host's time."""
        return int(self._library.sim_now())

    def spend(self, duration_ns: int) -> None:
        """Let the host work for so long."""
        self._library.sim_spend(ctypes.c_int64(duration_ns))

    def sleep(self, duration_ns: int) -> None:
        """Put a kernel of this length on the present queue."""
        self.launch("sim::sleep", duration_ns)

    def launch(self, name: str, duration_ns: int) -> None:
        """Put a kernel on the present queue that no operator of PyTorch launches."""
        self._library.sim_launch(name.encode(), ctypes.c_int64(duration_ns), True)

    def replay(self, kernels: Sequence[Kernel]) -> None:
        """Put kernels that ran before on the present queue: launching all costs as much as one."""
        for number, kernel in enumerate(kernels):
            name, length = kernel.name.encode(), ctypes.c_int64(kernel.length_ns)
            self._library.sim_launch(name, length, number == 0)

    @property
    def event_count(self) -> int:
        """Events recorded since the rules were stated."""
        return int(self._library.sim_events())

    @property
    def kernel_count(self) -> int:
        """Kernels since the rules were stated."""
        return int(self._library.sim_kernels())

    def kernels(self, first: int = 0) -> list[Kernel]:
        """The kernels since the rules were stated, in the order of launch; from the ``first``."""
        return [self._kernel(index) for index in range(first, self.kernel_count)]

    def _kernel(self, index: int) -> Kernel:
        shown = _Shown()
        self._library.sim_kernel(ctypes.c_int64(index), ctypes.byref(shown))
        return Kernel(shown.name.decode(), shown.start, shown.length, shown.device, shown.stream)

    def _make_present(self, device: int | str | torch.device) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        if index is not None:
            self._library.sim_set_device(index)

    @contextmanager
    def _present(self, device: int | str | torch.device) -> Iterator[None]:
        before = int(self._library.sim_device())
        self._make_present(device)
        try:
            yield
        finally:
            self._make_present(before)

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
        module.set_device = self._make_present
        module.device = self._present
        module._sleep = self.sleep  # as `torch.cuda._sleep`; a cycle is a nanosecond
        module.manual_seed_all = lambda _seed: None
        module.manual_seed = lambda _seed: None
        module.get_rng_state = lambda _device=None: torch.get_rng_state()
        module.set_rng_state = lambda state, _device=None: torch.set_rng_state(state)
        module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
        module.get_device_name = lambda _device=None: "Simulated accelerator"
        return module  # type: ignore[no-any-return]


class _Stated(ctypes.Structure):
    _fields_ = (
        ("kernel_ns", ctypes.c_int64),
        ("launch_ns", ctypes.c_int64),
        ("event_host_ns", ctypes.c_int64),
        ("event_queue_ns", ctypes.c_int64),
        ("limit_bytes", ctypes.c_int64),
        ("bytes_per_ns", ctypes.c_double),
        ("flops_per_ns", ctypes.c_double),
        ("virtual_host", ctypes.c_bool),
        ("skip", ctypes.c_bool),
    )


class _Shown(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("start", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("device", ctypes.c_int64),
        ("stream", ctypes.c_int64),
    )


@cache
def load() -> Simulator:
    """Register the backend `sim` in this process, whose accelerator it is from then on.

    Raises:
        CannotBuildError: no compiler, or it failed.
    """
    simulator = Simulator(ctypes.CDLL(str(built())))
    backend_registration.rename_privateuse1_backend("sim")
    torch._register_device_module("sim", simulator.module())
    backend_registration.generate_methods_for_privateuse1_backend(for_storage=True)
    recurrent.register()
    return simulator


@contextmanager
def rules(**stated: Any) -> Iterator[Simulator]:
    """The simulator under these rules for the duration of a ``with`` block."""
    simulator = load()
    simulator.rules(**stated)
    try:
        yield simulator
    finally:
        simulator.rules()


def built() -> Path:
    """The library, from the cache where it was built before.

    Raises:
        CannotBuildError: no compiler, or it failed.
    """
    target = _cache() / f"sim-{_fingerprint()}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # else each of several test processes would build it
        if not target.exists():
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
    parts = [
        torch.__version__.encode(),
        repr(FLAGS).encode(),
        *((HERE / name).read_bytes() for name in SOURCES),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(target: Path) -> None:
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST:
        raise CannotBuildError(f"the simulated accelerator needs PyTorch {OLDEST[0]}.{OLDEST[1]}")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise CannotBuildError("no C++ compiler: apt-get install g++")
    torch_folder = Path(torch.__file__).parent
    include, library = torch_folder / "include", torch_folder / "lib"
    command = [
        compiler,
        *FLAGS,
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
