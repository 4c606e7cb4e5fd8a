"""Records of the same work, put together so that they can be looked at as one."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import model_validator

from layerbench.records.comparison import Comparison
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.presented import Presented
from layerbench.records.structure import Structure
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.workload import Frozen


class Bundle(Presented, Frozen):
    """All records of one model on one input.

    Attributes:
        profile: times; ``baseline``: those it is compared with, ``comparison``: their verdicts.
        structure: shapes, parameters, FLOPs.
        memory: bytes of tensors, measured or predicted.
        training: a training step by module.
    """

    record: Literal["bundle"] = "bundle"
    schema_version: Literal[1] = 1
    profile: Profile | None = None
    structure: Structure | None = None
    memory: MemoryReport | MemoryEstimate | None = None
    training: TrainingProfile | None = None
    comparison: Comparison | None = None
    baseline: Profile | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Bundle:
        if not (self.comparison or self.any_with_rows()):
            raise ValueError("a bundle holds at least one record")
        return self

    def any_with_rows(
        self,
    ) -> Profile | Structure | MemoryReport | MemoryEstimate | TrainingProfile | None:
        """The record that says most about what ran."""
        return self.profile or self.structure or self.memory or self.training


def place_of(record: Frozen) -> str | None:
    """The field of a `Bundle` that holds such a record; ``None`` for one without rows of layers."""
    places = (
        name
        for name, field in Bundle.model_fields.items()
        if type(record) in get_args(field.annotation)
    )
    return next(places, None)
