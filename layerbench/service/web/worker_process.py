"""Measuring processes as the server sees them: begun, watched, ended, and what their end means.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from layerbench.units import bytes_

# So long a process has to end by itself once it is asked to.
GRACE_S = 3.0
# Between looks at how much memory it holds.
LOOK_S = 0.5
HELD = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+)", re.MULTILINE)
TOO_MUCH = "not enough memory: it held more than {}, shared memory included; take a smaller input"
# A profile with the structure and the memory of a model with thousands of layers fits into it.
MOST_ANSWER = 64 * 2**20
CHUNK = 65536
TAIL = 2000
# As `layerbench.service.protocol.pipe` begins the line of an event.
EVENT = b'{"event": '

Failure = Literal["refused", "died", "deadline", "device"]
Heard = Callable[[dict[str, Any]], object]
"""Takes an event."""


class ChildFailed(Exception):
    """A measurement gave no result.

    Args:
        kind: ``refused`` (the question cannot be measured), ``died``, ``deadline``, or ``device``
            (nothing can be measured on it now).
        reason: one line.
    """

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def held_bytes(pid: int) -> int:
    """Bytes of memory held by a process and its children, files excluded; 0 if unknown.

    Read from Linux's /proc: `RssAnon` and `RssShmem`. Memory that is shared counts once for each
    process that has touched it.
    """
    here = Path(f"/proc/{pid}")
    try:
        status = (here / "status").read_text()
        lists = [(task / "children").read_text() for task in (here / "task").iterdir()]
    except OSError:
        return 0
    held = sum(int(size) * 1024 for size in HELD.findall(status))
    return held + sum(held_bytes(int(other)) for listed in lists for other in listed.split())


def _ignored(_: dict[str, Any]) -> None:
    """Ignore a message."""


@dataclass(frozen=True)
class Child:
    """One measuring process and those that it starts: a process group of its own.

    Attributes:
        process: the one that was started.
        heard: is told each event on the way to the answer.
    """

    process: asyncio.subprocess.Process
    heard: Heard = _ignored

    @classmethod
    async def begun(
        cls, module: str, question: Mapping[str, Any], heard: Heard = _ignored
    ) -> Child:
        """Start a process and ask it.

        Raises:
            ChildFailed: none can be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=MOST_ANSWER,
            )
        except OSError as error:
            raise ChildFailed("died", f"no process could be started: {error}") from error
        child = cls(process, heard)
        await child.ask(question)
        return child

    async def ask(self, question: Mapping[str, Any]) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        # It may be dead already; what it then answers says so.
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            await self.process.stdin.drain()

    async def answer(self, deadline_s: float, memory_bytes: int | None = None) -> dict[str, Any]:
        """The process's answer. Its process group has ended afterwards in every case.

        Args:
            deadline_s: it is ended after so long.
            memory_bytes: it is ended where its processes hold more, shared memory included.

        Raises:
            ChildFailed: it gave no result.
        """
        async with self.watched(memory_bytes):
            try:
                out, err, status = await asyncio.wait_for(self._ended(), deadline_s)
            except asyncio.TimeoutError:
                raise ChildFailed(
                    "deadline",
                    f"the measurement took longer than {deadline_s:g} s, waiting for the device "
                    "included",
                ) from None
            finally:
                # Also where the one who waits is cancelled: the group must not outlive this.
                await asyncio.shield(self.end())
            # Megabytes of it: meanwhile others are answered.
            return await asyncio.to_thread(read_answer, out, err, status)

    async def end(self) -> None:
        """Ask the group to end, and kill what does not."""
        if self.process.returncode is None and self._signal(signal.SIGTERM):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.process.wait(), GRACE_S)
        self._signal(signal.SIGKILL)
        await self.process.wait()

    @asynccontextmanager
    async def watched(self, most: int | None) -> AsyncIterator[None]:
        """Report that the process held too much memory, instead of any error that follows from it.

        Args:
            most: bytes; it is ended where it holds more.

        Raises:
            ChildFailed: it held more.
        """
        too_much = asyncio.Event()
        watching = asyncio.create_task(self._watch(most, too_much))
        try:
            yield
        except ChildFailed:
            if too_much.is_set():
                raise ChildFailed("refused", TOO_MUCH.format(bytes_(most or 0))) from None
            raise
        finally:
            watching.cancel()

    async def _watch(self, most: int | None, too_much: asyncio.Event) -> None:
        # The limit that a process has of its own leaves out memory that is shared.
        while most is not None:
            await asyncio.sleep(LOOK_S)
            if held_bytes(self.process.pid) > most:
                too_much.set()
                await self.end()
                return

    def _signal(self, number: signal.Signals) -> bool:
        """Whether the signal reached a process."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def _ended(self) -> tuple[bytes, bytes, int]:
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        output, complained = await asyncio.gather(_read_most(out, self.heard), tail(err))
        return output, complained, await self.process.wait()


async def _read_most(stream: asyncio.StreamReader, heard: Heard) -> bytes:
    """What a stream says besides events, up to `MOST_ANSWER`.

    All of it is read, so that nobody waits to write.
    """
    kept, line = bytearray(), bytearray()
    while chunk := await stream.read(CHUNK):
        *whole, rest = chunk.split(b"\n")
        for end in whole:
            line += end
            kept += _without_event(line, heard)[: MOST_ANSWER - len(kept)]
            line.clear()
        line += rest[: MOST_ANSWER - len(line)]
    return bytes(kept + line)[:MOST_ANSWER]


def _without_event(line: bytearray, heard: Heard) -> bytes:
    """A line, or nothing if it was an event that somebody has heard now."""
    if not line.startswith(EVENT):
        return bytes(line) + b"\n"
    try:
        event = json.loads(line)["event"]
    except ValueError:
        return bytes(line) + b"\n"
    if isinstance(event, dict):
        heard(event)
    return b""


async def tail(stream: asyncio.StreamReader) -> bytes:
    """The last of what a stream says."""
    kept = b""
    while chunk := await stream.read(CHUNK):
        kept = (kept + chunk)[-TAIL:]
    return kept


def read_answer(out: bytes, err: bytes, status: int) -> dict[str, Any]:
    """What a process found.

    Args:
        out, err: what it said, and how its complaints end.
        status: that it ended with.

    Raises:
        ChildFailed: it said why it found nothing, or said nothing that can be read.
    """
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not {"error", "no_device", "found"} & answer.keys():
        raise ChildFailed("died", _why(status, err))
    if "no_device" in answer:
        raise ChildFailed("device", str(answer["no_device"]))
    if "error" in answer:
        raise ChildFailed("refused", str(answer["error"]))
    return dict(answer["found"])


def _why(status: int, err: bytes) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = " (out of memory, perhaps)" if -status == signal.SIGKILL else ""
        return f"the measuring process was ended by {name}{hint}"
    last = err.decode(errors="replace").strip().splitlines()
    words = f": {last[-1][:200]}" if last and status else ""
    return f"the measuring process ended with status {status} and no answer{words}"
