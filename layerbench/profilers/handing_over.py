"""A module object for fresh processes: a file that each loads it from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from layerbench.errors import UsageError, typed_line
from layerbench.records.workload import Frozen
from layerbench.zoo import Built


class HandedOver(Frozen):
    """Where a module and its inputs are.

    Attributes:
        file: that `torch.save` wrote.
    """

    file: str


@contextmanager
def handed_over(subject: Built | None) -> Iterator[HandedOver | None]:
    """A module and its inputs in a file, as long as the block runs; ``None`` for no module.

    Raises:
        UsageError: they cannot be pickled.
    """
    if subject is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="layerbench-") as folder:
        file = Path(folder) / "module.pt"
        try:
            torch.save((subject.module, subject.args, subject.kwargs), file)
        except Exception as error:
            raise UsageError(_cannot_go(subject.module, error)) from error
        yield HandedOver(file=str(file))


def received(handed: HandedOver | None) -> Built | None:
    """The module and its inputs, in a fresh process.

    Raises:
        UsageError: what they are made of cannot be imported here.
    """
    if handed is None:
        return None
    try:
        # Written a moment ago by the process that asks: nobody else's code is run.
        module, args, kwargs = torch.load(handed.file, weights_only=False)
    except Exception as error:
        raise UsageError(_cannot_go(None, error)) from error
    return Built(module, args, kwargs)


def _cannot_go(module: nn.Module | None, error: Exception) -> str:
    name = "the module" if module is None else f"a {type(module).__name__}"
    return (
        f"{name} cannot be handed to fresh processes ({typed_line(error)}): define its class at "
        "the top of a file that can be imported, give a spec such as 'package.module:callable', "
        "or measure with processes=1"
    )
