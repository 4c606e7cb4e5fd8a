"""Every torchvision model, by torchvision's own name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbench.errors import LayerbenchError, UnknownModel, UsageError, typed_line
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo._model_files import KINDS
from layerbench.zoo.family import (
    Built,
    LibraryFamily,
    loads_weights,
    random_input,
    size_refused,
)
from layerbench.zoo.inputs import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

_VIDEO_FRAMES = 16
_VIDEO_SIDE = 112
_TARGETS_PER_IMAGE = 5
_KEYPOINTS = 17


@dataclass(frozen=True)
class _Task:
    """The inputs of a package of torchvision models.

    Attributes:
        default_input: the input spec for a model's name.
        arguments: the model's positional arguments.
    """

    default_input: Callable[[str], str]
    arguments: Callable[[nn.Module, Workload], tuple[Any, ...]]


@dataclass(frozen=True)
class Torchvision(LibraryFamily):
    """The family of all names in ``torchvision.models.list_models()``."""

    name: str = "torchvision"

    def claims(self, model: str) -> bool:
        """A name without a colon, and no file's."""
        return model != "" and ":" not in model and not model.lower().endswith(KINDS)

    def names(self) -> list[str]:
        """All names torchvision has registered."""
        from torchvision.models import list_models

        return list(list_models())

    def check(self, model: str, weights: str | None) -> None:
        """Look the name up, and the weights among those torchvision has for it."""
        if model not in self.names():
            raise UnknownModel(f"torchvision has no model {model!r}")
        if weights is not None:
            _check_weights(model, weights)

    def has_weights(self, model: str) -> bool:
        """Whether torchvision lists any."""
        from torchvision.models import get_model_weights

        return len(get_model_weights(model)) > 0

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """By task: torchvision keeps the models of a task in one package."""
        return inputs.parse(_task(model).default_input(model), batch)

    def build(self, workload: Workload) -> Built:
        """Build with torchvision's builder; weights come through torchvision's loader."""
        task = _task(workload.model)
        size = _size_options(workload)
        with size_refused(workload) if size else nullcontext():
            module = _build(workload.model, workload.weights, size)
        return Built(module, task.arguments(module, workload))


FAMILY = Torchvision()


def detectors() -> list[str]:
    """The names of all detection models that torchvision has registered."""
    from torchvision.models import detection, list_models

    return list(list_models(module=detection))


def build_detector(
    model: str, classes: int | None, weights: str | None, min_size: int | None = None
) -> nn.Module:
    """A detector on the CPU for any number of classes.

    The weights may be for another number of classes. Parameters that do not depend on it are
    loaded, and the others are random: the start of a fine-tuning.

    Args:
        model: one of `detectors`.
        classes: with the background; ``None`` for as many as torchvision's.
        weights: a name among the model's weights, or ``None`` for random ones.
        min_size: the shorter side in pixels that images are resized to; ``None`` for the
            detector's own.

    Raises:
        LayerbenchError: the weights cannot be loaded.
        UsageError: the detector takes images of one size only, and ``min_size`` is given.
    """
    size = _shorter_side(model, min_size)
    if classes is None or weights is None:
        return _build(model, weights, size | ({} if classes is None else {"num_classes": classes}))
    trained = _build(model, weights, size)
    # As its weights configure it: frozen batch norms and their eps, fewer layers that are trained.
    with _loading_nothing(), _any_number_of_classes(model):
        module: nn.Module = _builder(model)(weights=weights, num_classes=classes, **size)
    own = module.state_dict()
    fitting = {
        name: tensor
        for name, tensor in trained.state_dict().items()
        if name in own and own[name].shape == tensor.shape
    }
    module.load_state_dict(fitting, strict=False)
    return module


def _shorter_side(model: str, min_size: int | None) -> dict[str, Any]:
    if min_size is None:
        return {}
    if of_one_size(model):
        raise UsageError(f"{model} takes images of one size: leave --min_size out")
    return {"min_size": min_size}


def of_one_size(detector: str) -> bool:
    """Whether a detector takes images of one size only: its default boxes depend on it."""
    return detector.startswith("ssd")


def _builder(model: str) -> Callable[..., nn.Module]:
    from torchvision.models import get_model_builder

    builder: Callable[..., nn.Module] = get_model_builder(model)
    return builder


def _task(model: str) -> _Task:
    package = _builder(model).__module__
    for prefix, task in _TASKS.items():
        if package.startswith(f"torchvision.models.{prefix}."):
            return task
    return _CLASSIFICATION


def _size_options(workload: Workload) -> dict[str, Any]:
    """A vision transformer's position embeddings have the size that it is built for.

    Weights fix that size: their model is left as they need it.
    """
    size = workload.shape[-2:]
    made_for = inputs.NAMED["imagenet"][-2:]
    transformer = _builder(workload.model).__module__ == "torchvision.models.vision_transformer"
    if not transformer or workload.weights is not None or size == made_for:
        return {}
    return {"image_size": size[0]} if len(size) == 2 and size[0] == size[1] else {}


def _build(model: str, weights: str | None, more: dict[str, Any]) -> nn.Module:
    builder = _builder(model)
    options: dict[str, Any] = {"weights": weights, **more}
    if weights is None and "weights_backbone" in inspect.signature(builder).parameters:
        # Left out, a detector without weights would still download its backbone's.
        options["weights_backbone"] = None
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a slower initialization that the user cannot choose here.
        warnings.simplefilter("ignore", FutureWarning)
        if weights is None:
            return builder(**options)
        if not loads_weights():
            with _loading_nothing():
                return builder(**options)
        try:
            return builder(**options)
        except (KeyError, ValueError):
            raise UsageError(f"{model} cannot be built with the weights {weights!r}") from None
        except (OSError, RuntimeError) as error:
            raise LayerbenchError(
                f"the weights {weights!r} of {model} could not be loaded ({typed_line(error)}); "
                "check the network, or leave the weights out for random ones"
            ) from error


@contextmanager
def _any_number_of_classes(model: str) -> Iterator[None]:
    """Let a builder take weights together with another number of classes than theirs.

    Builders refuse it by calling `torchvision.models._utils._ovewrite_value_param`, each module by
    its own name for it.
    """
    names = inspect.unwrap(_builder(model)).__globals__
    refuse = names["_ovewrite_value_param"]

    def choose(param: str, actual: Any, expected: Any) -> Any:  # noqa: ANN401 - any option
        if param == "num_classes" and actual is not None:
            return actual
        return refuse(param, actual, expected)

    names["_ovewrite_value_param"] = choose
    try:
        yield
    finally:
        names["_ovewrite_value_param"] = refuse


@contextmanager
def _loading_nothing() -> Iterator[None]:
    """Skip the loading of weights in builders: some change the model afterwards.

    GoogLeNet's drops the auxiliary heads that its weights came with.
    """
    from torch import nn
    from torchvision.models import WeightsEnum

    originals = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    WeightsEnum.get_state_dict = lambda *_, **__: {}
    nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = originals[0]
        nn.Module.load_state_dict = originals[1]  # type: ignore[method-assign]


def _check_weights(model: str, weights: str) -> None:
    from torchvision.models import get_model_weights

    enum = get_model_weights(model)
    name = weights.removeprefix(f"{enum.__name__}.")
    # A quantized model's builder takes the float model's weights, listed under another name.
    if name not in enum.__members__ and not model.startswith("quantized_"):
        choices = ", ".join(["DEFAULT", *(member.name for member in enum)])
        raise UsageError(
            f"{model} has no weights {weights!r}; torchvision has {choices}; weights of your own "
            "are --checkpoint FILE"
        )


def _one_tensor(_module: nn.Module, workload: Workload) -> tuple[Any, ...]:
    return (random_input(workload.shape, workload.seed),)


def _two_images(_module: nn.Module, workload: Workload) -> tuple[Any, ...]:
    return tuple(random_input(workload.shape, workload.seed + i) for i in range(2))


def _list_of_images(module: nn.Module, workload: Workload) -> tuple[Any, ...]:
    images = list(random_input(workload.shape, workload.seed).unbind(0))
    if workload.mode == "eval":
        return (images,)
    return (images, [_target(module, image) for image in images])


def _target(module: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boxes of several sizes over the image, with masks or keypoints if the model has them."""
    import torch
    from torchvision.models.detection import KeypointRCNN, MaskRCNN

    height, width = image.shape[-2:]
    steps = torch.arange(1, _TARGETS_PER_IMAGE + 1) / (_TARGETS_PER_IMAGE + 1)
    corner, size = steps * 0.5, 0.1 + 0.4 * steps.flip(0)
    scale = torch.tensor([width, height, width, height])
    boxes = torch.stack([corner, corner, corner + size, corner + size], dim=1) * scale
    target = {"boxes": boxes, "labels": torch.ones(_TARGETS_PER_IMAGE, dtype=torch.int64)}
    if isinstance(module, MaskRCNN):
        target["masks"] = _masks(boxes, height, width)
    if isinstance(module, KeypointRCNN):
        target["keypoints"] = keypoints_in(boxes)
    return target


def _masks(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Each box filled: ``[boxes, height, width]``."""
    import torch

    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top : bottom + 1, left : right + 1] = 1
    return masks


def keypoints_in(boxes: torch.Tensor) -> torch.Tensor:
    """Visible points along each box's diagonal: ``[boxes, 17, 3]``."""
    import torch

    along = ((torch.arange(_KEYPOINTS) + 0.5) / _KEYPOINTS).view(1, -1, 1)
    points = boxes[:, None, :2] + along * (boxes[:, None, 2:] - boxes[:, None, :2])
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=2)


def _video_input(model: str) -> str:
    """Sixteen frames of the size of the weights' training images."""
    from torchvision.models import get_model_weights

    try:
        height, width = get_model_weights(model).DEFAULT.transforms().crop_size
    except (AttributeError, ValueError):
        height = width = _VIDEO_SIDE
    return f"1x3x{_VIDEO_FRAMES}x{height}x{width}"


_CLASSIFICATION = _Task(lambda _: "imagenet", _one_tensor)
_TASKS = {
    "segmentation": _Task(lambda _: "pascal", _one_tensor),
    "detection": _Task(lambda _: "coco", _list_of_images),
    "video": _Task(_video_input, _one_tensor),
    # RAFT takes sides that are multiples of 8 and at least 128.
    "optical_flow": _Task(lambda _: "1x3x256x256", _two_images),
}
