"""Measurements on the devices of a cluster, one a device. Loads neither torch nor Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from layerbench.service.web.cluster_agent import MOST_NODES, ClusterAgent, NodeGone
from layerbench.service.web.followed_jobs import FollowedJob
from layerbench.service.web.job_results import UNSTEADY, checked
from layerbench.service.web.job_runner import Runner
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.settings import Settings
from layerbench.service.web.tables import Job
from layerbench.service.web.worker_process import ChildFailed


class ClusterRunner(Runner):
    """Runs one job at a time on a device of one kind.

    Args:
        settings, metrics: of the server.
        agent: of the cluster.
        kind: of the device.
        target: that jobs for such a device have.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        agent: ClusterAgent,
        kind: str,
        target: Callable[[str], set[str]],
    ) -> None:
        super().__init__(settings, metrics)
        self._agent = agent
        self._kind = kind
        self._target = target
        self._task: asyncio.Task[dict[str, Any]] | None = None

    def targets(self) -> set[str]:
        """Those of jobs that can run here now: none while no such device is free."""
        return self._target(self._kind) if self._agent.free(self._kind) is not None else set()

    async def answer(self, job: Job, followed: FollowedJob) -> dict[str, Any] | None:
        """What a process on a node finds; ``None`` where the job is ended meanwhile.

        Where its node dies it begins anew on another one.

        Raises:
            ChildFailed: it found nothing.
        """
        if followed.ended:
            return None
        self._task = asyncio.create_task(self._measured(job, followed))
        try:
            answer = await asyncio.wait_for(asyncio.shield(self._task), self._settings.deadline)
        except asyncio.TimeoutError:
            raise ChildFailed(
                "deadline", f"the measurement took longer than {self._settings.deadline:g} s"
            ) from None
        except asyncio.CancelledError:
            if followed.ended:
                return None
            raise
        finally:
            await self.end()
        answer[UNSTEADY] = await asyncio.to_thread(checked, job.what, answer)
        return None if followed.ended else answer

    async def _measured(self, job: Job, followed: FollowedJob) -> dict[str, Any]:
        settings = self._settings
        task = {
            "what": job.what,
            "question": job.question,
            "seconds": settings.seconds,
            "memory_bytes": settings.memory,
        }
        why = ""
        for _ in range(MOST_NODES):
            async with self._agent.held(self._kind) as slot:
                try:
                    return await self._agent.measure(slot, settings.child, task, followed.hear)
                except NodeGone as error:
                    why = str(error)
        raise ChildFailed(
            "died", f"{MOST_NODES} nodes died while they measured it; the last: {why}"
        )

    async def end(self) -> None:
        """End the measurement, if there is one."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
