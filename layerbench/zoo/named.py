"""A family that is a table of functions: for other packages with models of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbench.errors import UnknownModel, UsageError, chosen
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import Built, LibraryFamily, random_input
from layerbench.zoo.inputs import InputSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NamedModels(LibraryFamily):
    """Models by name, as ``PREFIX:NAME``.

    Attributes:
        prefix: of their specs, and the family's name in messages.
        builders: a function without arguments that returns the module, by the model's name.
        input: that the models are meant for: a name of `layerbench.zoo.inputs.NAMED`, or a shape.
    """

    prefix: str
    builders: Mapping[str, Callable[[], nn.Module]]
    input: str = "imagenet"

    @property
    def name(self) -> str:
        """The prefix."""
        return self.prefix

    def claims(self, model: str) -> bool:
        """``PREFIX:NAME``."""
        return model.startswith(f"{self.prefix}:")

    def names(self) -> list[str]:
        """Every model of the table, with the prefix."""
        return [f"{self.prefix}:{name}" for name in sorted(self.builders)]

    def check(self, model: str, weights: str | None) -> None:
        """Look the name up."""
        try:
            self._builder(model)
        except UsageError as error:
            raise UnknownModel(str(error)) from None
        if weights is not None:
            raise UsageError(f"{model} has no published weights: let its function load its own")

    def has_weights(self, model: str) -> bool:  # noqa: ARG002 - as `Family`
        """No: a function may load its own."""
        return False

    def default_input(self, model: str, batch: int | None) -> InputSpec:  # noqa: ARG002 - as above
        """The family's input."""
        return inputs.parse(self.input, batch)

    def build(self, workload: Workload) -> Built:
        """Call the model's function."""
        built = self._builder(workload.model)()
        return Built(built, (random_input(workload.shape, workload.seed),))

    def _builder(self, model: str) -> Callable[[], nn.Module]:
        name = model.removeprefix(f"{self.prefix}:")
        return chosen(name, self.builders, f"model of {self.prefix}")
