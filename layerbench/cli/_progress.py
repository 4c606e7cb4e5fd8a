"""A progress bar with the time left, on stderr, only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from layerbench.api.bars import TerminalBar, on_terminal
from layerbench.cli._output import complain
from layerbench.cli._streams import model_output_aside
from layerbench.profilers.progress import Progress as Subscription
from layerbench.profilers.progress import Silent


def in_a_line(description: str, done: int, total: int, seconds: float) -> str:
    """``Epoch 1/1 47/1840 [3%] in 29s (~18:10, 1.6/s)``: what is done, and the time left.

    Args:
        description: of the work.
        done, total: steps.
        seconds: since the first of them began.
    """
    rate = done / seconds if seconds > 0 else 0.0
    left = f"~{_clock((total - done) / rate)}, {rate:.1f}/s" if rate else "~?"
    share = round(100 * done / max(1, total))
    return f"{description} {done}/{total} [{share}%] in {_short(seconds)} ({left})"


def _short(seconds: float) -> str:
    return f"{seconds:.0f}s" if round(seconds) < 60 else _clock(seconds)


def _clock(seconds: float) -> str:
    """``18:10``, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lines(ProgressColumn):
    """A task as `in_a_line` puts it."""

    def render(self, task: Task) -> Text:
        return Text(
            in_a_line(
                task.description, int(task.completed), int(task.total or 0), task.elapsed or 0.0
            )
        )


@contextmanager
def shown_in_lines(quiet: bool) -> Iterator[Subscription]:
    """As `shown`, each phase as a bar with one line of figures."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    with Progress(
        BarColumn(bar_width=20),
        _Lines(),
        console=Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    ) as progress:
        yield TerminalBar(progress, "")


@contextmanager
def shown(title: str, quiet: bool) -> Iterator[Subscription]:
    """Show progress while the block runs; nothing with ``quiet`` or where no terminal listens.

    What a model prints meanwhile goes to standard error. What the block itself has to say on
    standard output it says afterwards.
    """
    with model_output_aside(), beside_report(title, quiet) as progress:
        yield progress


@contextmanager
def measuring(title: str, quiet: bool, *devices: str | None) -> Iterator[Subscription]:
    """As `shown`, while no other process of this machine measures on the devices.

    Raises:
        DeviceUnavailable: one is not on this machine.
    """
    from layerbench.environment.device_lock import held
    from layerbench.environment.devices import get

    # In one order: two processes that wait for each other would wait for ever.
    places = sorted({str(get(name).torch_device) for name in devices})
    with ExitStack() as locks:
        for place in places:
            locks.enter_context(held(place, complain))
        yield locks.enter_context(shown(title, quiet))


@contextmanager
def beside_report(title: str, quiet: bool) -> Iterator[Subscription]:
    """As `shown`, for a block that writes its report to standard output line by line."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    with on_terminal(title) as progress:
        yield progress
