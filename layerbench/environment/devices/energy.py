"""Counters of energy: RAPL of CPUs, NVML of GPUs, Apple's; found by the package ``zeus``.

``zeus`` (https://ml.energy/zeus) knows which counters a machine has and how each is opened. A CPU's
are read here from the files that it found: its own reading starts a process that runs the user's
script anew, and notices only within a second that a counter has begun from 0 again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from layerbench.environment.devices.device import Device
from layerbench.errors import LayerbenchError, first_line

NOT_INSTALLED = "zeus is not installed: pip install 'layerbench[energy]'"
_CPU_NAMES = {"cpu_total_mj": "CPU", "gpu_mj": "GPU", "dram_mj": "DRAM", "ane_mj": "neural engine"}


class NoCounterError(LayerbenchError):
    """No counter of energy can be read; one line says why."""


@dataclass(frozen=True)
class Counter:
    """One counter.

    Attributes:
        name: of what it counts.
        read: gives the joules since some moment.
        range_j: where it begins from 0 again; ``None`` where it does not.
        limit_w: the most power that this part allows itself.
    """

    name: str
    read: Callable[[], float]
    range_j: float | None = None
    limit_w: float | None = None

    def between(self, before: float, after: float) -> float:
        """The joules between two readings, of which the counter began anew at most once."""
        return after - before + (self.range_j or 0.0 if after < before else 0.0)


def counters(device: Device) -> tuple[Counter, ...]:
    """The counters of a device, which do not count the same twice.

    Of a CPU its packages, and its memory where that is counted apart. Of an accelerator its own.

    Raises:
        NoCounterError: there is none that can be read.
    """
    try:
        import zeus.device as _  # noqa: F401 - an extra
    except ImportError:
        raise NoCounterError(NOT_INSTALLED) from None
    finders = {"cpu": (_of_chip, _of_cpu), "mps": (_of_chip,), "cuda": (_of_gpu,)}
    why = f"no counter of energy is known for {device.kind}"
    for find in finders.get(device.kind, ()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = tuple(find(device.torch_device.index or 0))
            for counter in found:
                counter.read()
        except Exception as error:  # of zeus's own kinds, the driver's and the system's
            why = first_line(error)
            continue
        if found:
            return found
    raise NoCounterError(why)


def described() -> str:
    """What reads the counters."""
    return f"zeus {version('zeus')}"


def _of_cpu(_: int) -> Iterator[Counter]:
    from zeus.device import get_cpus
    from zeus.device.cpu.rapl import rapl_is_available

    if not rapl_is_available():
        raise NoCounterError("this machine shows no counter of its CPU (RAPL)")
    zones: Any = get_cpus()
    for number, cpu in enumerate(zones.cpus):
        zone = getattr(cpu, "rapl_file", None)
        if zone is None:
            yield from _of_daemon(number, cpu)
        # Others, such as that of the whole platform, count a package once more.
        elif zone.name.startswith("package"):
            yield _of_zone(zone, zone.name)
            if cpu.dram is not None:
                yield _of_zone(cpu.dram, f"DRAM of {zone.name}")


def _of_zone(zone: Any, name: str) -> Counter:  # noqa: ANN401 - zeus's own
    energy = Path(zone.energy_uj_path)
    limits = [_number(file) for file in energy.parent.glob("constraint_*_power_limit_uw")]
    most = max(limits, default=0.0)  # 0 where none is set
    return Counter(
        name,
        lambda: _number(energy) / 1e6,
        zone.max_energy_range_uj / 1e6,
        most / 1e6 if most > 0 else None,
    )


def _number(file: Path) -> float:
    return float(file.read_text())


def _of_daemon(number: int, cpu: Any) -> Iterator[Counter]:  # noqa: ANN401 - zeus's own
    """The counters that the daemon ``zeusd`` reads for those who may not."""
    read = cpu.get_total_energy_consumption
    yield Counter(f"package-{number}", lambda: float(read().cpu_mj) / 1e3)
    if cpu.supports_get_dram_energy_consumption():
        yield Counter(f"DRAM of package-{number}", lambda: float(read().dram_mj) / 1e3)


def _of_gpu(index: int) -> Iterator[Counter]:
    from zeus.device import get_gpus

    gpus: Any = get_gpus()
    if not gpus.supports_get_total_energy_consumption(index):
        raise NoCounterError("this GPU has no counter of energy: it is from before Volta")
    yield Counter(
        f"GPU {index}",
        lambda: float(gpus.get_total_energy_consumption(index)) / 1e3,
        limit_w=gpus.get_power_management_limit(index) / 1e3,
    )


def _of_chip(_: int) -> Iterator[Counter]:
    """The parts of a system on a chip, such as Apple's, that are counted apart."""
    from zeus.device import get_soc

    chip: Any = get_soc()
    first = chip.get_total_energy_consumption()
    for field, name in _CPU_NAMES.items():
        if getattr(first, field, None) is not None:
            yield Counter(name, partial(_part_of, chip, field))


def _part_of(chip: Any, field: str) -> float:  # noqa: ANN401 - zeus's own
    return float(getattr(chip.get_total_energy_consumption(), field)) / 1e3
