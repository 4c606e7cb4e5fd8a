"""Rounds of a forward that is captured as a CUDA graph: its replay, and the same without the graph.

The whole is the replay, untouched. In each round the forward without the graph runs untouched, too.
Layers have the times of the replay's kernels, where these are the kernels of the forward without it
(`layerbench.instruments.cuda_graph`). The host does nothing for a layer in a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.cuda_graph import ReplayTimer, Seen, captured
from layerbench.instruments.kernel_timer import KernelTimer, why_unseen
from layerbench.instruments.layer_timer import Folded, TimedForward, run_untouched
from layerbench.instruments.modules import Call
from layerbench.profilers.device_rounds import BlockedRounds, DeviceRounds
from layerbench.profilers.progress import Progress
from layerbench.profilers.rounds import Layers
from layerbench.records import samples
from layerbench.records.samples import RowFacts, Samples


@dataclass
class ReplayRounds(BlockedRounds):
    """Replays untouched and behind a blocked queue, in turn with the forward without the graph.

    Attributes:
        eager_call: runs that.
        eager, eager_host: nanoseconds of its whole on the device's clock, and on the host's.
    """

    eager_call: Call = field(kw_only=True)
    eager: list[int] = field(default_factory=list)
    eager_host: list[int] = field(default_factory=list)

    @property
    def in_python(self) -> Call:
        """Runs the model's own code."""
        return self.eager_call

    def forget(self) -> None:
        """Throw away the samples so far."""
        super().forget()
        self.eager.clear()
        self.eager_host.clear()

    def run_instrumented(self) -> None:
        """One forward without the graph, with nothing attached."""
        self.settle()
        self.renew_inputs()
        self.meter.begin()
        device, host = run_untouched(self.eager_call, self.clock)
        self.note_wait(samples.EAGER)
        self.eager.append(device)
        if host is not None:
            self.eager_host.append(host)

    def _kinds(self) -> list[list[Any]]:
        waits = [self.waits.get(kind, []) for kind in (samples.UNTOUCHED, samples.EAGER)]
        return [self.untouched, self.host, self.eager, self.eager_host, *waits]

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        return {
            **BlockedRounds.arrays(self),
            samples.EAGER: np.array(self.eager, dtype=np.int64),
            samples.HOST + samples.EAGER: np.array(self.eager_host, dtype=np.int64),
        }


@dataclass
class ReplayDeviceRounds(ReplayRounds, DeviceRounds):
    """The same with replays under the profiler.

    Attributes:
        tracer: gives each kernel to its layer.
    """

    tracer: ReplayTimer = field(kw_only=True)

    def _run_device(self) -> None:
        super()._run_device()
        seen = self.traced[-1]
        self.forwards.append(
            TimedForward(Folded(seen.inclusive_ns, seen.self_ns, seen.calls), None)
        )

    def _kinds(self) -> list[list[Any]]:
        return [*super()._kinds(), self.traced, self.forwards]

    def notes(self, rows: Sequence[RowFacts]) -> list[str]:
        """What varied from replay to replay."""
        why = self.tracer.unlike
        unlike = f"layers have no part of some replays: {why}"
        return [*super().notes(rows), *([unlike] if why else [])]

    def arrays(self) -> dict[str, Samples]:
        """The samples under the names of `layerbench.records.samples`."""
        arrays = super().arrays()
        # No instrument marks anything in a replay.
        arrays.pop(samples.INSTRUMENTED, None)
        return {**arrays, **self._device_arrays()}


def replay_rounds_for(
    device: Device,
    model: nn.Module,
    call: Call,
    layers: Layers | None,
    clock: Clock,
    progress: Progress,
    renew_inputs: Callable[[], object],
    name: str,
) -> tuple[ReplayRounds, str]:
    """Capture the forward, and make its rounds.

    Args:
        device, model, layers, clock, progress, renew_inputs: as for
            `layerbench.profilers.choice_of_rounds.rounds_for`.
        call: runs the model once, without a graph.
        name: the model's.

    Returns:
        the rounds, and why no layers are timed; empty where they are.

    Raises:
        ModelRunError: it cannot be captured.
    """
    tracer, why = None, ""
    if layers is not None:
        why = why_unseen(device)
        tracer = None if why else _tracer(device, model, call, layers)
    replay = captured(call, device, name)
    common = (replay, None if tracer is None else layers, clock, progress, renew_inputs)
    if tracer is not None:
        tracer.run(replay)
        why = tracer.unlike
    if tracer is None or why:
        common = (replay, None, clock, progress, renew_inputs)
        of_whole = ReplayRounds(*common, device=device, eager_call=call)
        return of_whole, f"only the whole replay of the CUDA graph is timed: {why}" * bool(why)
    return ReplayDeviceRounds(*common, device=device, eager_call=call, tracer=tracer), ""


def _tracer(device: Device, model: nn.Module, call: Call, layers: Layers) -> ReplayTimer:
    """Look at one forward without the graph, with ranges around its modules."""
    paths = [fact.path for fact in layers.modules]
    timed = frozenset(fact.path for fact in layers.modules if fact.reachable)
    timer = KernelTimer(model, paths, timed, device)
    call()  # what a library does in a first forward is no part of a replay
    return ReplayTimer(Seen.of(timer.results(call, shapes=True)), len(paths), device)
