"""What a phase of training means where the user says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from layerbench import zoo
from layerbench.datasets import get as get_data
from layerbench.errors import UsageError
from layerbench.records.options import checked, spelling
from layerbench.records.recipes import Recipe
from layerbench.training.classification.options import BATCH
from layerbench.training.classification.setup import usual_size

Phase = Literal[1, 2]


@dataclass(frozen=True)
class Usual:
    """Defaults of a phase.

    Attributes:
        pretrained: begin with published weights, where there are any.
    """

    data: str
    pretrained: bool
    epochs: int
    lr: float
    warmup_epochs: float
    weight_decay: float = 0.1
    patience: int = 10


USUAL: dict[int, Usual] = {
    1: Usual("imagenet", pretrained=False, epochs=50, lr=1e-3, warmup_epochs=5),
    2: Usual("cifar100", pretrained=True, epochs=50, lr=1e-3, warmup_epochs=1),
}


def recipe_for(
    model: str,
    phase: int = 2,
    *,
    pretrained: bool | None = None,
    size: tuple[int, int] | None = None,
    **changes: Any,  # noqa: ANN401 - fields of `Recipe`
) -> Recipe:
    """The recipe of a phase with what the user said otherwise.

    Args:
        model: a model spec.
        phase: 1 trains ImageNet-1K from scratch, 2 fine-tunes on CIFAR-100.
        pretrained: whether published weights are loaded; ``None`` leaves it to the phase, and to
            whether there are any.
        size: height and width; ``None`` for what the model is meant for.
        changes: any other field of `Recipe`; ``None`` means the usual.

    Raises:
        UsageError: something makes no sense; `UnknownModel` for the model.
    """
    if phase not in USUAL:
        raise UsageError(f"--phase takes {' or '.join(map(str, USUAL))}, got {phase}")
    usual = USUAL[phase]
    chosen = {name: value for name, value in changes.items() if value is not None}
    values: dict[str, Any] = {
        "data": usual.data,
        "epochs": usual.epochs,
        "lr": usual.lr,
        "weight_decay": usual.weight_decay,
        "patience": usual.patience,
        "batch": BATCH,
        **chosen,
    }
    # A climb as long as the run, or longer, would never come down.
    values.setdefault("warmup_epochs", min(usual.warmup_epochs, values["epochs"] / 10))
    get_data(values["data"])
    if values["patience"] == 0:
        values["patience"] = None
    values |= {
        "model": model,
        "phase": phase,
        "size": size or usual_size(model),
        "weights": _weights(
            model, usual.pretrained if pretrained is None else pretrained, pretrained
        ),
    }
    return checked(Recipe, values, partial(spelling, Recipe))


def recipe_with(
    begun: Recipe,
    *,
    pretrained: bool | None = None,
    **changes: Any,  # noqa: ANN401 - fields of `Recipe`
) -> Recipe:
    """The recipe of a run that goes on, with what the user said otherwise.

    Args:
        begun: of the run.
        pretrained, changes: as for `recipe_for`; ``None`` means as it was.

    Raises:
        UsageError: something makes no sense.
    """
    said = {name: value for name, value in changes.items() if value is not None}
    if said.get("patience") == 0:
        said["patience"] = None
    if pretrained is not None:
        said["weights"] = _weights(said.get("model", begun.model), pretrained, pretrained)
    return checked(Recipe, {**dict(begun), **said}, partial(spelling, Recipe))


def _weights(model: str, wanted: bool, insisted: bool | None) -> str | None:
    if not wanted:
        return None
    if zoo.has_weights(model):
        return "DEFAULT"
    if insisted:
        raise UsageError(f"{model} has no published weights: leave --pretrained out")
    return None
