"""Standard output is for reports alone: what a model prints goes to standard error."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

OUT, ERROR = 1, 2


@contextmanager
def model_output_aside() -> Iterator[None]:
    """Send prints of Python and C libraries in the block to standard error."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with _descriptor_aside(), redirect_stdout(sys.stderr):
        yield


@contextmanager
def _descriptor_aside() -> Iterator[None]:
    try:
        kept = os.dup(OUT)
    except OSError:  # it is closed: nothing can be printed there
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(ERROR, OUT)
        yield
    finally:
        _flush()
        os.dup2(kept, OUT)
        os.close(kept)


def _flush() -> None:
    """Write out what Python's own stream and C's hold back, while it still goes elsewhere."""
    with suppress(OSError, ValueError, AttributeError):
        sys.__stdout__.flush()  # type: ignore[union-attr]
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
