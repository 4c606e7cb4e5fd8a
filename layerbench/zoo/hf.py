"""Vision models of Hugging Face's transformers, as ``hf:NAME``; needs the ``hf`` extra.

``hf:vit`` is an architecture of the library as its configuration's defaults have it: nothing comes
from a network. ``hf:org/name`` is a model of the Hugging Face hub or its cache, ``hf:./folder`` one
that was saved with ``save_pretrained``. Code of a repository is never run.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from layerbench.errors import (
    LayerbenchError,
    UnknownModel,
    UsageError,
    typed_line,
)
from layerbench.records.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo._hf_inputs import (
    arguments_of,
    parameters_of,
    parts,
    set_size,
    usual_shape,
    usual_sides,
)
from layerbench.zoo.family import (
    Built,
    LibraryFamily,
    loads_weights,
    size_refused,
)
from layerbench.zoo.inputs import InputSpec

ANSWERS_WITHIN_S = 5.0
_PREFIX = "hf:"

# Tasks by the names of transformers' auto mappings. An architecture's model is that of the first
# task here that it has: what it was made for, before what else is built on its features.
_TASKS = (
    "object-detection",
    "zero-shot-object-detection",
    "universal-segmentation",
    "instance-segmentation",
    "mask-generation",
    "depth-estimation",
    "pose-estimation",
    "keypoint-detection",
    "image-matting",
    "image-to-image",
    "zero-shot-image-classification",
    "video-classification",
    "image-classification",
    "semantic-segmentation",
    "image",
)
# SegFormer is a segmenter whose encoder can classify; the mappings do not tell it from BEiT.
_USUAL_TASK = {"segformer": "semantic-segmentation"}
_VISION_PART = "_vision_model"
_VISION = "_vision"

# What a forward is told where its position embeddings are of another size.
_INTERPOLATE = "interpolate_pos_encoding"


@dataclass(frozen=True)
class HuggingFace(LibraryFamily):
    """The vision architectures of transformers, and models saved in its format."""

    name: str = "hf"

    def claims(self, model: str) -> bool:
        """``hf:NAME``, ``hf:NAME:TASK``, ``hf:org/name`` or ``hf:./folder``."""
        return model.startswith(_PREFIX)

    def names(self) -> list[str]:
        """Every vision architecture of transformers, by the type of its configuration."""
        return [f"{_PREFIX}{name}" for name in sorted(_architectures())]

    def names_for(self, task: str) -> list[str]:
        """Those whose model is for a task, such as ``image-classification``, unless one is named.

        Args:
            task: the end of its name: ``segmentation`` are all kinds of it.
        """
        usual = {name: (_tasks_of(kind) or [""])[0] for name, kind in _architectures().items()}
        return [f"{_PREFIX}{name}" for name in sorted(usual) if usual[name].endswith(task)]

    def check(self, model: str, weights: str | None) -> None:
        """Look the architecture up; the configuration of a saved model is read."""
        spec = _Spec.of(model)
        _resolved(spec)
        if weights is None:
            return
        if not spec.saved:
            raise UsageError(
                f"{model} is an architecture without weights: name a model of the hub, "
                f"{_PREFIX}org/name, or a folder of save_pretrained, {_PREFIX}./folder"
            )
        if weights != "DEFAULT":
            raise UsageError(f"{model} has weights DEFAULT, not {weights!r}")

    def has_weights(self, model: str) -> bool:
        """Whether the model is a saved one."""
        return _Spec.of(model).saved

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """Images of the configuration's size and channels; videos of its frames."""
        shape = usual_shape(*_resolved(_Spec.of(model)))
        named = (name for name, one in inputs.NAMED.items() if one[1:] == shape)
        whole = (1 if batch is None else batch, *shape)
        return inputs.parse(next(named, "x".join(map(str, whole))), batch)

    def build(self, workload: Workload) -> Built:
        """Build from the configuration; weights of a saved model come from safetensors only."""
        spec = _Spec.of(workload.model)
        kind, config = _resolved(spec)
        arguments = arguments_of(kind, config, workload)
        usual, wanted = usual_sides(kind, config), (workload.shape[-2], workload.shape[-1])
        with _silent():
            if workload.weights is not None:
                # Weights have their own size of position embeddings.
                if usual != wanted and _INTERPOLATE in parameters_of(kind):
                    arguments[_INTERPOLATE] = True
                if loads_weights():
                    return Built(_pretrained(kind, config, spec), (), arguments)
            elif usual != wanted:
                with size_refused(workload):
                    set_size(config, usual, wanted)
            return Built(_constructed(kind, config, workload), (), arguments)


FAMILY = HuggingFace()


@dataclass(frozen=True)
class _Spec:
    """What stands behind the prefix.

    Attributes:
        model: the whole spec.
        name: an architecture, ``org/name`` or a folder.
        task: after a second colon.
    """

    model: str
    name: str
    task: str | None

    @classmethod
    def of(cls, model: str) -> _Spec:
        """Split a spec.

        Raises:
            UnknownModel: nothing is named.
        """
        name, colon, task = model.removeprefix(_PREFIX).partition(":")
        if not name:
            raise UnknownModel(f"{model!r} names no model")
        return cls(model, name, task if colon else None)

    @property
    def saved(self) -> bool:
        """Whether it is of the hub or a folder: both have a slash."""
        return "/" in self.name


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "transformers is not installed, and hf: models need it: pip install 'layerbench[hf]'"
        ) from None
    module: ModuleType = transformers
    return module


@functools.cache
def _of_task(task: str) -> dict[str, str]:
    """The class of each architecture that has this task, by the type of its configuration."""
    _transformers()
    from transformers.models.auto import modeling_auto

    name = f"MODEL_FOR_{task.upper().replace('-', '_')}_MAPPING_NAMES"
    classes = getattr(modeling_auto, name, {})
    return {kind: one if isinstance(one, str) else one[0] for kind, one in classes.items()}


@functools.cache
def _architectures() -> dict[str, str]:
    """The types of configurations, by readable names: those with a task, and vision parts."""
    _transformers()
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    # A language model that also reads images has its own vision part under another name.
    talking = {k for k in _of_task("image-text-to-text") if _tasks_of(k) == ["image"]}
    kinds = [kind for task in _TASKS for kind in _of_task(task) if kind not in talking]
    parts = [kind for kind in MODEL_MAPPING_NAMES if kind.endswith(_VISION_PART)]
    return {_readable(kind): kind for kind in dict.fromkeys((*kinds, *parts))}


def _readable(kind: str) -> str:
    """``dab-detr`` as ``dab_detr``, ``clip_vision_model`` as ``clip_vision``."""
    name = kind.replace("-", "_")
    return name.removesuffix(_VISION_PART) + _VISION if name.endswith(_VISION_PART) else name


def _tasks_of(kind: str) -> list[str]:
    tasks = [task for task in _TASKS if kind in _of_task(task)]
    usual = _USUAL_TASK.get(kind)
    return sorted(tasks, key=lambda task: task != usual)


def _resolved(spec: _Spec) -> tuple[Any, Any]:
    """The class of a spec and a configuration of its kind, which is the caller's own."""
    config = _config(spec)
    kind = _model_class(spec, config)
    if isinstance(config, kind.config_class):
        return kind, config
    # The type names a whole, and the class is a part of it: Llama 4's vision model.
    part = next((one for one in parts(config) if isinstance(one, kind.config_class)), None)
    return kind, kind.config_class() if part is None else part


def _config(spec: _Spec) -> Any:  # noqa: ANN401 - a configuration of transformers
    """A configuration of the caller's own.

    Raises:
        UnknownModel: there is none.
        UsageError: transformers is missing, or the hub and its cache have none.
    """
    if spec.saved:
        return _saved_config(spec.name)
    known = _architectures()
    if spec.name not in known:
        raise UnknownModel(f"transformers has no vision model {spec.name!r}")
    with _silent():
        return _transformers().AutoConfig.for_model(known[spec.name])


def _saved_config(name: str) -> Any:  # noqa: ANN401 - a configuration of transformers
    folder = Path(name).expanduser()
    if not (name.startswith((".", "/", "~")) or folder.is_dir()):
        return copy.deepcopy(_hub_config(name))
    if not (folder / "config.json").is_file():
        raise UnknownModel(f"{name} is no folder of save_pretrained: it has no config.json")
    try:
        return _read_config(str(folder))
    except _UNREADABLE as error:
        why = typed_line(error)
        raise UsageError(f"{name}: no configuration from its config.json ({why})") from error


@functools.cache
def _hub_config(name: str) -> Any:  # noqa: ANN401 - a configuration of transformers
    """Asked for once: the hub is asked each time whether it has a newer one."""
    try:
        return _read_config(name, local_files_only=not _hub_answers())
    except _UNREADABLE as error:
        raise UsageError(
            f"{name}: no configuration from the hub and its cache ({typed_line(error)}); check the "
            "name and the network"
        ) from error


_UNREADABLE = (OSError, ValueError, KeyError)


def _read_config(place: str, *, local_files_only: bool = True) -> Any:  # noqa: ANN401 - a configuration
    config = _transformers().AutoConfig
    with _silent():
        return config.from_pretrained(
            place, trust_remote_code=False, local_files_only=local_files_only
        )


def _hub_answers() -> bool:
    """Ask once: without a network, the client's own retries take half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWERS_WITHIN_S)
    except Exception:  # of whichever library the client is made with
        return False
    return True


def _model_class(spec: _Spec, config: Any) -> Any:  # noqa: ANN401 - classes of transformers
    """The class of the task; a saved model's is the one it was saved from.

    Raises:
        UsageError: the architecture has no such task, or no model for images.
    """
    transformers = _transformers()
    saved = (getattr(config, "architectures", None) or [None])[0] if spec.saved else None
    if spec.task is None and saved is not None and hasattr(transformers, saved):
        return getattr(transformers, saved)
    return getattr(transformers, _class_name(spec, config.model_type))


def _class_name(spec: _Spec, kind: str) -> str:
    tasks = _tasks_of(kind)
    if spec.task is not None:
        if spec.task not in tasks:
            known = f"{', '.join(tasks)}" if tasks else "no task"
            raise UsageError(f"{spec.name} has {known}; it has no {spec.task!r}")
        return _of_task(spec.task)[kind]
    if tasks:
        return _of_task(tasks[0])[kind]
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    one = MODEL_MAPPING_NAMES.get(kind)
    if one is None:
        raise UsageError(f"{spec.name}: transformers has no model of the type {kind!r}")
    return one if isinstance(one, str) else str(one[0])


@contextmanager
def _silent() -> Iterator[None]:
    """Without warnings and progress bars of the library and its hub, which are put back."""
    logging = _transformers().utils.logging
    from huggingface_hub.utils import logging as of_hub

    both, bars = (logging, of_hub), logging.is_progress_bar_enabled()
    levels = [one.get_verbosity() for one in both]
    for one in both:
        one.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        for one, level in zip(both, levels, strict=True):
            one.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _constructed(kind: Any, config: Any, workload: Workload) -> Any:  # noqa: ANN401 - as above
    """The model with random weights, in float32.

    Raises:
        ModelRunError: there is none of this configuration and size.
        LayerbenchError: it needs a package that is not installed, or the library fails.
    """
    try:
        with size_refused(workload):
            return kind(config)
    except ImportError as error:
        # What follows is advice of several lines.
        why = typed_line(error).partition(". ")[0]
        raise LayerbenchError(f"{workload.model}: {why}") from error
    except LayerbenchError:
        raise
    except Exception as error:
        why = typed_line(error)
        raise LayerbenchError(
            f"{workload.model}: transformers cannot build its configuration: {why}"
        ) from error


def _pretrained(kind: Any, config: Any, spec: _Spec) -> Any:  # noqa: ANN401 - of transformers
    """The model with its weights, in float32.

    Raises:
        LayerbenchError: they cannot be had as safetensors, or are not all there.
    """
    import torch

    place = str(Path(spec.name).expanduser()) if spec.name.startswith("~") else spec.name
    try:
        model, report = kind.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=Path(place).is_dir() or not _hub_answers(),
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise LayerbenchError(
            f"the weights of {spec.model} could not be loaded ({typed_line(error)}); check that "
            "they are there as safetensors, or leave the weights out for random ones"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise LayerbenchError(
            f"the weights of {spec.model} lack {len(missing)} of the tensors of "
            f"{kind.__name__}, such as {missing[0]}"
        )
    return model
