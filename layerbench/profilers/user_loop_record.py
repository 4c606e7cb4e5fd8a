"""The record of a model that ran in its user's own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from layerbench.analysis.aggregation import assemble
from layerbench.environment.conditions import ConditionsWatch
from layerbench.environment.devices import Device
from layerbench.environment.machine import CpuTimes, cpu_times
from layerbench.environment.run_context import watch_environment
from layerbench.environment.watch import utc_now, utc_text
from layerbench.records import samples
from layerbench.records.environment import Environment
from layerbench.records.samples import Arrays, RowFacts, Run, RunFacts
from layerbench.records.timing import UNTOUCHED, Profile
from layerbench.records.workload import OWN_WEIGHTS, Plan, Workload
from layerbench.zoo.family import Built
from layerbench.zoo.module import describe

_ABSENT = {
    UNTOUCHED: "the model ran in a loop of its user's own: the whole is that of forwards whose "
    "layers were timed",
}


def workload_of(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Workload:
    """What runs, by the inputs of one forward; nothing of them is kept.

    A loop's owner must not meet an error of ours: a model or an input that cannot be described has
    its class alone.
    """
    mode = "train" if model.training else "eval"
    try:
        return describe(Built(model, args, dict(kwargs)), mode=mode)
    except Exception:
        name = type(model).__name__
        return Workload(model=name, input="unknown", shape=(), batch=1, weights=OWN_WEIGHTS)


@dataclass(frozen=True)
class Moment:
    """When the loop began or ended, and what the cores had done until then."""

    text: str
    cpu_times: CpuTimes

    @classmethod
    def now(cls) -> Moment:
        """This moment."""
        return cls(utc_text(utc_now()), cpu_times())


def environment_of(
    began: Moment, ended: Moment, device: Device, conditions: ConditionsWatch
) -> Environment:
    """Those of the loop. The slow part, such as the versions, is looked up when it is over."""
    watch = watch_environment(device)
    watch = replace(watch, started=began.text, cpu_times=began.cpu_times, conditions=conditions)
    return watch.finish(ended.cpu_times).model_copy(update={"finished": ended.text})


@dataclass(frozen=True)
class Seen:
    """What the loop's forwards showed; fields as in `layerbench.records.samples`.

    Attributes:
        device: further fields of `layerbench.records.samples.RunFacts`, where kernels were seen.
    """

    workload: Workload
    modules: Sequence[RowFacts]
    functions: Sequence[RowFacts]
    arrays: Arrays
    absent: Mapping[str, str]
    notes: Sequence[str]
    device: Mapping[str, Any] = field(default_factory=dict)


def record_of(
    seen: Seen,
    began: Moment,
    ended: Moment,
    device: Device,
    conditions: ConditionsWatch,
) -> Profile:
    """The record of what has been seen so far.

    Args:
        seen: after the first forward has ended.
        began, ended: when it was timed.
        device: where the model ran.
        conditions: of the device meanwhile.
    """
    inclusive = seen.arrays[samples.INCLUSIVE][:, 0]
    whole = seen.arrays.get(samples.UNTOUCHED, inclusive)
    # Without it there is nothing to reconcile.
    arrays = {name: array for name, array in seen.arrays.items() if name != samples.INSTRUMENTED}
    first = seen.modules[0]
    facts = RunFacts(
        model_type=first.type,
        parameters=first.parameters or 0,
        modules=tuple(seen.modules),
        functions=tuple(seen.functions),
        environment=environment_of(began, ended, device, conditions),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
        absent={**_ABSENT, **seen.absent},
        notes=tuple(seen.notes),
        **seen.device,
    )
    plan = Plan(
        warmup=0,
        iterations=len(whole),
        function_iterations=len(seen.arrays.get(samples.FUNCTIONS, ())),
    )
    return assemble(seen.workload, plan, [Run(facts, {**arrays, samples.UNTOUCHED: whole})])
