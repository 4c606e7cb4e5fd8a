"""The log: one JSON object a line on standard error, also of what libraries say. Loads no torch."""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time

import structlog

from layerbench.service.web.repeated_lines import SECOND_S, Repeats

log = structlog.get_logger("layerbench.service")

MOST_LINES = 10_000
DRAIN_S = 1.0
DRAIN_STEP_S = 0.01
# One that a library says again and again is written so often at most.
AGAIN_S = 1.0
# Different ones that are told apart.
MOST_KINDS = 256
# Of those, what is worth a line in a service's log.
LIBRARIES = ("uvicorn", "asyncio", "fastapi", "starlette", "py.warnings")


def configure_log() -> None:
    """One JSON object a line, to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _REPEATS,
            _MOMENT,
            structlog.processors.format_exc_info,
            _JSON,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_StandardError,
    )
    for name in LIBRARIES:
        _take_over(logging.getLogger(name))
    # uvicorn's own, where uvicorn was the command and set them up.
    for name in ("uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True


def take_over_all() -> None:
    """Log library messages and uncaught errors as JSON, in a process that only serves."""
    _take_over(logging.getLogger())
    for name in LIBRARIES:
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    threading.excepthook = _uncaught


def _take_over(library: logging.Logger) -> None:
    library.handlers = [_Handler(logging.WARNING)]
    library.propagate = False


def _uncaught(hook_args: threading.ExceptHookArgs) -> None:
    error = hook_args.exc_value
    log.error("uncaught", thread=getattr(hook_args.thread, "name", None), exc_info=error)


class _Handler(logging.Handler):
    """What libraries log, in the service's form; the same again at most once a second."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._last: dict[tuple[object, ...], float] = {}
        self._unsaid: dict[tuple[object, ...], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless the same was said a moment ago."""
        error = record.exc_info[1] if record.exc_info else None
        # By the template and the place: the text holds what differs from one time to the next.
        kind = (record.name, str(record.msg)[:200], type(error), _line(error))
        now = time.monotonic()
        if now - self._last.get(kind, -AGAIN_S) < AGAIN_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        if len(self._last) >= MOST_KINDS:
            self._last.clear()
            self._unsaid.clear()
        self._last[kind] = now
        fields: dict[str, object] = {"source": record.name}
        if (left_out := self._unsaid.pop(kind, 0)) > 0:
            fields["left_out"] = left_out
        if error is not None:
            fields["exc_info"] = error
        try:
            text = record.getMessage().strip()
        except Exception:
            text = str(record.msg)
        (log.error if record.levelno >= logging.ERROR else log.warning)(text, **fields)


def _line(error: BaseException | None) -> int | None:
    """Where an error comes from."""
    trace = None if error is None else error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else trace.tb_lineno


class _StandardError:
    """Where lines go, written by a thread of their own.

    Nobody waits for one that is not read, nor fails for one that cannot be written: it is lost.
    """

    _lines: queue.Queue[str] = queue.Queue(maxsize=MOST_LINES)
    _writer: threading.Thread | None = None
    # In the queue, of the length of no line: that some were left out.
    _SOME: str = ""

    def __init__(self, *_: object) -> None:
        cls = _StandardError
        if cls._writer is None:
            cls._writer = threading.Thread(target=cls._write, name="layerbench log", daemon=True)
            cls._writer.start()

    def info(self, line: str) -> None:
        """Leave a line to be written."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    warning = error = exception = info

    @classmethod
    def some_left_out(cls) -> None:
        """Have it said, a second later, how many."""
        with contextlib.suppress(queue.Full):
            cls._lines.put_nowait(cls._SOME)

    @classmethod
    def _write(cls) -> None:
        wait_s = None
        while True:
            with contextlib.suppress(queue.Empty):
                line = cls._lines.get(timeout=wait_s)
                if line != cls._SOME:
                    cls._print(line)
                cls._lines.task_done()
            wait_s = cls._say_left_out()

    @classmethod
    def _say_left_out(cls, whenever: bool = False) -> float | None:
        """Print the counts of omitted lines when due; returns the seconds to wait, or ``None``."""
        left_out = _REPEATS.left_out(whenever)
        if left_out is None:
            return SECOND_S / 2
        for line in left_out:
            cls._print(str(_JSON(None, "", _MOMENT(None, "", line))))
        return None

    @classmethod
    def _print(cls, line: str) -> None:
        # A pipe whose reader is gone, a full disk, a closed file.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    @classmethod
    def drain(cls) -> None:
        """Give the last lines a moment."""
        ends = time.monotonic() + DRAIN_S
        while cls._lines.unfinished_tasks and time.monotonic() < ends:
            time.sleep(DRAIN_STEP_S)
        cls._say_left_out(whenever=True)


_REPEATS = Repeats(_StandardError.some_left_out)
_MOMENT = structlog.processors.TimeStamper(fmt="iso", utc=True)
_JSON = structlog.processors.JSONRenderer()


def drain_log() -> None:
    """Wait a moment for the remaining lines to be written."""
    _StandardError.drain()
