"""Models that are files: what those that PyTorch itself reads have in common. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbench.errors import UsageError
from layerbench.records.workload import ReadFile, Workload
from layerbench.zoo import _files
from layerbench.zoo.callable import own_input
from layerbench.zoo.family import Built, random_input
from layerbench.zoo.inputs import OWN, InputSpec

if TYPE_CHECKING:
    from pathlib import Path

KINDS = (".pt2", ".pt", ".pth", ".ts")
"""Endings of models; no library's model has a name that ends so."""


@dataclass(frozen=True)
class ModelFile:
    """A family whose models are files of certain endings.

    Attributes:
        name: as messages call it.
        kinds: the endings.
    """

    name: str
    kinds: tuple[str, ...]
    last_resort: bool = True

    def claims(self, model: str) -> bool:
        """By the ending."""
        return model.lower().endswith(self.kinds)

    def names(self) -> list[str]:
        """None: files cannot be listed."""
        return []

    def file(self, model: str) -> ReadFile:
        """The model's file, with its checksum.

        Raises:
            UsageError: there is no such file, or it cannot be read.
        """
        return _files.read(model, self.kinds, "--model")

    def check(self, model: str, weights: str | None) -> None:
        """Look the file up, without reading it as a model."""
        if weights is not None:
            raise UsageError(f"{model} has its own weights: leave the weights option out")
        self.file(model)

    def has_weights(self, model: str) -> bool:  # noqa: ARG002 - the file has its own
        """Never: the file's are used as they are."""
        return False

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """That of the example inputs in the file."""
        return own_input(model, self.brought(model), batch)

    def brought(self, model: str) -> Built:
        """The model with the example inputs in its file, if it has any."""
        return self.loaded(_files.opened(self.file(model)))

    def loaded(self, place: Path) -> Built:
        """Read the file."""
        raise NotImplementedError

    def build(self, workload: Workload) -> Built:
        """Read the file; its own inputs are used if the workload says so."""
        assert workload.file is not None
        built = self.loaded(_files.opened(workload.file))
        if workload.inputs is None and workload.input != OWN:
            from layerbench.zoo._input_files import check_takes

            built = Built(built.module, (random_input(workload.shape, workload.seed),))
            check_takes(built, workload.input)
        return built

    def build_shapes(self, workload: Workload) -> Built:
        """As `build`: what reads these files needs values, which are let go afterwards."""
        return self.build(workload)
