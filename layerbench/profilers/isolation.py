"""The pass that runs every leaf alone, by the same clock as the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from layerbench.environment.devices import Device
from layerbench.errors import ModelRunError, first_line
from layerbench.instruments.cache_sweep import CacheSweep
from layerbench.instruments.event_timer import EventTimer
from layerbench.instruments.isolation import AloneTimer, Isolator
from layerbench.instruments.kernel_timer import KernelTimer
from layerbench.instruments.layer_timer import run_untouched
from layerbench.instruments.modules import CallFacts, modules_at
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.profilers.event_rounds import EventRounds
from layerbench.profilers.progress import Progress
from layerbench.profilers.rounds import Rounds
from layerbench.records import samples
from layerbench.records.defaults import COLD_CALLS, HOT_CALLS
from layerbench.records.samples import Samples
from layerbench.records.timing import Isolation
from layerbench.records.tree import ancestors

ISOLATION = "isolation"
"""In `RunFacts.absent`: why no leaf was run alone."""
NO_LAYERS = "no layers were timed"
UNFINISHED = "interrupted before it had ended"


@dataclass(frozen=True)
class Isolated:
    """What the pass found.

    Attributes:
        facts: fields of `layerbench.records.samples.RunFacts`.
        arrays: the samples under the names of `layerbench.records.samples`.
        absent: why there are none.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Samples] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def isolate(
    model: nn.Module,
    rounds: Rounds,
    observed: Mapping[str, CallFacts],
    device: Device,
    progress: Progress,
) -> Isolated:
    """Run one forward in which every leaf is timed alone.

    Args:
        model: whose leaves.
        rounds: of it; they have its call, its layers and the clock.
        observed: the modules that ran.
        device: where.
        progress: hears of each leaf.
    """
    if rounds.layers is None:
        return Isolated(absent={ISOLATION: NO_LAYERS})
    paths = [fact.path for fact in rounds.layers.modules if fact.path in observed]
    holding = {above for path in paths for above in ancestors(path)} | {""}
    leaves = modules_at(model, frozenset(paths) - holding)
    try:
        sweep = CacheSweep(device)
        isolator = Isolator(
            leaves, _timer(rounds, device), sweep.run, HOT_CALLS, COLD_CALLS, device.kind
        )
        rounds.renew_inputs()
        isolator.run(rounds.in_python, lambda met: progress.step("leaves alone", met, len(leaves)))
    except Exception as error:
        if device.is_out_of_memory(error):
            raise
        cause = error.__cause__ if isinstance(error, ModelRunError) else error
        reason = f"the forward failed while leaves ran alone: {first_line(cause or error)}"
        return Isolated(absent={ISOLATION: reason})
    finally:
        rounds.renew_inputs()
    how = Isolation(
        hot_calls=HOT_CALLS,
        cold_calls=COLD_CALLS,
        swept_bytes=sweep.bytes,
        cache_bytes=sweep.cache_bytes,
        failed=isolator.failed,
    )
    found = isolator.found
    facts = {"isolation": how, "isolated": tuple(found)}
    if not found:
        return Isolated(facts)
    hot = np.stack([alone.hot_ns for alone in found.values()], axis=1)
    cold = np.stack([alone.cold_ns for alone in found.values()], axis=1)
    return Isolated(facts, {samples.ISOLATED_HOT: hot, samples.ISOLATED_COLD: cold})


def _timer(rounds: Rounds, device: Device) -> Callable[[nn.Module], AloneTimer]:
    """What times a leaf as the rounds do: by the clock, or by what the device did meanwhile."""
    clock = rounds.clock
    if not isinstance(rounds, DeviceRounds):
        return lambda _: lambda run: run_untouched(run, clock)[0]
    kind = EventTimer if isinstance(rounds, EventRounds) else KernelTimer

    def by_device(leaf: nn.Module) -> AloneTimer:
        tracer = kind(leaf, [""], frozenset(), device)
        return lambda run: int(tracer.run(run).inclusive_ns[0])

    return by_device
