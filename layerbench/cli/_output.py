"""Standard output and error: writing to them, and ending a command if that fails."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

# As typer ends a command whose reader has gone.
CLOSED = 1
FULL = 2

# What writing to a file or pipe that takes no more raises; a file's name would stand in the error.
_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.ECONNRESET)


def every_letter_written() -> None:
    """Text that a terminal's encoding has no letters for is written out instead of refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def nothing_closed() -> None:
    """If standard output or error is closed, discard the text.

    Nor does the next file that is opened get its number, and with it what is told.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def complain(text: str) -> None:
    """Tell standard error one line."""
    from layerbench.text import one_line

    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(one_line(text), file=sys.stderr, flush=True)


def lost(error: BaseException) -> int | None:
    """Handle output that cannot be written: silently if its reader has closed, as ``head`` does.

    Returns:
        the status to leave with; ``None`` where the error is another one.
    """
    if not isinstance(error, OSError) or error.filename or error.errno not in _NO_MORE:
        return None
    # What is still buffered would be written, and complained of, once more at the very end.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return CLOSED
    complain(f"error: cannot write the output: {error.strerror or error}")
    return FULL
