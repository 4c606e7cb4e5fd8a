"""What the vision models of transformers take, by their configurations. For `layerbench.zoo.hf`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from layerbench.errors import UsageError
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import random_input

if TYPE_CHECKING:
    import torch

_TOKENS = 77  # of CLIP's texts; models for long documents take as many
_CHANNELS = 3


def parts(config: Any, backbones: bool = True) -> Iterator[Any]:  # noqa: ANN401 - configurations
    """A configuration and those inside it."""
    yield config
    for name in getattr(config, "sub_configs", ()):
        part = getattr(config, name, None)
        if part is not None and (backbones or name != "backbone_config"):
            yield from parts(part, backbones)


def _first(parts: Iterator[Any], *names: str) -> Any:  # noqa: ANN401 - a configuration's value
    """The first of these values that one of the configurations has."""
    values = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in values if value is not None), None)


def _sides(size: Any) -> tuple[int, int]:  # noqa: ANN401 - as a configuration writes it
    """Height and width: a number is both."""
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    return (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)


def usual_sides(kind: Any, config: Any) -> tuple[int, int]:  # noqa: ANN401 - of transformers
    """Height and width of the images a model is meant for.

    The configuration's; a backbone's are of its own training, so that they come after the usual
    images of detection and segmentation.
    """
    if ratios := _first(parts(config), "scaled_images_ratios"):
        # Depth Pro cuts patches out of the image in several sizes.
        return _sides(round(_first(parts(config), "patch_size") / min(ratios)))
    size = _first(parts(config, backbones=False), "image_size", "crop_size")
    if size is None and (patches := _first(parts(config), "num_patches")):
        size = math.isqrt(patches) * _first(parts(config), "patch_size")
    if size is None and any(task in kind.__name__ for task in ("Detection", "Segmentation")):
        # Attention in windows wants as many patches in each.
        windows = _first(parts(config), "num_windows_side", "num_windows")
        step = windows * _first(parts(config), "patch_size") if windows else 1
        return _sides([math.ceil(side / step) * step for side in inputs.NAMED["coco"][-2:]])
    if size is None:
        size = _first(parts(config), "image_size")
    return _sides(inputs.NAMED["imagenet"][-2:] if size is None else size)


def usual_shape(kind: Any, config: Any) -> tuple[int, ...]:  # noqa: ANN401 - of transformers
    """Of one image, or of one video with its frames first, as transformers has it."""
    image = (_first(parts(config), "num_channels") or _CHANNELS, *usual_sides(kind, config))
    frames = _first(parts(config), "num_frames", "frames_per_clip")
    # Perceiver takes any of them as its inputs.
    return image if frames is None or kind.main_input_name == "inputs" else (frames, *image)


def set_size(config: Any, usual: tuple[int, int], wanted: tuple[int, int]) -> None:  # noqa: ANN401
    """Configure another size wherever the usual one is."""
    for part in parts(config):
        maps = getattr(part, "backbone_feature_sizes", None)
        if maps is not None:  # SAM 2's, which are parts of the image's sides
            part.backbone_feature_sizes = [
                [side * new // old for side, old, new in zip(one, usual, wanted, strict=True)]
                for one in maps
            ]
        size = getattr(part, "image_size", None)
        if size is None or _sides(size) != usual:
            continue
        square = isinstance(size, int) and wanted[0] == wanted[1]
        # A configuration may take a list and refuse a pair.
        pair = list(wanted) if isinstance(size, list) else wanted
        part.image_size = wanted[0] if square else pair


def parameters_of(kind: Any) -> dict[str, inspect.Parameter]:  # noqa: ANN401 - a class
    return dict(list(inspect.signature(kind.forward).parameters.items())[1:])


def arguments_of(kind: Any, config: Any, workload: Workload) -> dict[str, Any]:  # noqa: ANN401
    """Random keyword arguments of a forward: those it cannot do without, and texts and prompts.

    Raises:
        UsageError: the model takes something else than images, videos, texts and points.
    """
    parameters = parameters_of(kind)
    whole = hasattr(config, "text_config")
    made: dict[str, Any] = {}
    for name, parameter in parameters.items():
        needed = parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        usual = name in _IMAGES or name == "input_points" or (name == "input_ids" and whole)
        if name in _IMAGES and any(other in made for other in _IMAGES):
            continue  # the same under an older name
        if name in _MAKERS and (needed or usual or name in _OF_PATCHES):
            made[name] = _MAKERS[name](config, workload)
        elif needed:
            raise UsageError(
                f"{workload.model} needs {name!r}, which layerbench makes for no model: give it "
                "with its inputs as a callable, path/to/file.py:callable"
            )
    if not any(name in made for name in _IMAGES):
        raise UsageError(
            f"{workload.model} takes no images; its inputs are {', '.join(parameters)}"
        )
    return made


def _images(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ANN401 - a configuration
    """Images or videos in [0, 1); flattened patches for a model that takes those."""
    images = random_input(workload.shape, workload.seed)
    if _first(parts(config), "num_patches") is None:
        return images
    side = _first(parts(config), "patch_size")
    rows = images.unfold(2, side, side).unfold(3, side, side)  # [N, C, rows, columns, side, side]
    return rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def _patches(config: Any, workload: Workload) -> tuple[int, int]:  # noqa: ANN401 - a configuration
    side = _first(parts(config), "patch_size")
    height, width = workload.shape[-2:]
    return height // side, width // side


def _patch_mask(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ANN401 - a configuration
    """All patches count: ``[N, patches]``."""
    import torch

    return torch.ones(workload.batch, math.prod(_patches(config, workload)), dtype=torch.int64)


def _patch_grid(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ANN401 - a configuration
    """Rows and columns of patches: ``[N, 2]``."""
    import torch

    return torch.tensor([_patches(config, workload)] * workload.batch)


def _texts(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ANN401 - a configuration
    """Random tokens, one text for each image: ``[N, tokens]``."""
    text = getattr(config, "text_config", config)
    positions = getattr(text, "max_position_embeddings", _TOKENS)
    # BLIP-2 reads with a part that knows fewer words than its language model.
    words = min(part.vocab_size for part in parts(config) if hasattr(part, "vocab_size"))
    return _tokens(workload, min(positions, _TOKENS), words)


def _task_text(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ANN401 - a configuration
    return _tokens(workload, config.task_seq_len, config.text_encoder_vocab_size)


def _tokens(workload: Workload, length: int, vocabulary: int) -> torch.Tensor:
    import torch

    generator = torch.Generator(device="cpu").manual_seed(workload.seed)
    shape = (workload.batch, length)
    return torch.randint(vocabulary, shape, generator=generator, device="cpu")


def _point(config: Any, workload: Workload) -> torch.Tensor:  # noqa: ARG001, ANN401
    """The middle of each image, x and y in pixels: ``[N, 1 prompt, 1 point, 2]``."""
    import torch

    height, width = workload.shape[-2:]
    return torch.tensor([width / 2, height / 2]).repeat(workload.batch, 1, 1, 1)


_IMAGES = ("pixel_values", "pixel_values_videos", "inputs")
_OF_PATCHES = ("pixel_attention_mask", "spatial_shapes")
_MAKERS: dict[str, Callable[[Any, Workload], torch.Tensor]] = {
    **dict.fromkeys(_IMAGES, _images),
    "pixel_attention_mask": _patch_mask,
    "spatial_shapes": _patch_grid,
    "input_ids": _texts,
    "task_inputs": _task_text,
    "input_points": _point,
}
