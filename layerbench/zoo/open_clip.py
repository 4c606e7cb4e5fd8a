"""Models of open_clip, as ``open_clip:NAME``; needs the ``open-clip`` extra.

The model takes images and token ids. ``open_clip:NAME/visual`` is its image tower alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layerbench.errors import UnknownModel, UsageError, typed_line
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

if TYPE_CHECKING:
    import torch
    from torch import nn

_PREFIX = "open_clip:"
_VISUAL = "/visual"
# What open_clip takes where a configuration names none.
_CONTEXT_LENGTH, _VOCABULARY, _SIDE = 77, 49408, 224
# Of a text tower that is built to be left out.
_LEAST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


@dataclass(frozen=True)
class OpenClip(LibraryFamily):
    """The family of all names in ``open_clip.list_models()``."""

    name: str = "open_clip"

    def claims(self, model: str) -> bool:
        """``open_clip:NAME`` and ``open_clip:NAME/visual``."""
        return model.startswith(_PREFIX)

    def names(self) -> list[str]:
        """All of open_clip's configurations, each whole and as its image tower."""
        return [
            f"{_PREFIX}{name}{tower}"
            for name in _open_clip().list_models()
            for tower in ("", _VISUAL)
        ]

    def names_for(self, task: str) -> list[str]:
        """All image towers, and whole models without a configuration from the Hugging Face hub."""
        if task != "image-classification":
            return []
        config = _open_clip().get_model_config
        return [
            name
            for name in self.names()
            if name.endswith(_VISUAL) or "hf_model_name" not in config(_name(name))["text_cfg"]
        ]

    def check(self, model: str, weights: str | None) -> None:
        """Look the configuration and the tag of the weights up."""
        name = _name(model)
        if name not in _open_clip().list_models():
            raise UnknownModel(f"open_clip has no model {model.removeprefix(_PREFIX)!r}")
        if weights is not None:
            check_weights(model, weights, _tags(name))

    def has_weights(self, model: str) -> bool:
        """Whether open_clip lists any."""
        return bool(_tags(_name(model)))

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """The image size of the model's configuration."""
        height, width = _image_size(_open_clip().get_model_config(_name(model)))
        shape = (1, 3, height, width)
        imagenet = shape == inputs.NAMED["imagenet"]
        return inputs.parse("imagenet" if imagenet else f"3x{height}x{width}", batch)

    def build(self, workload: Workload) -> Built:
        """Build with ``open_clip.create_model``; any weights come through its loader."""
        return _build(workload, "cpu")

    def build_shapes(self, workload: Workload) -> Built:
        """As `build`, on the meta device: open_clip itself moves the model to a device."""
        from layerbench.zoo._meta import no_memory

        with no_memory():
            return _build(workload, "meta")


FAMILY = OpenClip()


def _build(workload: Workload, device: str) -> Built:
    name = _name(workload.model)
    config = _open_clip().get_model_config(name)
    module = _create(name, config, workload, device)
    images = random_input(workload.shape, workload.seed)
    if workload.model.endswith(_VISUAL):
        return Built(module.visual, (images,))
    return Built(module, (images, _token_ids(module, config["text_cfg"], workload)))


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError:
        raise UsageError(
            "open_clip_torch is not installed, and open_clip: models need it: "
            "pip install 'layerbench[open-clip]'"
        ) from None
    module: ModuleType = open_clip
    return module


def _name(model: str) -> str:
    return model.removeprefix(_PREFIX).removesuffix(_VISUAL)


def _tags(name: str) -> list[str]:
    return list(_open_clip().list_pretrained_tags_by_model(name))


def _image_size(config: dict[str, Any]) -> tuple[int, int]:
    size = config["vision_cfg"].get("image_size", _SIDE)
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _create(name: str, config: dict[str, Any], workload: Workload, device: str) -> Any:  # noqa: ANN401 - a CLIP
    # Towers of other libraries would fetch weights of their own.
    options: dict[str, Any] = {"pretrained_image": False, "pretrained_text": False}
    options["device"] = device
    height, width = workload.shape[-2:]
    if (height, width) != _image_size(config):
        # A tower that is built for squares alone takes one number.
        options["force_image_size"] = height if height == width else (height, width)
    tag = workload.weights
    if tag is not None:
        tag = next(iter(_tags(name))) if tag == "DEFAULT" else tag
        # Otherwise the configuration's activation would be another than the weights'.
        trained = _open_clip().get_pretrained_cfg(name, tag)
        options["force_quick_gelu"] = bool(trained.get("quick_gelu"))
    loaded = tag if loads_weights() else None
    if loaded is None and workload.model.endswith(_VISUAL):
        options["text_cfg"] = _LEAST_TEXT
    try:
        with _quiet():
            return _open_clip().create_model(name, pretrained=loaded, **options)
    except Exception as error:
        if loaded is not None:
            raise weights_could_not_be_loaded(workload, error) from error
        raise UsageError(
            f"{workload.model} cannot be built for images of {height}x{width}: {typed_line(error)}"
        ) from error


def _token_ids(module: nn.Module, text: dict[str, Any], workload: Workload) -> torch.Tensor:
    """Random ids of texts as long as the model takes, one for each image: ``[N, length]``."""
    import torch

    vocabulary = getattr(module, "vocab_size", text.get("vocab_size", _VOCABULARY))
    length = text.get("context_length", _CONTEXT_LENGTH)
    generator = torch.Generator(device="cpu").manual_seed(workload.seed)
    shape = (workload.shape[0], length)
    return torch.randint(vocabulary, shape, generator=generator, device="cpu")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's messages off the screen; without a handler, logging would make one."""
    handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
