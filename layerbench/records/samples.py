"""What one process measured, before statistics: plain facts and arrays of nanoseconds.

A run travels between processes in an archive, as JSON and ``.npz``; no torch is needed to read it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from layerbench.records.bounds import Shape
from layerbench.records.compilation import Compilation, KernelPart
from layerbench.records.conditions import DeviceLook
from layerbench.records.contention import Waits
from layerbench.records.energy import Energy
from layerbench.records.environment import Environment
from layerbench.records.timing import DeviceTimes, Isolation, Kind, StopReason
from layerbench.records.workload import Frozen

Samples = NDArray[np.int64]
Arrays = Mapping[str, Samples]

UNTOUCHED = "untouched"
INSTRUMENTED = "instrumented"
INCLUSIVE = "inclusive"
SELF = "self"
HOST = "host_"
FUNCTIONS = "functions"
WAITED = "waited_"
PLACEMENT = "placement_"
BLOCKED = "blocked"
EAGER = "eager"
SPAN = "span"
IDLE = "idle"
KERNELS = "kernels"
ISOLATED_HOT = "isolated_hot"
ISOLATED_COLD = "isolated_cold"
BLOCKED_QUEUE = "blocked queue"
"""In `RunFacts.absent`: why there is nothing under `BLOCKED`."""


class WorkFacts(Frozen):
    """What a module computes in one forward; fields as in `layerbench.records.timing.LayerRow`."""

    own_parameters: int
    own_parameter_bytes: int | None = None
    flops: int
    self_flops: int
    kernel_size: Shape | None = None
    groups: int | None = None


class RowFacts(Frozen):
    """What a row is, apart from its times; fields as in `layerbench.records.timing.LayerRow`.

    Attributes:
        order: when it was first called, among the children of its parent.
        module: for a function, the path of the module that runs it.
        work: of a module; ``None`` where it was not counted.
    """

    path: str
    type: str
    kind: Kind
    depth: int
    order: int | None
    calls: int
    block: bool
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: int | None = None
    module: str | None = None
    work: WorkFacts | None = None
    kernels: int | None = None
    shared: float | None = None
    self_shared: float | None = None
    note: str = ""


class KernelFacts(Frozen):
    """What a row of kernels is, apart from its times; see `layerbench.records.timing.KernelRow`."""

    module: str
    function: str
    name: str
    calls: int
    layers: tuple[KernelPart, ...] = ()


class RunFacts(Frozen):
    """What one process found, apart from its samples.

    Attributes:
        event_s, least_event_s: of the device's queue, as in `layerbench.records.timing`.
        device_times: where the rows' device times come from; ``None`` on a CPU.
        resolution_s: of a device's events, where these are the rows' times.
        looks: at an accelerator between the rounds, of which the environment has the sum.
        isolation: how leaves were run alone; ``isolated``: their paths, in the order of the
            samples' columns.
        energy: of the untouched forward.
    """

    model_type: str
    parameters: int
    modules: tuple[RowFacts, ...]
    functions: tuple[RowFacts, ...]
    environment: Environment
    stop: StopReason
    mark_cost_s: float
    wrapper_cost_s: float
    event_s: float | None = None
    least_event_s: float | None = None
    kernels: tuple[KernelFacts, ...] = ()
    device_times: DeviceTimes | None = None
    resolution_s: float | None = None
    compilation: Compilation | None = None
    absent: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    looks: tuple[DeviceLook, ...] = ()
    isolation: Isolation | None = None
    isolated: tuple[str, ...] = ()
    energy: Energy | None = None


@dataclass(frozen=True)
class Run:
    """One process's measurement.

    ``arrays`` holds, in integer nanoseconds, one row per iteration:

    ``untouched``, ``instrumented``
        shape (rounds,): the whole forward.
    ``inclusive``, ``self``
        shape (rounds, modules).
    ``functions``
        shape (function iterations, functions): from the pass of its own; where kernels are seen,
        from the device rounds.
    ``eager``, ``host_eager``
        shape (rounds,): of a CUDA graph's rounds, the whole forward without it.
    ``blocked``, ``span``, ``idle``
        shape (rounds of that kind,): see `layerbench.records.timing.DeviceRounds`.
    ``kernels``
        shape (device rounds, kernels).
    ``isolated_hot``, ``isolated_cold``
        shape (calls of that kind, isolated leaves): all of a leaf's calls in one forward added up.
    ``host_untouched``, ``host_inclusive``, ``host_self``
        the same on the host's clock, where the device has its own.
    ``waited_untouched``, ``waited_instrumented``, ``waited_functions``
        what the process's threads waited for a core in each of these forwards; 0 for next to
        nothing. Missing where the system does not say.
    ``placement_untouched``, ``placement_instrumented``, ``placement_functions``
        of a live comparison: the number of the place in memory that the weights then had.
    """

    facts: RunFacts
    arrays: Arrays = field(default_factory=dict)

    @staticmethod
    def pack(runs: Sequence[Run], parts: ZipFile) -> None:
        """Put runs into an archive, from which `unpacked` reads them."""
        for number, run in enumerate(runs):
            arrays = io.BytesIO()
            # numpy's stub takes the arrays' names for its option allow_pickle
            np.savez(arrays, **dict(run.arrays))  # type: ignore[arg-type]
            parts.writestr(f"{number}.npz", arrays.getvalue())
            parts.writestr(f"{number}.json", run.facts.model_dump_json())

    @classmethod
    def unpacked(cls, parts: ZipFile) -> tuple[Run, ...]:
        """The runs that `pack` put into an archive."""
        runs = []
        for number in range(len(parts.namelist()) // 2):
            facts = RunFacts.model_validate_json(parts.read(f"{number}.json"))
            with np.load(io.BytesIO(parts.read(f"{number}.npz"))) as arrays:
                runs.append(cls(facts, {name: arrays[name] for name in arrays.files}))
        return tuple(runs)


def waits_of(arrays: Sequence[Arrays]) -> Waits | None:
    """How much the untouched forwards of all processes waited; ``None`` where nothing says."""
    name = WAITED + UNTOUCHED
    if not arrays or any(name not in run or not len(run[name]) for run in arrays):
        return None
    waited = np.concatenate([run[name] for run in arrays])
    times = np.concatenate([run[UNTOUCHED] for run in arrays])
    share = int(waited.sum()) / max(1, int(times.sum()))
    return Waits(
        rounds=round(int(np.count_nonzero(waited)) / len(waited), 4),
        time=round(min(1.0, share), 4),
    )
