"""What the machine and the software were while a measurement ran (types and collection; no torch)."""

from __future__ import annotations

from layerbench.workload import Frozen


class DeviceInfo(Frozen):
    """The device that ran the model.

    Attributes:
        kind: ``cpu``, ``cuda``, ``xpu``, ``mps``.
        name: as the vendor calls it, e.g. ``AMD EPYC``.
        slug: a folder name made of the name and, on a CPU, its core count: ``amd-epyc-2c``.
        memory_bytes: the device's own memory; on a CPU, the machine's.
        details: anything else worth recording, as text (driver, clocks, compute capability, ...).
    """

    kind: str
    name: str
    slug: str
    memory_bytes: int | None = None
    details: dict[str, str] = {}


class Machine(Frozen):
    """The host: what it is made of and how busy it was. ``None`` means it could not be read."""

    cpu: str
    cores: int
    affinity: tuple[int, ...] | None = None
    threads: int | None = None
    interop_threads: int | None = None
    governor: str | None = None
    boost: bool | None = None
    memory_bytes: int | None = None
    load_before: float | None = None
    load_after: float | None = None
    steal_fraction: float | None = None
    other_processes_on_device: int | None = None
    os: str = ""
    hypervisor: bool | None = None


class Software(Frozen):
    """Versions, settings that change speed, and where the code stood."""

    layerbench: str
    python: str
    packages: dict[str, str]
    settings: dict[str, str] = {}
    commit: str | None = None
    dirty: bool | None = None


class Environment(Frozen):
    """Everything about the surroundings of one measurement.

    Attributes:
        command: the command line, program name without its folder.
        started, finished: UTC, ISO 8601, to the second.
        warnings: what about the room makes the numbers less believable, one sentence each.
    """

    device: DeviceInfo
    machine: Machine
    software: Software
    command: str
    started: str
    finished: str
    warnings: tuple[str, ...] = ()
