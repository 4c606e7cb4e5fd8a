"""The processes of one training: what each knows of the others, and the time between them."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import psutil
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from layerbench.environment.devices.clocks import Clock
from layerbench.errors import UsageError, WorkerError

Thing = TypeVar("Thing")

# A process that waits longer than this for another gives up.
TIMEOUT_S = 3600
# So long a survivor waits for its dead neighbour to be seen as dead.
GRACE_S = 2.0


@dataclass(frozen=True)
class Peer:
    """One process of the training.

    Attributes:
        rank: its number.
        host: the machine it runs on.
        pid: its number there.
    """

    rank: int
    host: str
    pid: int


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone, everything is a plain copy.

    Attributes:
        rank: this one's number.
        count: how many there are.
        local: its number among those on this machine.
        peers: all of them.
        device: where this one trains, among several.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    peers: tuple[Peer, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes."""
        if self.count == 1:
            return model
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(model, device_ids=devices)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all processes."""
        if self.count == 1:
            return list(values)
        # On the host: gloo carries it, which notices a process that is gone. NCCL waits for it.
        total = torch.tensor(values, dtype=torch.float64)
        with self.named():
            distributed.all_reduce(total)
        return [float(value) for value in total]

    def meet(self) -> None:
        """Wait until every process is here.

        To be called before this one waits for its device: a kernel of NCCL that waits for a dead
        process never ends.
        """
        self.sums([0.0])

    def same_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers: running statistics are each one's own."""
        if self.count == 1:
            return
        self.meet()
        with self.named():
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def gathered(self, thing: Thing) -> list[Thing]:
        """Every process's, in the order of their numbers."""
        if self.count == 1:
            return [thing]
        things: list[Any] = [None] * self.count
        with self.named():
            distributed.all_gather_object(things, thing)
        return things

    @property
    def machine(self) -> int:
        """The number of this process's machine among those that take part."""
        hosts = list(dict.fromkeys(peer.host for peer in self.peers))
        return hosts.index(self.peers[self.rank].host) if self.peers else 0

    def one_after_the_first(self, make: Callable[[], Thing]) -> Thing:
        """What is made here, after the first process has made its own."""
        made = make() if self.first else None
        self.meet()
        return make() if made is None else made

    def agreed(self, thing: Thing) -> Thing:
        """What the first process says."""
        if self.count == 1:
            return thing
        box: list[Any] = [thing]
        with self.named():
            distributed.broadcast_object_list(box, src=0)
        result: Thing = box[0]
        return result

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn a collective's error after a process died into a line that names the process.

        Raises:
            WorkerError: which process ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_lost_connection(error):
                raise
            raise WorkerError(self._who_is_gone(error)) from error

    def _who_is_gone(self, error: Exception) -> str:
        here = platform.node()
        gone = self._gone(here)
        # What broke the connection may take a moment to be gone; torchrun waits no longer.
        deadline = time.monotonic() + GRACE_S
        while not gone and time.monotonic() < deadline:
            time.sleep(0.01)
            gone = self._gone(here)
        what = " and ".join(f"rank {peer.rank} (process {peer.pid})" for peer in gone)
        if not what:
            elsewhere = sorted({peer.host for peer in self.peers} - {here})
            what = f"a rank on {', '.join(elsewhere)}" if elsewhere else "a rank"
        reason = " ".join(str(error).split())
        return (
            f"{what} ended while rank {self.rank} waited for it, so the run stops: start it again "
            f"with --resume ({reason[:120]})"
        )

    def _gone(self, here: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.host == here and not _alive(peer.pid)]


@contextmanager
def joined(device: str | None) -> Iterator[Ranks]:
    """Join the processes that torchrun started; a process that it did not start stays alone.

    Args:
        device: where the training runs; on GPUs each process of a machine takes its own.

    Raises:
        UsageError: the environment names more processes, but not all that is needed to join.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    missing = [
        n for n in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ
    ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set: start with torchrun"
        )
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    place = _own_device(device, local)
    _start(place)
    try:
        alone = Ranks(rank, count, local, (), place)
        peers = alone.gathered(Peer(rank, platform.node(), os.getpid()))
        yield Ranks(rank, count, local, tuple(peers), place)
    except WorkerError:
        _abandon(place)
        raise
    finally:
        _leave()


def _start(place: torch.device) -> None:
    """Join the others: gradients by NCCL where there are GPUs, and everything else by gloo."""
    timeout = timedelta(seconds=TIMEOUT_S)
    if place.type == "cuda":
        distributed.init_process_group("cuda:nccl,cpu:gloo", timeout=timeout, device_id=place)
    else:
        distributed.init_process_group("gloo", timeout=timeout)


def _abandon(place: torch.device) -> None:
    """End what NCCL still waits for from a process that is gone: to leave would wait, too."""
    abort = getattr(distributed.distributed_c10d, "_abort_process_group", None)  # from 2.6 on
    if place.type == "cuda" and abort is not None:
        with suppress(RuntimeError, ValueError):
            abort()


def _leave() -> None:
    # After a lost connection there is nothing left to say goodbye to.
    with suppress(RuntimeError):
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _own_device(device: str | None, local: int) -> torch.device:
    best = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = best if device in (None, "auto") else str(device)
    if wanted.partition(":")[0] != "cuda":
        return torch.device(wanted)
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    signs = ("connection", "gloo", "nccl", "timed out", "socket", "broken pipe", "peer")
    return isinstance(error, distributed.DistError) or any(sign in text for sign in signs)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class AllReduceTimer:
    """How long, in each step, gradients were on their way between processes.

    Gradients travel in buckets, while the backward goes on; the time is that in which at least
    one was on its way. What it is attached to stays attached: the wrapper is ours. It has its
    price: for each bucket DDP calls Python on the thread of the backward, where it else calls none.

    Args:
        model: as `Ranks.wrap` gave it.
        ranks: how many there are.
        clock: its own, as marks come from other threads too.
        asked: whether anything is timed at all.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, clock: Clock, *, asked: bool) -> None:
        self._clock = clock
        self._ranks = ranks.count
        self._lock = threading.Lock()
        self._spans: list[tuple[int, int]] = []
        self._bounds: list[int] = []
        self._is_timed = False
        if asked and isinstance(model, DistributedDataParallel):
            self._is_timed = True
            model.register_comm_hook(None, self._hook)

    # Without annotations: DDP compares them with the types themselves, and here they are strings.
    def _hook(self, _state, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        with self._lock:
            begins = self._mark()
        # As DDP itself does it: divided first, so that the sum is the mean.
        work = distributed.all_reduce(bucket.buffer().div_(self._ranks), async_op=True)
        future: torch.futures.Future[Any] = work.get_future()

        def arrived(done: torch.futures.Future[Any]) -> torch.Tensor:
            with self._lock:
                self._spans.append((begins, self._mark()))
            tensor: torch.Tensor = done.value()[0]
            return tensor

        return future.then(arrived)

    def _mark(self) -> int:
        """On the queue of whoever asks: what arrives is told on one of its own."""
        self._clock.reserve(1)
        return self._clock.mark()

    def end_step(self) -> None:
        """What comes from here on belongs to the next step."""
        with self._lock:
            self._bounds.append(len(self._spans))

    def take(self) -> list[int]:
        """Nanoseconds of each step since the last call; the device must have finished.

        None for a process alone, and where nothing is timed.
        """
        with self._lock:
            bounds = [0, *self._bounds]
            steps = [self._resolved(self._spans[first:last]) for first, last in pairwise(bounds)]
            self._spans, self._bounds = [], []
            self._clock.release()
        if not self._is_timed:
            return []
        return [covered(spans) for spans in steps]

    def _resolved(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        ends = self._clock.resolve([mark for span in spans for mark in span])
        return list(zip(ends[::2], ends[1::2], strict=True))


def covered(spans: Sequence[tuple[int, int]]) -> int:
    """The length that intervals cover together, overlaps counted once."""
    total, until = 0, None
    for begin, end in sorted(spans):
        start = begin if until is None else max(begin, until)
        if end > start:
            total += end - start
        until = end if until is None else max(until, end)
    return total
