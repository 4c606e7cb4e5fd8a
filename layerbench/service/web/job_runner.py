"""A measurement that a server runs: its process, its device, and why there is none.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from layerbench.environment.device_lock import DeviceLock, held_by_another, lock_path
from layerbench.service.web.followed_jobs import FollowedJob
from layerbench.service.web.job_results import UNSTEADY, checked
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.settings import Settings
from layerbench.service.web.tables import Job
from layerbench.service.web.worker_process import Child

log = structlog.get_logger("layerbench.service")

# A measurement counts as so long before any has ended, and this much of the latest goes in.
FIRST_GUESS_S = 30.0
LATEST = 0.3
# A measurement that has not ended so long after its deadline never will.
WEDGED_S = 30.0
# Who waits longer than this for the device is told of by `ready`.
HELD_S = 60.0


class Runner:
    """Runs one job at a time.

    Args:
        settings: of the server.
        metrics: that are counted.

    Attributes:
        job, followed: that runs, and what is heard of it.
        usual_s: what a measurement takes, about.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.job: Job | None = None
        self.followed: FollowedJob | None = None
        self.usual_s = FIRST_GUESS_S
        self._began = 0.0

    @property
    def wedged(self) -> bool:
        """Whether the job that runs should have ended long ago."""
        late = time.monotonic() - self._began - self._settings.deadline
        return self.job is not None and late >= WEDGED_S

    @property
    def complaint(self) -> str | None:
        """Why nothing could be measured now, if so."""
        return None

    @contextmanager
    def running(self, job: Job, followed: FollowedJob) -> Iterator[None]:
        """A job that runs, for the time of the block.

        One that is left by a cancellation still counts as running: `Jobs.stop` ends it.
        """
        self.job, self.followed, self._began = job, followed, time.monotonic()
        self._metrics.running.inc()
        log.info("measuring", job=job.id, question=job.question)
        yield
        self._left(followed)
        self.job = self.followed = None
        self._metrics.running.dec()
        took = time.monotonic() - self._began
        self._metrics.seconds.observe(took)
        self.usual_s += LATEST * (took - self.usual_s)

    def _left(self, followed: FollowedJob) -> None:
        """The job that was followed has ended."""

    def targets(self) -> set[str]:
        """Those of jobs that can run here now."""
        raise NotImplementedError

    async def answer(self, job: Job, followed: FollowedJob) -> dict[str, Any] | None:
        """What a process of its own finds; ``None`` where the job is ended meanwhile.

        Raises:
            ChildFailed: it found nothing.
        """
        raise NotImplementedError

    async def end(self) -> None:
        """End the process, if there is one."""
        raise NotImplementedError


class JobRunner(Runner):
    """Runs jobs on this machine.

    Args:
        settings, metrics: of the server.
        catalog: that knows the device.
        targets: of jobs that can run here.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        metrics: Metrics,
        targets: Callable[[], set[str]],
    ) -> None:
        super().__init__(settings, metrics)
        self._catalog = catalog
        self._targets = targets
        self._child: Child | None = None
        self._device_lock = DeviceLock()

    def targets(self) -> set[str]:
        """Those of jobs that can run on this machine."""
        return self._targets()

    @property
    def complaint(self) -> str | None:
        """Why nothing could be measured now, if so."""
        if not self._catalog.device:
            # Nothing has been measured, and the lock has no name yet.
            return None
        lock = self._lock(self.job)
        if self.followed is None:
            return self._device_lock.complaint(lock)
        waits_s = self.followed.waits_s
        if waits_s > HELD_S:
            return f"another process has held the device for {waits_s:.0f} s, by the lock {lock}"
        if waits_s and self._device_lock.missed:
            # A deadline may be shorter than that.
            return held_by_another(lock)
        return None

    def _left(self, followed: FollowedJob) -> None:
        self._device_lock.missed = followed.waits_since is not None
        self._child = None

    async def answer(self, job: Job, followed: FollowedJob) -> dict[str, Any] | None:
        """What a process of its own finds; ``None`` where the job is ended meanwhile.

        Raises:
            ChildFailed: it found nothing.
        """
        settings = self._settings
        self._child = await Child.begun(settings.child, self._order(job), followed.hear)
        if followed.ended:
            # Cancelled while it was being started.
            await self._child.end()
            return None
        answer = await self._child.answer(settings.deadline, settings.memory_bytes)
        answer[UNSTEADY] = await asyncio.to_thread(checked, job.what, answer)
        return None if followed.ended else answer

    async def end(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            await self._child.end()

    def _order(self, job: Job) -> dict[str, Any]:
        settings = self._settings
        return {
            "what": job.what,
            "question": job.question,
            "device": _device(job.question) or settings.device,
            "seconds": settings.seconds,
            "memory_bytes": settings.memory_bytes,
            "lock": str(self._lock(job)),
        }

    def _lock(self, job: Job | None) -> Path:
        """The lock of the device that a job is measured on; of none, of the usual one."""
        # The place alone: what stands there is measured by one at a time.
        named = self._catalog.device_of(_device(job.question) if job else None)
        return lock_path(named.partition(" ")[0], self._settings.locks)


def _device(question: Mapping[str, Any]) -> str | None:
    """That a question names; ``None`` where it leaves it to the server."""
    named: str | None = question.get("device")
    return named
