"""What PyTorch says of its own state, which is no matter of the model's author. Loads no torch."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Of torchvision's operators on fake tensors, and of sparse tensors: that their layout is new, and
# that nothing checks their indices.
NOTICES = (
    r"`create_unbacked_symint` is deprecated",
    r"Sparse (CSR|CSC|BSR|BSC) tensor support is in beta",
    r"Sparse invariant checks are implicitly disabled",
)
# By logger. What a model raises on fake tensors, which is caught and said in a line. Where Inductor
# looks for CUDA on a machine without a GPU, and of types that a release of torchao, which
# transformers imports, registers in a way that PyTorch means to refuse one day.
LOGGED = {
    "torch._subclasses.fake_tensor": re.compile("failed while attempting to run meta for"),
    "torch.utils.cpp_extension": re.compile("No CUDA runtime is found"),
    "torch.utils._pytree": re.compile(r"<enum '\w+'> is an Enum subclass and is now natively"),
}


@contextmanager
def notices_kept_back() -> Iterator[None]:
    """Leave all of those out of standard error, in a process of our own."""
    with warnings.catch_warnings(), logged_notices_kept_back():
        for notice in NOTICES:
            warnings.filterwarnings("ignore", message=notice)
        yield


@contextmanager
def logged_notices_kept_back() -> Iterator[None]:
    """Leave those that are logged out, and nothing else of the same loggers."""
    filters = [(logging.getLogger(name), _without(notice)) for name, notice in LOGGED.items()]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


@contextmanager
def variables_kept(beginning: str) -> Iterator[None]:
    """Leave the environment's variables whose names begin so as they are now."""
    before = {name: value for name, value in os.environ.items() if name.startswith(beginning)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(beginning)]:
            del os.environ[name]
        os.environ.update(before)


def _without(notice: re.Pattern[str]) -> logging.Filter:
    class Without(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return notice.match(record.getMessage()) is None

    return Without()
