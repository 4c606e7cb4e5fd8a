"""Records of the same work, put together so that they can be looked at as one."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from layerbench.records.bounds import Name, Text, is_none
from layerbench.records.comparison import Comparison, Side
from layerbench.records.kinds import Record
from layerbench.records.latency_estimate import LatencyEstimate
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Frozen, Workload


class Bundle(Record):
    """All records of one model on one input.

    Attributes:
        profile: times; ``baseline``: those it is compared with, ``comparison``: their verdicts.
        structure: shapes, parameters, FLOPs.
        memory: bytes of tensors, measured or predicted.
        training: a training step by module.
        latency: times predicted for a GPU.
        absent: which of them was not made though it was asked for, and why.
    """

    record: Literal["bundle"] = "bundle"
    profile: Profile | None = Field(default=None, exclude_if=is_none)
    structure: Structure | None = Field(default=None, exclude_if=is_none)
    memory: MemoryReport | MemoryEstimate | None = Field(default=None, exclude_if=is_none)
    training: TrainingProfile | None = Field(default=None, exclude_if=is_none)
    latency: LatencyEstimate | None = Field(default=None, exclude_if=is_none)
    comparison: Comparison | None = Field(default=None, exclude_if=is_none)
    baseline: Profile | None = Field(default=None, exclude_if=is_none)
    absent: dict[Name, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_empty(self) -> Bundle:
        if not (self.comparison or self.any_with_rows()):
            raise ValueError("a bundle holds at least one record")
        return self

    def any_with_rows(
        self,
    ) -> (
        Profile
        | Structure
        | MemoryReport
        | MemoryEstimate
        | TrainingProfile
        | LatencyEstimate
        | None
    ):
        """The record that says most about what ran."""
        return self.profile or self.structure or self.memory or self.training or self.latency

    @property
    def workload(self) -> Workload:
        """What ran."""
        return self._main().workload

    @property
    def model_type(self) -> str:
        """Class name of the model."""
        return self._main().model_type

    def _main(
        self,
    ) -> (
        Profile
        | Structure
        | MemoryReport
        | MemoryEstimate
        | TrainingProfile
        | LatencyEstimate
        | Side
    ):
        record = self.any_with_rows()
        if record is not None:
            return record
        assert self.comparison is not None  # or the bundle would be empty
        return self.comparison.contender

    def parts(self) -> dict[str, Record]:
        """The records that it holds, by the name of the field."""
        held = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: part for name, part in held.items() if isinstance(part, Record)}


def times_in(record: object) -> Profile | None:
    """The times that a record holds: a profile itself, or the one in a bundle; ``None`` without."""
    held = record.profile if isinstance(record, Bundle) else record
    return held if isinstance(held, Profile) else None


def place_of(record: Frozen) -> str | None:
    """The field of a `Bundle` that holds such a record; ``None`` for one without rows of layers."""
    places = (
        name
        for name, field in Bundle.model_fields.items()
        if type(record) in get_args(field.annotation)
    )
    return next(places, None)
