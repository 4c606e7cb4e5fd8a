"""What checks of the pytest plugin measure. Loads torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from layerbench.api import memory, structure, timing
from layerbench.api.inputs import plan_of, what_runs, where_it_runs
from layerbench.environment.device_lock import held
from layerbench.environment.devices import Device
from layerbench.environment.machine import read_machine
from layerbench.environment.python_watchers import unwatched
from layerbench.errors import UsageError
from layerbench.integrations.pytest_settings import HOW_IT_RUNS
from layerbench.records.timing import Profile
from layerbench.records.workload import Plan, Workload
from layerbench.units import by_x
from layerbench.zoo import Built, not_a_module

Model = str | nn.Module
Inputs = str | torch.Tensor | tuple[Any, ...] | dict[str, Any] | None


def made(model: Model | Callable[[], nn.Module]) -> Model:
    """The model, made now where it is a function that makes it.

    Raises:
        UsageError: it is none.
    """
    __tracebackhide__ = True
    if isinstance(model, str | nn.Module) or not callable(model):
        return model
    module: object = model()
    if not isinstance(module, nn.Module):
        name = getattr(model, "__name__", type(model).__name__)
        raise UsageError(f"{name}() makes no model: {not_a_module(module)}")
    return module


@dataclass(frozen=True)
class Subject:
    """What a check measures, and where.

    Attributes:
        workload: model and input.
        built: a module that was handed over, with its inputs; ``None`` for a model by name.
        device: that it runs on.
    """

    workload: Workload
    built: Built | None
    device: Device

    @classmethod
    def of(cls, model: Model, inputs: Inputs, device: str | None) -> Subject:
        """What runs, and where.

        Raises:
            LayerbenchError: as `layerbench.profile`.
        """
        workload, built = what_runs(
            model, inputs, batch=None, device=device, channels_last=False, mode="eval", seed=0
        )
        return cls(workload, built, where_it_runs(built, device))

    @property
    def work(self) -> str:
        """Model and input: ``ResNet on 1x3x224x224``."""
        return work_of(self.workload)

    @property
    def device_name(self) -> str:
        """As PyTorch calls it."""
        return str(self.device.torch_device)

    @contextmanager
    def to_itself(self, tell: Callable[[str], object]) -> Iterator[None]:
        """No other process measures on the device, and nothing in this one watches Python's calls.

        Args:
            tell: hears, in a line, that the device was waited for.
        """
        with held(self.device_name, tell), unwatched():
            yield

    def measured(self, plan: Plan, tell: Callable[[str], object]) -> Profile:
        """The record of its time, made while no other process measures on the device.

        Args:
            plan: how it is measured.
            tell: hears, in a line, that the device was waited for.

        Raises:
            LayerbenchError: as `layerbench.profile`.
        """
        with self.to_itself(tell):
            measured = timing.measure(self.workload, plan, self.device, subject=self.built)
        return measured.profile

    def is_of(self, record: Profile) -> bool:
        """Whether a record that has another name for its model is of a module of this class."""
        names = {record.workload.model, record.model_type}
        return self.built is not None and self.workload.model in names

    def as_in(self, record: Profile) -> Subject:
        """A model by name runs as it did in the record; a module runs as it is."""
        if self.built is not None:
            return self
        how = {name: getattr(record.workload, name) for name in HOW_IT_RUNS}
        return replace(self, workload=self.workload.model_copy(update=how))

    def other_machine(self, record: Profile) -> str:
        """The machine of a record that was made on another kind of it; empty for this kind."""
        there, here = record.environment, read_machine()
        device = self.device.describe()
        if (there.device.slug, there.machine.cpu, there.machine.cores) == (
            device.slug,
            here.cpu,
            here.cores,
        ):
            return ""
        return _machine(there.device.name, there.machine.cpu, there.machine.cores)

    def this_machine(self) -> str:
        """In the same words."""
        here = read_machine()
        return _machine(self.device.describe().name, here.cpu, here.cores)


def _machine(device: str, cpu: str, cores: int) -> str:
    names = dict.fromkeys((device, cpu))
    return f"{', '.join(names)} with {cores} cores"


def plan_as(record: Profile | None, settings: Mapping[str, Any]) -> Plan:
    """How to measure: as the settings say, and for the rest as a record was measured.

    Args:
        record: ``None`` where there is none.
        settings: numbers of a plan, by name.

    Raises:
        UsageError: a number is less than it may be.
    """
    if record is None:
        return plan_of(**settings)
    usual: dict[str, Any] = {"threads": record.environment.machine.threads}
    # What stands beside the times is not compared.
    usual |= {"isolate": False, "energy": False}
    rounds = settings.get("iterations")
    if rounds is not None:
        usual["function_iterations"] = min(record.plan.function_iterations, rounds)
    return record.plan.model_copy(update={**usual, **settings})


# --- values that do not depend on the machine ------------------------------------------------

PARAMETERS, FLOPS, PEAK = "parameters", "FLOPs", "peak bytes"


@dataclass(frozen=True)
class Values:
    """What a model has of what is limited.

    Attributes:
        work: model and input.
        of: by name.
        notes: what a reader should know of them, a sentence each.
    """

    work: str
    of: dict[str, int]
    notes: list[str]


def values(model: Model, inputs: Inputs, device: str | None, names: set[str]) -> Values:
    """Parameters, FLOPs and bytes of tensors.

    Args:
        model, inputs: as `layerbench.profile` takes them.
        device: of a model by name; the CPU where none is said.
        names: of the values.

    Raises:
        LayerbenchError: as `layerbench.structure` and `layerbench.memory`.
    """
    found: dict[str, int] = {}
    notes: list[str] = []
    if names & {PARAMETERS, FLOPS}:
        layers = structure.structure(model, inputs)
        work = work_of(layers.workload)
        found |= {PARAMETERS: layers.parameters, FLOPS: layers.flops}
        uncounted = ", ".join(operator.name for operator in layers.uncounted)
        if FLOPS in names and uncounted:
            notes.append(f"not counted in the FLOPs: {uncounted}")
    if PEAK in names:
        report = memory.memory(model, inputs, device=device or _usual_device(model))
        work = work_of(report.workload)
        found[PEAK] = report.peak.bytes
    return Values(work, found, notes)


def _usual_device(model: Model) -> str | None:
    """Of a model by name the CPU, which every machine has; a module runs where it is."""
    return "cpu" if isinstance(model, str) else None


def work_of(workload: Workload) -> str:
    """Model and input: ``ResNet on 1x3x224x224``."""
    return f"{workload.model} on {by_x(workload.shape)}"
