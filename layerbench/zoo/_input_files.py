"""Inputs of the user's own, from a file: ``--inputs FILE.pt|.npz|.json``. Docs: docs/models.md."""

from __future__ import annotations

import inspect
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from layerbench.errors import BadInput, typed_line
from layerbench.records.workload import ReadFile
from layerbench.text import one_line
from layerbench.zoo import _files
from layerbench.zoo.family import Built, call_arguments
from layerbench.zoo.inputs import MOST_ELEMENTS

KINDS = (".pt", ".pth", ".npz", ".json")

_CALL = frozenset({"args", "kwargs"})
# How NumPy names arrays that were saved without names.
_NUMBERED = re.compile(r"arr_([0-9]{1,6})")
_TENSOR = frozenset({"shape", "data", "dtype", "high"})
_DEEP = 32
_NUMBERS = (bool, int, float)
_MOST_JSON = 2**28

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def read(file: ReadFile, seed: int, *, shapes: bool = False) -> Arguments:
    """The arguments of a forward that a file holds, on the CPU.

    Args:
        file: one of `KINDS`.
        seed: of the values where it states shapes alone.
        shapes: leave such tensors without memory.

    Raises:
        UsageError: it cannot be read, or does not hold inputs; nothing in it was run.
    """
    place = _files.opened(file)
    kind = place.suffix.lower()
    if kind == ".json":
        value = _Json(place.name, seed, "meta" if shapes else "cpu").read(place)
    elif kind == ".npz":
        value = _arrays(place)
    else:
        value = _files.plain_content(place)
    args, kwargs = _as_call(value)
    if not args and not kwargs:
        raise BadInput(f"{place.name} holds no inputs")
    for name in kwargs:
        if not isinstance(name, str):
            raise BadInput(f"{place.name}: {one_line(repr(name))} is no name of an argument")
    return args, kwargs


def given(built: Built, file: ReadFile, seed: int, *, shapes: bool = False) -> Built:
    """The model with the inputs of a file in place of its own.

    Raises:
        UsageError: as `read`.
        BadInput: the model's forward does not take arguments of these names or this number.
    """
    built = Built(built.module, *read(file, seed, shapes=shapes))
    check_takes(built, file.name)
    return built


def check_takes(built: Built, name: str) -> None:
    """Refuse inputs that the model has no parameters for, or says that it does not take.

    Args:
        built: the model with the inputs.
        name: of the inputs.

    Raises:
        BadInput: it does not take them.
    """
    says = getattr(built.module, "check_inputs", None)
    if says is not None:
        says(name, built.args, built.kwargs)
        return
    try:
        signature = inspect.signature(built.module.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*built.args, **built.kwargs)
    except TypeError as error:
        raise BadInput(
            f"{name} does not fit the model, whose forward takes {signature}: {error}"
        ) from None


def _as_call(value: Any) -> Arguments:  # noqa: ANN401 - whatever a file holds
    """A dictionary of ``args`` and ``kwargs``, or what a callable may return as its inputs."""
    if isinstance(value, dict) and value and value.keys() <= _CALL:
        args, kwargs = value.get("args", ()), value.get("kwargs", {})
        if isinstance(args, (list, tuple)) and isinstance(kwargs, dict):
            return tuple(args), dict(kwargs)
    return call_arguments(value)


def _arrays(place: Path) -> Any:  # noqa: ANN401 - arguments of a forward
    import numpy as np

    with _files.damaged(place.name, "a file of NumPy arrays"):
        if not zipfile.is_zipfile(place):  # NumPy would advise to load it as a pickle
            raise ValueError("it is no archive")
        held = np.load(place)
    with _files.damaged(place.name, "a file of NumPy arrays"), held:
        # Without pickles: NumPy refuses arrays of objects.
        arrays = {name: held[name] for name in held.files}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    # NumPy makes one dimension of a number.
    tensors = {name: tensors[name].reshape(array.shape) for name, array in arrays.items()}
    numbers = {name: found for name in tensors if (found := _NUMBERED.fullmatch(name))}
    ordered = sorted(numbers, key=lambda name: int(numbers[name][1]))
    return {
        "args": [tensors.pop(name) for name in ordered],
        "kwargs": tensors,
    }


class _Json:
    """Inputs written as JSON.

    Args:
        name: of the file.
        seed: of random values.
        device: of tensors of which only the shape is said.
    """

    def __init__(self, name: str, seed: int, device: str) -> None:
        self._name = name
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)

    def read(self, place: Path) -> Any:  # noqa: ANN401 - arguments of a forward
        """The file's values, with tensors in the places that mean some."""
        with _files.damaged(place.name, "JSON"):  # also where it is nested too deep to be read
            if place.stat().st_size > _MOST_JSON:
                raise BadInput(f"{place.name} is larger than {_MOST_JSON >> 20} MiB: save .npz")
            return self._call(json.loads(place.read_bytes()))

    def _call(self, value: Any) -> Any:  # noqa: ANN401 - any of JSON's
        if not (isinstance(value, dict) and value and value.keys() <= _CALL):
            return self._value(value)
        args, kwargs = value.get("args", []), value.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise BadInput(f"{self._name}: args is a list, and kwargs an object")
        return {
            "args": [self._value(one) for one in args],
            "kwargs": {name: self._value(one) for name, one in kwargs.items()},
        }

    def _value(self, value: Any, deep: int = 0) -> Any:  # noqa: ANN401 - any of JSON's
        if deep > _DEEP:
            raise BadInput(f"{self._name} is nested more than {_DEEP} deep")
        if isinstance(value, dict):
            if value.keys() & {"shape", "data"}:
                return self._tensor(value)
            return {name: self._value(one, deep + 1) for name, one in value.items()}
        if isinstance(value, list):
            if _is_array(value):
                return self._made(value, None)
            return [self._value(one, deep + 1) for one in value]
        return value

    def _tensor(self, said: dict[str, Any]) -> torch.Tensor:
        if unknown := said.keys() - _TENSOR:
            names = one_line(", ".join(sorted(unknown)))
            raise BadInput(f"{self._name}: a tensor has shape or data, dtype and high, not {names}")
        if "shape" in said and "data" in said:
            raise BadInput(f"{self._name}: say the data of a tensor, or its shape")
        kind = self._dtype(said.get("dtype"))
        if "data" in said:
            return self._made(said["data"], kind)
        return self._random(self._shape(said["shape"]), kind or torch.float32, said.get("high"))

    def _dtype(self, name: object) -> torch.dtype | None:
        if name is None:
            return None
        kind = getattr(torch, name, None) if isinstance(name, str) else None
        if not isinstance(kind, torch.dtype):
            raise BadInput(f"{self._name}: {one_line(repr(name))} is no dtype of PyTorch")
        return kind

    def _shape(self, sizes: object) -> tuple[int, ...]:
        if not (isinstance(sizes, list) and all(type(n) is int and n >= 0 for n in sizes)):
            raise BadInput(f"{self._name}: a shape is a list of sizes, not {one_line(repr(sizes))}")
        if math.prod(sizes) > MOST_ELEMENTS:
            raise BadInput(f"{self._name}: {sizes} has more elements than a tensor can hold")
        return tuple(sizes)

    def _made(self, data: object, kind: torch.dtype | None) -> torch.Tensor:
        try:
            return torch.tensor(data, dtype=kind)
        except Exception as error:
            said = one_line(typed_line(error))
            raise BadInput(f"{self._name}: the data make no tensor: {said}") from error

    def _random(self, shape: tuple[int, ...], kind: torch.dtype, high: object) -> torch.Tensor:
        above = 2 if kind is torch.bool else high
        whole = not (kind.is_floating_point or kind.is_complex)
        if whole and (type(above) is not int or above < 1):
            raise BadInput(
                f"{self._name}: random whole numbers need high, the number above the largest one"
            )
        if self._device == "meta":
            return torch.empty(shape, dtype=kind, device="meta")
        if isinstance(above, int) and whole:
            return torch.randint(0, above, shape, generator=self._generator).to(kind)
        # Formats of 8 bits have no random numbers of their own.
        wide = kind if kind.is_complex else torch.float32
        return torch.rand(shape, dtype=wide, generator=self._generator).to(kind)


def _is_array(value: list[Any]) -> bool:
    """Whether it is of numbers, or of equally nested lists of numbers."""
    if not value:
        return False
    if all(isinstance(one, _NUMBERS) for one in value):
        return True
    return all(isinstance(one, list) and _is_array(one) for one in value)
