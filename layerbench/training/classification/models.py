"""A classifier for any number of classes, out of any model of the zoo."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from layerbench import zoo
from layerbench.errors import NotAClassifier, first_line
from layerbench.instruments.attach import mode_set, tensors_replaced
from layerbench.introspection.nested import tensors_in
from layerbench.records.workload import Workload
from layerbench.zoo.family import seeded_on_cpu

# What auxiliary classifiers weigh in the loss, as torchvision's reference training has it.
AUXILIARY = 0.4
_LOGITS = 2


def build_classifier(workload: Workload, classes: int) -> nn.Module:
    """The workload's model on the CPU, with a new head where it has another number of classes.

    Args:
        workload: its model, weights, image size and seed.
        classes: that the head tells apart.

    Raises:
        NotAClassifier: the model is no classifier, or does not take images of this size.
        LayerbenchError: the model or its weights cannot be built or loaded.
    """
    module = zoo.build(workload).module
    heads, own_classes = _heads(module, workload)
    if own_classes != classes:
        with seeded_on_cpu(workload.seed):
            for path in heads:
                _replace(module, path, classes)
        if isinstance(getattr(module, "num_classes", None), int):
            module.num_classes = classes  # type: ignore[assignment]
    return module


def classification_loss(
    output: Any,  # noqa: ANN401 - a tensor, or what models with auxiliary heads return
    labels: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of the logits, and that of auxiliary ones at a smaller weight.

    Args:
        output: logits ``[N, C]``, or several, the model's own first.
        labels: ``[N]``.
    """
    main, *others = _all_logits(output)
    loss = functional.cross_entropy(main, labels)
    for other in others:
        loss = loss + AUXILIARY * functional.cross_entropy(other, labels)
    return loss


def logits_of(output: Any) -> torch.Tensor:  # noqa: ANN401 - as above
    """The model's own logits, ``[N, C]``."""
    return _all_logits(output)[0]


def _all_logits(output: Any) -> list[torch.Tensor]:  # noqa: ANN401 - as above
    """Every tensor, or the one that is called so, as by transformers, where others are with it."""
    named = output.get("logits") if isinstance(output, Mapping) else None
    return [named] if isinstance(named, torch.Tensor) else list(tensors_in(output))


# --- the head ------------------------------------------------------------------------------


def _heads(module: nn.Module, workload: Workload) -> tuple[list[str], int]:
    """Paths of the layers that give the logits, and how many classes they tell apart.

    Those are, of the layers with as many outputs as there are logits, the ones called last: as
    many as the model returns logits.
    """
    outputs, calls = _called(module, workload)
    if not outputs or any(output.dim() != _LOGITS for output in outputs):
        shapes = ", ".join(str(list(output.shape)) for output in outputs) or "no tensor"
        raise NotAClassifier(
            f"{workload.model} returns {shapes}, not logits [N, classes]: it is not a classifier"
        )
    logits = outputs[0].shape[1]
    fitting = [path for path, width in calls if width == logits]
    if not fitting:
        raise NotAClassifier(
            f"{workload.model}: no linear or convolutional layer gives its {logits} logits, so its "
            "head cannot be exchanged"
        )
    return fitting[-len(outputs) :], logits


def _called(
    module: nn.Module, workload: Workload
) -> tuple[list[torch.Tensor], list[tuple[str, int]]]:
    """What the model returns in training, and its linear and convolutional layers as called."""
    shape = (2, *workload.shape[1:])
    dtype = getattr(torch, workload.dtype)
    try:
        to_meta: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor.to("meta")  # noqa: E731
        with tensors_replaced(module, to_meta):
            return _call(module, torch.empty(shape, dtype=dtype, device="meta"))
    except Exception:
        pass  # some models need values: for real, then, on a copy
    try:
        return _call(copy.deepcopy(module), torch.zeros(shape, dtype=dtype))
    except Exception as error:
        raise NotAClassifier(
            f"{workload.model} does not take images of {'x'.join(map(str, shape[1:]))}: "
            f"{first_line(error)}"
        ) from error


def _call(
    module: nn.Module, images: torch.Tensor
) -> tuple[list[torch.Tensor], list[tuple[str, int]]]:
    calls: list[tuple[str, int]] = []
    with mode_set(module, True), torch.no_grad(), _noting(module, calls):
        output = module(images)
    return _all_logits(output), calls


@contextmanager
def _noting(module: nn.Module, calls: list[tuple[str, int]]) -> Iterator[None]:
    def hook(path: str, width: int) -> Callable[..., None]:
        def called(*_: object) -> None:
            calls.append((path, width))

        return called

    with ExitStack() as hooks:
        for path, child in module.named_modules():
            if isinstance(child, (nn.Linear, nn.Conv2d)):
                handle = child.register_forward_hook(hook(path, _width(child)))
                hooks.callback(handle.remove)
        yield


def _width(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _replace(module: nn.Module, path: str, classes: int) -> None:
    above, _, name = path.rpartition(".")
    old = module.get_submodule(path)
    new = _like(old, classes)
    example = next(old.parameters())
    new.to(device=example.device, dtype=example.dtype)
    parent = module.get_submodule(above)
    if path == "":
        raise NotAClassifier("a model that is one layer has no head to exchange")
    setattr(parent, name, new)


def _like(old: nn.Module, classes: int) -> nn.Module:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, classes, bias=old.bias is not None)
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(
            old.in_channels,
            classes,
            old.kernel_size,  # type: ignore[arg-type]
            old.stride,  # type: ignore[arg-type]
            old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )
    raise TypeError(type(old).__name__)
