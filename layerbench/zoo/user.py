"""The user's own models: ``package.module:callable`` and ``path/to/file.py:callable``."""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layerbench.errors import BadInput, ModelImportError, UsageError
from layerbench.workload import Workload
from layerbench.zoo import inputs
from layerbench.zoo.family import Built, call_arguments, first_shape, one_line, random_input
from layerbench.zoo.inputs import InputSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class User:
    """The family of everything that can be imported and called without arguments."""

    name: str = "user"
    last_resort: bool = True

    def claims(self, model: str) -> bool:
        """Anything with a colon that no other family has claimed."""
        return ":" in model

    def names(self) -> list[str]:
        """None: what a user has cannot be listed."""
        return []

    def check(self, model: str, weights: str | None) -> None:
        """Import the callable, without calling it."""
        if weights is not None:
            raise UsageError(f"{model} brings its own weights: leave the weights option out")
        _find(model)

    def has_weights(self, model: str) -> bool:  # noqa: ARG002 - the user's model has its own
        """Never: what the callable returns is taken as it is."""
        return False

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """The shape of the first tensor in the inputs that the callable returns."""
        _, own = _call(model)
        if own is None:
            raise BadInput(
                f"{model} returned a module without inputs: name an input, "
                "such as --input 1x3x224x224, or return (module, inputs)"
            )
        shape = first_shape(own)
        if shape is None:
            raise BadInput(f"{model} returned inputs without a tensor that has a batch dimension")
        if batch is not None and shape[0] != batch:
            raise BadInput(
                f"{model} returned inputs with a batch of {shape[0]}, and the batch asked for "
                f"is {batch}: leave --batch out, or name an input"
            )
        return InputSpec(inputs.OWN, shape)

    def build(self, workload: Workload) -> Built:
        """Call the callable; its own inputs are used where the workload says so."""
        module, own = _call(workload.model)
        if workload.input != inputs.OWN:
            return Built(module, (random_input(workload.shape, workload.seed),))
        return Built(module, *call_arguments(own))


FAMILY = User()


def _call(model: str) -> tuple[nn.Module, Any]:
    """The module and the inputs the callable returned, ``None`` without inputs."""
    from torch import nn

    target = _find(model)
    if isinstance(target, nn.Module):
        # The file's own instance must not change: it may be asked for again.
        return copy.deepcopy(target), None
    with _importable(model):
        try:
            result = target()
        except (Exception, SystemExit) as error:
            raise ModelImportError(
                f"calling {model} without arguments failed: {one_line(error)}"
            ) from error
    own = None
    if isinstance(result, tuple) and len(result) == 2:
        result, own = result
    if not isinstance(result, nn.Module):
        raise ModelImportError(
            f"{model} returned {_described(result)}; it must return a torch.nn.Module "
            "or (module, inputs)"
        )
    return result, own


def _find(model: str) -> Any:  # noqa: ANN401 - whatever the user named
    """Import what stands before the colon and take what stands after it."""
    place, _, name = model.rpartition(":")
    if not place or not name:
        raise ModelImportError(
            f"cannot read the model {model!r}: give package.module:callable "
            "or path/to/file.py:callable"
        )
    with _importable(model):
        try:
            found: Any = _import_file(Path(place)) if place.endswith(".py") else _import(place)
        except FileNotFoundError as error:
            if place.endswith(".py") and not Path(place).is_file():
                raise ModelImportError(f"cannot import {model}: no file {place}") from None
            raise ModelImportError(f"cannot import {model}: {one_line(error)}") from error
        except (Exception, SystemExit) as error:
            raise ModelImportError(f"cannot import {model}: {one_line(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ModelImportError(f"cannot import {model}: {place} has no {name!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ModelImportError(f"{model} is {_described(found)}, which cannot be called")
    return found


def _import(place: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(place)


def _import_file(path: Path) -> ModuleType:
    """Import a file once; once more after it has changed."""
    path = path.expanduser().resolve()
    stamp = f"{path}:{path.stat().st_mtime_ns}"
    name = f"{path.stem}_{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Classes of the file look themselves up by their module's name, dataclasses for one.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(model: str) -> Iterator[None]:
    """Import from the working directory, and for a file from its folder, as Python would."""
    place = model.rpartition(":")[0]
    before = list(sys.path)
    if place.endswith(".py"):
        sys.path.insert(0, str(Path(place).expanduser().resolve().parent))
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _described(value: object) -> str:
    return f"an object of type {type(value).__name__}" if value is not None else "None"
