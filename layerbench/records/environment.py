"""Where a measurement was made: device, machine, software, and what made it less believable."""

from __future__ import annotations

from pydantic import Field

from layerbench.records import contention
from layerbench.records.bounds import Count, Figure, Name, Positive, Text, is_none
from layerbench.records.conditions import DeviceConditions, WarmUp
from layerbench.records.contention import Holding, Waits
from layerbench.records.workload import Frozen, ReadFile


class DeviceInfo(Frozen):
    """The device that ran the model.

    Attributes:
        kind: ``cpu``, ``cuda``, ``xpu``, ``mps``.
        name: as the vendor calls it, e.g. ``AMD EPYC``.
        slug: a folder name made of the name and, on a CPU, its core count: ``amd-epyc-2c``.
        memory_bytes: the device's own memory; on a CPU, the machine's.
        details: anything else worth recording, as text (driver, clocks, compute capability, ...).
    """

    kind: Name
    name: Name
    slug: Name
    memory_bytes: Count | None = None
    details: dict[Name, Text] = Field(default_factory=dict)


class Machine(Frozen):
    """The host: what it is made of and how busy it was. ``None`` means it could not be read.

    Attributes:
        cpu: the model name.
        cores: logical cores of the machine; ``affinity`` lists those this process may use.
        threads, interop_threads: PyTorch's.
        governor: the frequency governor of the cores in use; several joined by ``/``.
        boost: whether the cores may exceed their base frequency.
        load_before, load_after: one-minute load average.
        steal_fraction: of all cores' time, what the hypervisor gave to others during the run.
        other_work_fraction: of all cores' time, what other processes used during the run; as
            long as it has not ended, during a moment before it, looked at under a high load only.
        other_processes_on_device: processes besides this one that used the accelerator, before the
            run or after it, whichever were more.
        waits: how much the measured forwards waited for a core.
    """

    cpu: Text
    cores: Positive
    affinity: tuple[Count, ...] | None = None
    threads: Count | None = None
    interop_threads: Count | None = None
    governor: Text | None = None
    boost: bool | None = None
    memory_bytes: Count | None = None
    load_before: Figure | None = None
    load_after: Figure | None = None
    steal_fraction: Figure | None = None
    other_work_fraction: Figure | None = None
    other_processes_on_device: Count | None = None
    os: Text = ""
    hypervisor: bool | None = None
    # Left out of the JSON where it is None, as in the records from before it was measured.
    waits: Waits | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def too_busy(self) -> str:
        """Why times measured here mean nothing, in one or two sentences; empty where they do.

        Of a record whose kernels were seen, `layerbench.analysis.disturbance` says it.
        """
        return contention.too_busy(self.waits, self.threads)


class Software(Frozen):
    """Versions, settings that change speed, and where the code stood.

    Attributes:
        layerbench, python: versions.
        packages: version of each installed package of `PACKAGES`.
        settings: PyTorch's switches and the environment variables that change speed.
        commit: of the layerbench checkout; ``None`` if it does not run from one.
        dirty: whether tracked files other than reports and documents differ from the commit.
    """

    layerbench: Name
    python: Name
    packages: dict[Name, Text]
    settings: dict[Name, Text] = Field(default_factory=dict)
    commit: Name | None = None
    dirty: bool | None = None


class Environment(Frozen):
    """Everything about the surroundings of one measurement.

    Attributes:
        command: the command line, program name without its folder.
        started, finished: UTC, ISO 8601, to the second.
        sent: files of the user's that were sent to the machine for it.
        warm_up: of an accelerator, before the rounds began.
        conditions: of an accelerator, during the rounds.
        warnings: what about the room makes the numbers less believable, one sentence each.
    """

    device: DeviceInfo
    machine: Machine
    software: Software
    command: Text
    started: Name
    finished: Name
    # Left out of the JSON where there are none: on a CPU, and in records from before.
    sent: tuple[ReadFile, ...] = Field(default=(), exclude_if=lambda files: not files)
    warm_up: WarmUp | None = Field(default=None, exclude_if=is_none)
    conditions: DeviceConditions | None = Field(default=None, exclude_if=is_none)
    warnings: tuple[Text, ...] = ()

    def with_waits(self, waits: Waits | None, holding: Holding = "every") -> Environment:
        """The same with what the measured forwards waited for a core, and a warning of it."""
        machine = self.machine.model_copy(update={"waits": waits})
        warning = contention.warning(waits, machine.threads, holding)
        warnings = (warning, *self.warnings) if warning else self.warnings
        return self.model_copy(update={"machine": machine, "warnings": warnings})
