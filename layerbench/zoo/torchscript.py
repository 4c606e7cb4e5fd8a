"""TorchScript, ``path/to/file.pt`` of ``torch.jit.save``: it runs as a whole, outside Python."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbench.errors import UnknownModel
from layerbench.records.workload import Workload
from layerbench.zoo import _files
from layerbench.zoo._model_files import ModelFile
from layerbench.zoo.family import Built

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class TorchScript(ModelFile):
    """The family of files that end as those of ``torch.jit.save`` usually do."""

    name: str = "TorchScript"
    kinds: tuple[str, ...] = (".pt", ".pth", ".ts")

    def check(self, model: str, weights: str | None) -> None:
        """Look the file up, and whether it holds code: weights have the same endings."""
        super().check(model, weights)
        place = _files.opened(self.file(model))
        if zipfile.is_zipfile(place):
            with _files.damaged(place.name, "a file that torch.jit.save wrote"):
                holds_code = _has_code(place)
            if not holds_code:
                raise UnknownModel(f"{place.name} holds no TorchScript")

    def loaded(self, place: Path) -> Built:
        """The scripted module; the file says nothing of its inputs.

        Raises:
            UsageError: it is no such file, or damaged.
        """
        import torch

        with _files.damaged(place.name, "a file that torch.jit.save wrote"):
            _files.check_archive(place)
            load: Any = torch.jit.load
            return Built(load(str(place), map_location="cpu"), ())

    def build_shapes(self, workload: Workload) -> Built:  # noqa: ARG002 - as `Family`
        """There is no such form: its interpreter needs tensors with values."""
        raise TypeError("TorchScript runs on tensors with values")


FAMILY = TorchScript()


def _has_code(place: Path) -> bool:
    with zipfile.ZipFile(place) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
