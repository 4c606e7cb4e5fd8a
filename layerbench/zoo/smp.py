"""Models of segmentation-models-pytorch, as ``smp:ARCHITECTURE/ENCODER``; needs the ``smp`` extra.

An encoder is one of smp's own, or any model of timm as ``tu-NAME``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from layerbench.errors import UnknownModel, UsageError, did_you_mean, typed_line
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import (
    Built,
    LibraryFamily,
    check_weights,
    loads_weights,
    random_input,
    weights_could_not_be_loaded,
)
from layerbench.zoo.inputs import InputSpec
from layerbench.zoo.timm import FAMILY as TIMM
from layerbench.zoo.timm import size_options

_PREFIX = "smp:"
_OF_TIMM = "tu-"
# Of the examples in smp's documentation: it records no size for encoders of its own.
_USUAL_SIDE = 256


@dataclass(frozen=True)
class Smp(LibraryFamily):
    """The family of smp's architectures, each with each encoder."""

    name: str = "segmentation-models-pytorch"

    def claims(self, model: str) -> bool:
        """``smp:ARCHITECTURE/ENCODER``."""
        return model.startswith(_PREFIX)

    def names(self) -> list[str]:
        """Each architecture with each encoder of smp's own.

        One that takes models of timm alone has its usual one. Some architectures refuse some
        encoders, which shows when the model is built.
        """
        own = _smp().encoders.get_encoder_names()
        return [
            f"{_PREFIX}{name}/{encoder}"
            for name, usual in _usual_encoders().items()
            for encoder in ([usual] if usual.startswith(_OF_TIMM) else own)
        ]

    def names_for(self, task: str) -> list[str]:
        """All of them segment."""
        return self.names() if task == "segmentation" else []

    def check(self, model: str, weights: str | None) -> None:
        """Look the architecture, the encoder and the encoder's weights up."""
        smp = _smp()
        architecture, encoder = _parts(model)
        if not encoder:
            raise UnknownModel(
                f"cannot read the model {model!r}: give an architecture and an encoder, such as "
                "smp:Unet/resnet34"
            )
        if architecture not in _usual_encoders():
            raise UnknownModel(f"segmentation-models-pytorch has no architecture {architecture!r}")
        if encoder.startswith(_OF_TIMM):
            _check_timm(encoder)
        elif encoder not in smp.encoders.get_encoder_names():
            raise UnknownModel(
                f"segmentation-models-pytorch has no encoder {encoder!r}; one of timm's is tu-NAME"
            )
        if weights is not None and not (weights == "DEFAULT" and self.has_weights(model)):
            check_weights(model, weights, _weights(encoder))

    def has_weights(self, model: str) -> bool:
        """Whether the encoder has any."""
        encoder = _parts(model)[1]
        if encoder.startswith(_OF_TIMM):
            return TIMM.has_weights(_timm_spec(encoder))
        return bool(_weights(encoder))

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """What timm records for its encoders; 256 x 256 pixels for the others."""
        encoder = _parts(model)[1]
        if encoder.startswith(_OF_TIMM):
            return TIMM.default_input(_timm_spec(encoder), batch)
        return inputs.parse(f"3x{_USUAL_SIDE}x{_USUAL_SIDE}", batch)

    def build(self, workload: Workload) -> Built:
        """Build with ``smp.create_model``; the encoder's weights come through smp's loader."""
        smp = _smp()
        architecture, encoder = _parts(workload.model)
        options: dict[str, Any] = {}
        if encoder.startswith(_OF_TIMM):
            options = size_options(encoder.removeprefix(_OF_TIMM), workload)
        loaded = workload.weights if loads_weights() else None
        if loaded == "DEFAULT":
            loaded = next(iter(_weights(encoder)), loaded)
        with _explained(workload, loaded), warnings.catch_warnings():
            # Of encoders that have a newer name, and of weights whose name a timm encoder ignores.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", UserWarning)
            module = smp.create_model(architecture, encoder, encoder_weights=loaded, **options)
        return Built(module, (random_input(workload.shape, workload.seed),))


FAMILY = Smp()


def _smp() -> ModuleType:
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise UsageError(
            "segmentation-models-pytorch is not installed, and smp: models need it: "
            "pip install 'layerbench[smp]'"
        ) from None
    module: ModuleType = smp
    return module


def _parts(model: str) -> tuple[str, str]:
    """The architecture and the encoder, which is empty where it is not named."""
    architecture, _, encoder = model.removeprefix(_PREFIX).partition("/")
    return architecture, encoder


def _usual_encoders() -> dict[str, str]:
    """By the name of each architecture, the encoder that it has where none is named."""
    return {
        kind.__name__: inspect.signature(kind.__init__).parameters["encoder_name"].default
        for kind in _smp().MODEL_ARCHITECTURES_MAPPING.values()
    }


def _weights(encoder: str) -> list[str]:
    """The names of the weights for an encoder of smp's own."""
    entry = _smp().encoders.encoders.get(encoder)
    return [] if entry is None else list(entry["pretrained_settings"])


def _check_timm(encoder: str) -> None:
    try:
        TIMM.check(_timm_spec(encoder), None)
    except UnknownModel as error:
        close = did_you_mean(_timm_spec(encoder), TIMM.names()).replace("timm:", _OF_TIMM)
        raise UsageError(f"{error}{close and '; '}{close}") from None


def _timm_spec(encoder: str) -> str:
    return f"timm:{encoder.removeprefix(_OF_TIMM)}"


@contextmanager
def _explained(workload: Workload, weights: str | None) -> Iterator[None]:
    """Make one line of what a constructor raises."""
    try:
        yield
    except Exception as error:
        if weights is not None:
            raise weights_could_not_be_loaded(workload, error) from error
        raise UsageError(f"{workload.model} cannot be built: {typed_line(error)}") from error
