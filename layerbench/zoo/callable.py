"""The user's own models: ``package.module:callable`` and ``path/to/file.py:callable``."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbench.errors import BadInput, ModelImportError, UsageError, did_you_mean, typed_line
from layerbench.records.workload import ReadFile, Workload
from layerbench.zoo import inputs
from layerbench.zoo._importing import Scope, forget, scope_of
from layerbench.zoo.family import (
    Built,
    call_arguments,
    first_shape,
    random_input,
    seeded_on_cpu,
)
from layerbench.zoo.inputs import InputSpec


@dataclass(frozen=True)
class User:
    """The family of everything that can be imported and called without arguments."""

    name: str = "user"
    last_resort: bool = True

    def claims(self, model: str) -> bool:
        """Anything with a colon that no other family has claimed."""
        return ":" in model

    def names(self) -> list[str]:
        """None: a user's models cannot be listed."""
        return []

    def check(self, model: str, weights: str | None) -> None:
        """Import the callable, without calling it."""
        if weights is not None:
            raise UsageError(f"{model} has its own weights: leave the weights option out")
        _find(model)

    def has_weights(self, model: str) -> bool:  # noqa: ARG002 - the user's model has its own
        """Never: the callable's result is used as it is."""
        return False

    def default_input(self, model: str, batch: int | None) -> InputSpec:
        """The shape of the first tensor in the inputs that the callable returns."""
        return own_input(model, self.brought(model), batch)

    def brought(self, model: str) -> Built:
        """The callable's result, without memory if it does not need values.

        Without inputs there are no arguments.
        """
        try:
            return _called_without_memory(model)
        except Exception:
            return _called(model)  # says what is wrong, if anything is

    def build(self, workload: Workload) -> Built:
        """Call the callable; its own inputs are used if the workload says so."""
        built = _called(workload.model)
        if workload.input != inputs.OWN:
            return Built(built.module, (random_input(workload.shape, workload.seed),))
        return built

    def build_shapes(self, workload: Workload) -> Built:
        """As `build`, with the tensors of weights and inputs on the meta device."""
        from layerbench.zoo._meta import no_memory

        built = _called_without_memory(workload.model)
        if workload.input == inputs.OWN:
            return built
        with no_memory():
            return Built(built.module, (random_input(workload.shape, workload.seed),))


def own_input(model: str, brought: Built, batch: int | None) -> InputSpec:
    """The shape of the inputs that a user's callable returned.

    Raises:
        BadInput: there are none, or they have another batch.
    """
    if not brought.args and not brought.kwargs:
        raise BadInput(
            f"{model} has no inputs of its own: name an input, such as --input 1x3x224x224 or "
            "--inputs FILE; a callable may return (module, inputs)"
        )
    shape = _of_batch((brought.args, brought.kwargs), batch, f"{model} returned")
    return InputSpec(inputs.OWN, shape)


def file_input(file: ReadFile, arguments: tuple[Any, Any], batch: int | None) -> InputSpec:
    """The shape of the inputs of a file.

    Raises:
        BadInput: they have another batch.
    """
    return InputSpec(file.name, _of_batch(arguments, batch, f"{file.name} holds"))


def _of_batch(arguments: tuple[Any, Any], batch: int | None, where: str) -> inputs.Shape:
    """The shape of the first tensor, if its batch is this one."""
    shape = first_shape(arguments) or ()
    if batch is not None and shape[:1] != (batch,):
        held = shape[0] if shape else "nothing"
        raise BadInput(
            f"{where} inputs with a batch of {held}, not of {batch}: "
            "leave --batch out, or name an input"
        )
    return shape


FAMILY = User()

MAY_RETURN = (
    "it must return a torch.nn.Module, or a pair: (module, tensor), (module, (first, second)) for "
    "several arguments, (module, {'name': tensor}) for keyword arguments, (module, ({...},)) for "
    "a dict as the argument, (module, [image, image]) for a list of images"
)
"""What an error says of a callable's result; docs/timer.md has the same as a table."""

# Of a file's own callables, where the one that was named is not there.
MOST_NAMED = 8


def _called(model: str) -> Built:
    """The callable's result; without inputs there are no arguments."""
    from torch import nn

    target = _find(model)
    if isinstance(target, nn.Module):
        # The file's own instance must not change: it may be used again.
        try:
            return Built(copy.deepcopy(target), ())
        except Exception as error:
            raise ModelImportError(
                f"{model} is a {type(target).__name__} that cannot be copied: name a function that "
                f"returns one ({typed_line(error)})"
            ) from error
    with _at_home(model):
        try:
            result = target()
        except (Exception, SystemExit) as error:
            raise ModelImportError(
                f"calling {model} without arguments failed: {typed_line(error)}{_needs_none(error)}"
            ) from error
    own: Any = ()
    if isinstance(result, tuple) and len(result) == 2:
        result, own = result
    if not isinstance(result, nn.Module):
        raise ModelImportError(
            f"{model} returned {_described(result)}{_hint(result)}; {MAY_RETURN}"
        )
    return Built(result, *call_arguments(own))


def _called_without_memory(model: str) -> Built:
    """The callable's result, without memory for large tensors.

    Raises:
        Exception: from the callable, which may need values.
    """
    from layerbench.zoo._meta import no_memory

    _find(model)  # the file itself runs as always
    try:
        with no_memory():
            return _called(model)
    except ModelImportError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, Exception) else error from None
    finally:
        # The file may cache tensors, a table of positions for instance.
        forget(model.rpartition(":")[0])


def imported(spec: str) -> Any:  # noqa: ANN401 - whatever the user named
    """What ``package.module:callable`` or ``path/to/file.py:callable`` names, not called.

    Raises:
        ModelImportError: it cannot be imported, or cannot be called.
    """
    return _find(spec)


def _find(model: str) -> Any:  # noqa: ANN401 - whatever the user named
    """Import the module before the colon and return its attribute after it."""
    place, _, name = model.rpartition(":")
    if not place or not name:
        raise ModelImportError(
            f"cannot read the model {model!r}: give package.module:callable "
            "or path/to/file.py:callable"
        )
    # A file draws the same numbers at each import, and builds do not depend on it.
    with seeded_on_cpu(0), _at_home(model) as scope:
        try:
            value: Any = scope.module(place)
        except FileNotFoundError as error:
            if place.endswith(".py") and not Path(place).expanduser().is_file():
                raise ModelImportError(f"cannot import {model}: no file {place}") from None
            raise ModelImportError(f"cannot import {model}: {typed_line(error)}") from error
        except (Exception, SystemExit) as error:
            beside = Path(f"{place}.py")
            hint = f"; did you mean {beside}:{name}?" if beside.is_file() else ""
            raise ModelImportError(f"cannot import {model}: {typed_line(error)}{hint}") from error
    for part in name.split("."):
        if not hasattr(value, part):
            hint = did_you_mean(part, dir(value)) or _callables_of(value)
            raise ModelImportError(
                f"cannot import {model}: {place} has no {name!r}{hint and '; '}{hint}"
            )
        value = getattr(value, part)
    if not callable(value):
        raise ModelImportError(
            f"{model} is {_described(value)}, which cannot be called: name a "
            "function that returns the model"
        )
    return value


@contextmanager
def _at_home(model: str) -> Iterator[Scope]:
    """Run the user's code as Python would: with its folders to import from, and no arguments.

    The file's folder comes first, then the working directory. What the code itself adds to the path
    stays there: an import inside ``forward`` may need it.
    """
    place = model.rpartition(":")[0]
    scope = scope_of(place)
    folders, arguments = [str(root) for root in scope.roots], sys.argv
    sys.path[:0] = folders
    sys.argv = [place]
    try:
        with scope.offered():
            yield scope
    finally:
        sys.argv = arguments
        for folder in folders:
            if folder in sys.path:
                sys.path.remove(folder)


def _needs_none(error: BaseException) -> str:
    missing = isinstance(error, TypeError) and "required positional argument" in str(error)
    return "; name a function that needs none" if missing else ""


def _hint(value: object) -> str:
    is_program = type(value).__name__ == "ExportedProgram"
    return ", which has one: program.module()" if is_program else ""


def _callables_of(module: Any) -> str:  # noqa: ANN401 - whatever stands before the name
    """The functions and classes that are defined there, a few of them."""
    home = getattr(module, "__name__", None)
    names = [
        name
        for name, value in getattr(module, "__dict__", {}).items()
        if callable(value) and getattr(value, "__module__", None) == home and name[:1] != "_"
    ]
    rest = ", ..." if len(names) > MOST_NAMED else ""
    return f"it has {', '.join(names[:MOST_NAMED])}{rest}" if names else ""


def _described(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"an object of type {type(value).__name__}" if value is not None else "None"
