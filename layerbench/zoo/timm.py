"""Models of the timm library, as ``timm:NAME``; needs the ``timm`` extra."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from layerbench.errors import LayerbenchError, UnknownModel, UsageError
from layerbench.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import Built, loads_weights, one_line, random_input
from layerbench.zoo.inputs import InputSpec

_PREFIX = "timm:"


@dataclass(frozen=True)
class Timm:
    """The family of all names in ``timm.list_models()``."""

    name: str = "timm"
    last_resort: bool = False

    def claims(self, model: str) -> bool:
        """``timm:NAME``."""
        return model.startswith(_PREFIX)

    def names(self) -> list[str]:
        """All of timm's architectures, with the prefix."""
        return [f"{_PREFIX}{name}" for name in _timm().list_models()]

    def check(self, model: str, weights: str | None) -> None:
        """Look the architecture up, and the tag where the name has one."""
        timm = _timm()
        name = _timm_name(model, weights)
        if not timm.is_model(name):
            raise UnknownModel(f"timm has no model {model.removeprefix(_PREFIX)!r}")
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise UsageError(f"{model}: {one_line(error)}") from None

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
        if workload.weights is None or not loads_weights():
            return Built(timm.create_model(name, pretrained=False), arguments)
        try:
            return Built(timm.create_model(name, pretrained=True), arguments)
        except Exception as error:
            raise LayerbenchError(
                f"the weights of {workload.model} could not be loaded ({one_line(error)}); "
                "check the network, or leave the weights out for random ones"
            ) from error


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


def _timm_name(model: str, weights: str | None) -> str:
    """The name without the prefix; weights other than ``DEFAULT`` are one of timm's tags."""
    name = model.removeprefix(_PREFIX)
    return name if weights in (None, "DEFAULT") else f"{name}.{weights}"
