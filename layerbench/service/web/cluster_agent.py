"""A Ray cluster's devices, as the web process sees them: by way of a process of their own.

Loads neither torch nor Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from layerbench.records.card import plain_name
from layerbench.service.web.worker_process import (
    EVENT,
    MOST_ANSWER,
    ChildFailed,
    Heard,
    read_answer,
)

log = structlog.get_logger("layerbench.service")

# Between two tries to connect.
AGAIN_S = 5.0
# So long a job waits for a node that has its device: one that restarts joins again.
JOIN_S = 90.0
# A job whose nodes keep dying may be the reason.
MOST_NODES = 3


class NodeGone(Exception):
    """The node that measured is not there any more."""


@dataclass(frozen=True)
class ClusterSlot:
    """A device of a node.

    Attributes:
        node, title: the cluster's name for it, and one for people.
        place: as PyTorch calls the device there.
        name: of the device, as questions and results have it.
        names: that a question may call it by.
        torch: the node's version.
    """

    node: str
    title: str
    place: str
    name: str
    names: tuple[str, ...]
    torch: str

    @property
    def kind(self) -> str:
        """What results are stored under: figures of another PyTorch are others."""
        return f"{self.name} torch {self.torch}"


class ClusterAgent:
    """The devices of one cluster, and measurements on them.

    Args:
        address: of the cluster.
        module: of the process that is connected to it.

    Attributes:
        changed: is called whenever devices come, go, or become free.
        complaint: why there is no connection; ``None`` where there is one, or is about to be.
    """

    def __init__(self, address: str, module: str) -> None:
        self._address = address
        self._module = module
        self.changed: Callable[[], object] = lambda: None
        self._slots: tuple[ClusterSlot, ...] = ()
        self._busy: set[tuple[str, str]] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._runs: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._news = asyncio.Event()
        self.complaint: str | None = "the cluster has not answered yet"

    # --- devices ---------------------------------------------------------------------------

    @property
    def slots(self) -> tuple[ClusterSlot, ...]:
        """Those that are there."""
        return self._slots

    def named(self, name: str) -> ClusterSlot | None:
        """A device that a question names, however it is spelled; the first of those alike."""
        plain = plain_name(name)
        return next((slot for slot in self._slots if plain in map(plain_name, slot.names)), None)

    def kind_of(self, name: str) -> str | None:
        """The kind of the device that a question names."""
        slot = self.named(name)
        return None if slot is None else slot.kind

    def free(self, kind: str) -> ClusterSlot | None:
        """A device of a kind that nothing of this server measures on."""
        return next((one for one in self._slots if one.kind == kind and not self._taken(one)), None)

    def _taken(self, slot: ClusterSlot) -> bool:
        return (slot.node, slot.place) in self._busy

    @asynccontextmanager
    async def held(self, kind: str) -> AsyncIterator[ClusterSlot]:
        """A device of a kind, for the time of the block; waited for.

        Raises:
            ChildFailed: none is left.
        """
        ends = asyncio.get_running_loop().time() + JOIN_S
        while (slot := self.free(kind)) is None:
            if any(one.kind == kind for one in self._slots):
                ends = asyncio.get_running_loop().time() + JOIN_S
            elif asyncio.get_running_loop().time() > ends:
                raise ChildFailed("device", f"no node with {kind} is left in the cluster")
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1.0)
        self._busy.add((slot.node, slot.place))
        try:
            yield slot
        finally:
            self._busy.discard((slot.node, slot.place))
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self.changed()

    # --- the process -------------------------------------------------------------------------

    async def kept(self) -> None:
        """Keep a process that is connected, until cancelled."""
        while True:
            try:
                await self._connected()
            except OSError as error:
                self.complaint = f"no process for the cluster could be started: {error}"
            self.complaint = self.complaint or "the connection to the cluster was lost"
            self._slots = ()
            for queue in self._runs.values():
                queue.put_nowait({"gone": "the connection to the cluster was lost"})
            self._tell()
            log.error("no cluster", reason=self.complaint)
            await asyncio.sleep(AGAIN_S)

    async def _connected(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            self._address,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MOST_ANSWER,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self._hear(json.loads(line))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _hear(self, said: Mapping[str, Any]) -> None:
        if "slots" in said:
            self.complaint = None
            self._slots = tuple(
                ClusterSlot(**{**slot, "names": tuple(slot["names"])}) for slot in said["slots"]
            )
            log.info("devices of the cluster", devices=[one.name for one in self._slots])
            self._tell()
        elif "refused" in said:
            self.complaint = str(said["refused"])
        elif (queue := self._runs.get(said["of"])) is not None:
            queue.put_nowait(dict(said))

    # --- measurements ------------------------------------------------------------------------

    async def measure(
        self, slot: ClusterSlot, module: str, task: Mapping[str, Any], heard: Heard
    ) -> dict[str, Any]:
        """What a measuring process on a node finds.

        Args:
            slot: where.
            module: that is run.
            task: that it reads.
            heard: is told each event on the way.

        Raises:
            ChildFailed: it found nothing.
            NodeGone: its node died.
        """
        id, queue = uuid.uuid4().hex, asyncio.Queue[dict[str, Any]]()
        self._runs[id] = queue
        out: list[str] = []
        ended = False
        try:
            order = {"module": module, "task": {**task, "device": slot.place}}
            await self._ask({"run": id, "node": slot.node, "order": order})
            while True:
                said = await queue.get()
                if "gone" in said:
                    ended = True
                    raise NodeGone(f"{slot.title}: {said['gone']}")
                if "ended" in said:
                    ended = True
                    words = said["complaint"].encode()
                    content = "\n".join(out).encode()
                    return await asyncio.to_thread(read_answer, content, words, said["ended"])
                if not _is_event(said["line"], heard):
                    out.append(said["line"])
        finally:
            del self._runs[id]
            if not ended:
                with contextlib.suppress(NodeGone):
                    await asyncio.shield(self._ask({"cancel": id}))

    async def _ask(self, question: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise NodeGone("there is no connection to the cluster")
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            await process.stdin.drain()
        except ConnectionError:
            raise NodeGone("the connection to the cluster was lost") from None


def _is_event(line: str, heard: Heard) -> bool:
    if not line.startswith(EVENT.decode()):
        return False
    try:
        event = json.loads(line)["event"]
    except ValueError:
        return False
    if isinstance(event, dict):
        heard(event)
    return True
