"""Models of the timm library, as ``timm:NAME``; needs the ``timm`` extra."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from layerbench.errors import UnknownModel, UsageError, typed_line
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import (
    Built,
    LibraryFamily,
    loads_weights,
    random_input,
    size_refused,
    weights_could_not_be_loaded,
)
from layerbench.zoo.inputs import InputSpec

_PREFIX = "timm:"


@dataclass(frozen=True)
class Timm(LibraryFamily):
    """The family of all names in ``timm.list_models()``."""

    name: str = "timm"

    def claims(self, model: str) -> bool:
        """``timm:NAME``."""
        return model.startswith(_PREFIX)

    def names(self) -> list[str]:
        """All of timm's architectures, with the prefix."""
        return [f"{_PREFIX}{name}" for name in _timm().list_models()]

    def names_for(self, task: str) -> list[str]:
        """All of them classify."""
        return self.names() if task == "image-classification" else []

    def check(self, model: str, weights: str | None) -> None:
        """Look the architecture up, and the tag where the name has one."""
        timm = _timm()
        name = _timm_name(model, weights)
        if not timm.is_model(name):
            raise UnknownModel(f"timm has no model {model.removeprefix(_PREFIX)!r}")
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise UsageError(
                f"{model}: {typed_line(error)}; for weights of your own name a function that loads "
                "them, path/to/file.py:callable"
            ) from None

    def has_weights(self, model: str) -> bool:
        """Whether timm's configuration of the model names its weights."""
        config = _timm().get_pretrained_cfg(_timm_name(model, None), allow_unregistered=True)
        return config is not None and bool(config.has_weights)

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """The input size that timm records for the model."""
        config = _timm().get_pretrained_cfg(_timm_name(model, None))
        imagenet = inputs.NAMED["imagenet"]
        size = tuple(config.input_size) if config is not None else imagenet[1:]
        name = "imagenet" if size == imagenet[1:] else "x".join(map(str, size))
        return inputs.parse(name, batch)

    def build(self, workload: Workload) -> Built:
        """Build with ``timm.create_model``; any weights come through timm's loader."""
        timm = _timm()
        name = _timm_name(workload.model, workload.weights)
        arguments = (random_input(workload.shape, workload.seed),)
        options = size_options(name, workload)
        if workload.weights is None or not loads_weights():
            with size_refused(workload) if options else nullcontext():
                return Built(timm.create_model(name, pretrained=False, **options), arguments)
        try:
            return Built(timm.create_model(name, pretrained=True, **options), arguments)
        except Exception as error:
            raise weights_could_not_be_loaded(workload, error) from error


FAMILY = Timm()


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise UsageError(
            "timm is not installed, and timm: models need it: pip install 'layerbench[timm]'"
        ) from None
    module: ModuleType = timm
    return module


def size_options(name: str, workload: Workload) -> dict[str, Any]:
    """The options of ``timm.create_model`` for a model with a fixed image size, for another size.

    Its position embeddings have a size; timm interpolates those of weights that it loads.
    """
    config = _timm().get_pretrained_cfg(name)
    size = tuple(workload.shape[-2:])
    fixed = config is not None and config.fixed_input_size and len(size) == 2
    if not fixed or size == tuple(config.input_size[-2:]):
        return {}
    return {"img_size": size}


def _timm_name(model: str, weights: str | None) -> str:
    """The name without the prefix; weights other than ``DEFAULT`` are one of timm's tags."""
    name = model.removeprefix(_PREFIX)
    return name if weights in (None, "DEFAULT") else f"{name}.{weights}"
