"""Model families, and the tensors that each needs. Importing this loads no torch."""

from __future__ import annotations

import random
from collections import UserDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from layerbench.errors import BadInput, LayerbenchError, ModelRunError, UsageError, typed_line
from layerbench.introspection.iterators import iterator_in
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.records.workload import Workload
from layerbench.zoo.inputs import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

SAYS = "says_of_itself"
"""The attribute in which a module that layerbench makes has what a report is to note of it: the
text, and whether it matters in training alone."""
_IMAGE_DIMENSIONS = 3  # channels, height, width


@dataclass(frozen=True)
class Built:
    """A model on the CPU and its arguments: ``module(*args, **kwargs)``."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


class Family(Protocol):
    """One file in ``layerbench/zoo`` holds one family as ``FAMILY``; nothing else lists it.

    Attributes:
        name: as messages call it.
        last_resort: tried only after the other families have declined a model spec.
    """

    @property
    def name(self) -> str:
        """As messages call it."""

    @property
    def last_resort(self) -> bool:
        """Whether it is tried only after the other families have declined."""

    def claims(self, model: str) -> bool:
        """Whether a spec of this form belongs to this family. Must be cheap."""

    def names(self) -> list[str]:
        """All model specs of the family; empty where they cannot be listed."""

    def check(self, model: str, weights: str | None) -> None:
        """Check the spec and the weights' name without building the model.

        Raises:
            UnknownModel: the family has no such model.
            ModelImportError: a user's callable cannot be imported.
            UsageError: there are no such weights.
        """

    def has_weights(self, model: str) -> bool:
        """Whether trained weights are published for a model that `check` found."""

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """The model's usual input. Called with the random generator seeded."""

    def brought(self, model: str) -> Built | None:
        """A user's model with its own inputs and number formats.

        ``None`` for models that are built in float32 for any input. Called with the random
        generator seeded.

        Raises:
            LayerbenchError: a user's callable failed.
        """

    def build(self, workload: Workload) -> Built:
        """Build on the CPU, with random inputs of ``workload.shape``.

        Called with the random generator seeded; `layerbench.zoo.build` sets the dtype, the
        memory format and the mode afterwards. Without `loads_weights` the model
        is as its weights would configure it, and nothing is loaded.

        Raises:
            LayerbenchError: the weights cannot be loaded, or a user's callable failed.
        """

    def build_shapes(self, workload: Workload) -> Built:
        """As `build`, without memory for weights and inputs.

        Raises:
            LayerbenchError: the model does not exist in that form.
            Exception: from a constructor that needs values.
        """


class LibraryFamily:
    """Common methods of families whose models are built for any input."""

    last_resort: bool = False

    def names_for(self, task: str) -> list[str]:  # noqa: ARG002 - those that know tasks take it
        """Those of `Family.names` that are for a task, and that nothing has to be fetched for.

        Args:
            task: the end of its name as transformers has it, such as ``image-classification``:
                ``segmentation`` are all kinds of it.
        """
        return []

    def brought(self, model: str) -> None:
        """Nothing: every model is built in float32, without inputs of its own."""

    def build(self, workload: Workload) -> Built:
        """See `Family.build`."""
        raise NotImplementedError

    def build_shapes(self, workload: Workload) -> Built:
        """As `build`, with the tensors of weights and inputs on the meta device."""
        from layerbench.zoo._meta import no_memory

        with no_memory():
            return self.build(workload)


_loading: ContextVar[bool] = ContextVar("whether weights are loaded", default=True)


@contextmanager
def weights_left_out() -> Iterator[None]:
    """Inside, a model is built as its weights configure it, and they are not loaded."""
    token = _loading.set(False)
    try:
        yield
    finally:
        _loading.reset(token)


def loads_weights() -> bool:
    """Whether `Family.build` is to load the weights that the workload names."""
    return _loading.get()


@contextmanager
def size_refused(workload: Workload) -> Iterator[None]:
    """Turn a constructor's error about its image size into one line."""
    try:
        yield
    except (AssertionError, ValueError, RuntimeError) as error:
        height, width = workload.shape[-2:]
        raise ModelRunError(
            f"{workload.model} cannot be built for images of {height}x{width}: {typed_line(error)}"
        ) from error


def check_weights(model: str, weights: str, names: Sequence[str]) -> None:
    """Look a name up among those of a model's published weights; ``DEFAULT`` is the first.

    Raises:
        UsageError: there is none of this name.
    """
    if not names:
        raise UsageError(f"{model} has no published weights: leave the weights option out")
    if weights not in ("DEFAULT", *names):
        raise UsageError(
            f"{model} has no weights {weights!r}; there are DEFAULT, {', '.join(names)}"
        )


def weights_could_not_be_loaded(workload: Workload, error: Exception) -> LayerbenchError:
    """The error of one line for what a library's loader of weights raised."""
    return LayerbenchError(
        f"the weights of {workload.model} could not be loaded ({typed_line(error)}); "
        "check the network, or leave the weights out for random ones"
    )


def random_input(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A float32 tensor on the CPU, uniform in [0, 1); leaves the global generator alone."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")


@contextmanager
def seeded_on_cpu(seed: int) -> Iterator[None]:
    """Build on the CPU from ``seed``; restore the caller's generators and default device.

    PyTorch's, Python's and NumPy's: a model may draw its widths, too.
    """
    import numpy as np
    import torch

    python, numbers = random.getstate(), np.random.get_state()
    # torch.manual_seed would also seed the accelerators, whose generators are not forked here.
    # Tensors of a caller's inference mode could never be trained.
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


def call_arguments(values: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ANN401
    """The arguments of a call: a tuple holds positional ones, a dict keyword arguments.

    A named tuple, such as a packed sequence, is one argument. What transformers' processors give,
    a `UserDict`, is a dict.

    Raises:
        BadInput: one of them can be read once, and a measurement makes many forwards.
    """
    if kind := iterator_in(values):
        raise BadInput(
            f"a {kind} in the inputs is used up by the first of several forwards: give a list of "
            "what it gives, or let the forward make it"
        )
    if isinstance(values, dict | UserDict):
        return (), dict(values)
    several = isinstance(values, tuple) and not hasattr(values, "_fields")
    return (values if several else (values,)), {}


def first_shape(value: object) -> tuple[int, ...] | None:
    """The first tensor's shape, batch first; ``None`` without a tensor that has a batch.

    An empty tensor counts only if all are empty.

    A list of images, the input of detectors, is a batch: its length comes before the first
    image's shape.
    """
    import torch

    from layerbench.introspection.tensors import shape_of

    if isinstance(value, torch.Tensor):
        return shape_of(value) or None
    if isinstance(value, dict):
        return first_shape(tuple(value.values()))
    if isinstance(value, list) and _are_images(value):
        return (len(value), *value[0].shape)
    items = value if isinstance(value, (list, tuple)) else tensors_in(value)
    candidates = map(first_shape, items)
    shapes = [shape for shape in candidates if shape is not None]
    return next((shape for shape in shapes if shape[0] > 0), shapes[0] if shapes else None)


def _are_images(value: list[Any]) -> bool:
    import torch

    return len(value) > 0 and all(
        isinstance(item, torch.Tensor) and item.dim() == _IMAGE_DIMENSIONS for item in value
    )


def checked_workload(**fields: object) -> Workload:
    """A workload, or an error of one line that names the bad field.

    Raises:
        UsageError: such as a dtype that is not one of `layerbench.records.workload.DType`.
    """
    try:
        return Workload.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} {first['input']!r}: {first['msg']}") from None


def on_device(built: Built, device: torch.device) -> Built:
    """Move the model and its inputs."""
    from layerbench.introspection.modules import moved

    args, kwargs = map_tensors((built.args, built.kwargs), lambda tensor: tensor.to(device))
    return Built(moved(built.module, device), args, kwargs)
