"""Exported programs, ``path/to/file.pt2`` of ``torch.export.save``, with the modules they had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbench.zoo._model_files import ModelFile
from layerbench.zoo.family import Built

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Exported(ModelFile):
    """The family of files that end in ``.pt2``."""

    name: str = "torch.export"
    kinds: tuple[str, ...] = (".pt2",)

    def loaded(self, place: Path) -> Built:
        """The program as modules, with the example inputs that it was exported with.

        Raises:
            UsageError: it is no such file, is damaged, or holds a pickle that is more than data.
        """
        from layerbench.zoo import _programs

        program = _programs.read(place)
        args, kwargs = program.example_inputs or ((), {})
        return Built(_programs.as_modules(program), tuple(args), dict(kwargs))


FAMILY = Exported()
