"""Progress of a running measurement: the round, the running module, provisional times.

A thread looks a few times a second, reads, and hands over what changed. What takes longer, the
medians of all rows, is worked out by the measuring thread itself between two rounds, where nothing
is timed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerbench.instruments.layer_timer import Folded, fold
from layerbench.introspection.modules import named_modules
from layerbench.profilers.rounds import Rounds
from layerbench.profilers.timing import Session
from layerbench.text import visible
from layerbench.units import NANOSECOND

Event = dict[str, Any]
EventSink = Callable[[Event], bool]
"""Takes an event if that needs no waiting; gives whether it did."""

# Between two looks, and between two sets of provisional rows.
POLL_S = 0.2
ROWS_S = 1.0
# Of the time, for looking: a look that takes long is followed by a longer pause.
SHARE = 0.005
# A provisional median is of so many forwards at most, spread over all so far.
MOST_FORWARDS = 64
# Of a second, after the point.
DIGITS = 9

# In these the model runs as it is measured. Elsewhere a look at a frame could hold tensors whose
# lives are being traced.
RUNNING = ("warm-up", "measuring", "functions")
ROUNDS = ("warm-up", "measuring")


class Watch:
    """Tells of a measurement while a ``with`` block runs; made and entered by its own thread.

    It is the measurement's progress, and its ``begun``.

    Args:
        offer: takes the events, see `EventSink`; what it does not take is offered again at the next
            look, or something newer in its place.
        poll_s, rows_s: seconds between polls, and between provisional rows.

    Example:
        >>> with Watch(offer) as watch:
        ...     measure(workload, plan, device, progress=watch, begun=watch.begun)
    """

    def __init__(self, offer: EventSink, *, poll_s: float = POLL_S, rows_s: float = ROWS_S) -> None:
        self._offer = offer
        self._poll_s, self._rows_s = poll_s, rows_s
        self._paths: dict[int, str] = {}
        self._session: Session | None = None
        self._progress: tuple[str, int, int] = ("building", 0, 1)
        self._rows: Event | None = None
        self._rows_due = 0.0
        self._final = False
        self._sent: dict[str, Event] = {}
        self._measuring = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="layerbench watch", daemon=True)

    def __enter__(self) -> Watch:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Look no more; nothing is offered from here on."""
        self._ended.set()
        self._thread.join()

    # --- what the measuring thread says --------------------------------------------------------

    def step(self, phase: str, done: int, total: int) -> None:
        """Hear of a step: see `layerbench.profilers.progress.Progress`."""
        self._progress = (phase, done, total)
        if self._session is None or self._final:
            return
        if phase not in ROUNDS:
            self._final = True
            self._note_rows(self._session.rounds, final=True)
        elif time.monotonic() >= self._rows_due:
            begins = time.monotonic()
            self._note_rows(self._session.rounds, final=False)
            took = time.monotonic() - begins
            self._rows_due = begins + max(self._rows_s, took / SHARE)

    def begun(self, session: Session) -> None:
        """Know the session whose rounds are about to run."""
        model = session.built.module
        self._paths = {id(module): visible(path) for path, module in named_modules(model)}
        self._rows_due = time.monotonic() + self._rows_s
        self._session = session

    def _note_rows(self, rounds: Rounds, *, final: bool) -> None:
        forwards = rounds.added_up()
        if rounds.layers is None or not forwards:
            return
        step = -(-len(forwards) // MOST_FORWARDS)
        chosen = forwards[::step]
        self._rows = _rows(
            [fact.path for fact in rounds.layers.modules],
            np.median(np.stack([folded.inclusive_ns for folded in chosen]), axis=0),
            np.median(np.stack([folded.self_ns for folded in chosen]), axis=0),
            np.max(np.stack([folded.calls for folded in chosen]), axis=0),
            rounds=len(forwards),
            final=final,
        )

    # --- what the watching thread does ---------------------------------------------------------

    def _sample(self) -> None:
        pause = self._poll_s
        while not self._ended.wait(pause):
            begins = time.monotonic()
            self._send()
            pause = max(self._poll_s, (time.monotonic() - begins) / SHARE)
        self._send()

    def _send(self) -> None:
        """Offer new events; rows are always new."""
        phase, done, total = self._progress
        self._send_if_new({"kind": "progress", "phase": phase, "done": done, "total": total})
        self._send_if_new({"kind": "running", "path": self._running(phase)})
        rows = self._rows or self._rows_of_first_forward()
        if rows is not None:
            self._send_if_new(rows)

    def _send_if_new(self, event: Event) -> bool:
        kind = event["kind"]
        if self._sent.get(kind) == event:
            return True
        accepted = self._offer(event)
        if accepted:
            self._sent[kind] = event
        return accepted

    def _running(self, phase: str) -> str | None:
        if phase not in RUNNING or self._ended.is_set():
            return None
        frame = sys._current_frames().get(self._measuring)
        while frame is not None:
            path = self._paths.get(_self_of(frame))
            if path is not None:
                return path
            frame = frame.f_back
        return None

    def _rows_of_first_forward(self) -> Event | None:
        """Those that have ended, where the first forward takes long and its marks are times."""
        session = self._session
        if session is None or session.rounds.layers is None or session.rounds.forwards:
            return None
        if time.monotonic() < self._rows_due:
            return None
        if session.clock.resolve_host([]) is not None:
            # A device's marks mean nothing before it has been waited for.
            return None
        self._rows_due = time.monotonic() + self._rows_s
        layers = session.rounds.layers
        folded: Folded = fold(tuple(layers.timer.entries), len(layers.modules))
        paths = [fact.path for fact in layers.modules]
        own, calls = folded.self_ns, folded.calls
        return _rows(paths, folded.inclusive_ns, own, calls, rounds=0, final=False)


def _rows(
    paths: list[str],
    inclusive_ns: NDArray[Any],
    self_ns: NDArray[Any],
    calls: NDArray[np.int64],
    *,
    rounds: int,
    final: bool,
) -> Event | None:
    """Of the modules that ran, in seconds; ``None`` where none did."""
    times = zip(
        paths,
        np.round(inclusive_ns * NANOSECOND, DIGITS).tolist(),
        np.round(self_ns * NANOSECOND, DIGITS).tolist(),
        calls.tolist(),
        strict=True,
    )
    rows = [[visible(path), inclusive, own] for path, inclusive, own, called in times if called]
    return {"kind": "rows", "rounds": rounds, "final": final, "rows": rows} if rows else None


def _self_of(frame: FrameType) -> int:
    """What a method's frame works on, by its identity; 0 for any other frame."""
    if "self" not in frame.f_code.co_varnames or frame.f_trace is not None:
        return 0
    local_variables = frame.f_locals
    instance = local_variables.get("self")
    identity = 0 if isinstance(instance, (type, type(None))) else id(instance)
    if isinstance(local_variables, dict):
        # Before Python 3.13 a copy that the frame keeps, with every tensor in it. A debugger would
        # write it back, so a traced frame is left alone.
        local_variables.clear()
    return identity
