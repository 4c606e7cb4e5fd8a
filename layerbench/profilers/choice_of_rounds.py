"""Which rounds a device gets: plain ones, with kernels that the profiler sees, or by events."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock, PerfCounter
from layerbench.instruments.compiled_kernels import CompiledKernelTimer
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.kernel_timer import KernelTimer, sees_kernels, why_unseen
from layerbench.instruments.modules import Call
from layerbench.profilers.compiled_rounds import Compiled, CompiledDeviceRounds, CompiledRounds
from layerbench.profilers.device_rounds import BlockedRounds, DeviceRounds
from layerbench.profilers.event_rounds import EventRounds
from layerbench.profilers.progress import Progress
from layerbench.profilers.rounds import Layers, Rounds


def clock_for(clock: Clock) -> Clock:
    """The clock for marks at layers: the host's where the device has a queue with its own.

    Args:
        clock: the device's.
    """
    return clock if clock.resolve_host([]) is None else PerfCounter()


def rounds_for(
    device: Device,
    model: nn.Module,
    call: Call,
    layers: Layers | None,
    clock: Clock,
    progress: Progress,
    renew_inputs: Callable[[], object],
    compiled: Compiled | None = None,
) -> Rounds:
    """The rounds of this device.

    Args:
        device: where the model runs.
        model: what is timed.
        call: runs it once.
        layers: which of its modules are timed, on `clock_for`; ``None`` for none.
        clock: the device's.
        progress: hears of each round.
        renew_inputs: called before each forward.
        compiled: the model's compilation, whose kernels tell the layers' times.
    """
    common = (call, layers, clock, progress, renew_inputs)
    if layers is not None and compiled is not None:
        if clock_for(clock) is clock:
            return CompiledRounds(*common, compiled=compiled)
        of_code = CompiledKernelTimer(compiled.code, device)
        return CompiledDeviceRounds(*common, device=device, tracer=of_code, compiled=compiled)
    if clock_for(clock) is clock:
        return Rounds(*common)
    if layers is None:
        return BlockedRounds(*common, device=device)
    paths = [fact.path for fact in layers.modules]
    timed = frozenset(fact.path for fact in layers.modules if fact.reachable)
    if sees_kernels(device):
        kernels = KernelTimer(model, paths, timed, device)
        return DeviceRounds(*common, device=device, tracer=kernels)
    by_events = EventTimer(model, paths, timed, device)
    return EventRounds(*common, device=device, tracer=by_events, why=why_unseen(device))
