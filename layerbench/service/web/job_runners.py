"""Everything that one server measures at the same time: here, and on devices of a cluster.

Loads neither torch nor Ray.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from layerbench.service.web.cluster_agent import ClusterAgent
from layerbench.service.web.cluster_runner import ClusterRunner
from layerbench.service.web.database import Database
from layerbench.service.web.job_keys import JobKeys
from layerbench.service.web.job_runner import JobRunner, Runner
from layerbench.service.web.metrics import Metrics
from layerbench.service.web.model_catalog import Catalog
from layerbench.service.web.settings import Settings
from layerbench.service.web.tables import Job


class Runners:
    """The runners of one server: one for this machine, and one for each device of the cluster.

    Args:
        settings, catalog, metrics, keys: of the server.
        agent: of the cluster; ``None`` where there is none.

    Attributes:
        here: the one for this machine.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        metrics: Metrics,
        keys: JobKeys,
        agent: ClusterAgent | None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._keys = keys
        self._agent = agent
        self.here = JobRunner(settings, catalog, metrics, keys.targets)
        self._on_cluster: list[ClusterRunner] = []
        self._counts: Counter[str] = Counter()
        self._taking = asyncio.Lock()

    def all(self) -> list[Runner]:
        """Every one of them."""
        return [self.here, *self._on_cluster]

    def new(self) -> list[Runner]:
        """One more for each device that has come: as many jobs run as there are devices of a kind.

        Where devices go their runners stay, and take no jobs.
        """
        if self._agent is None:
            return []
        there = Counter(slot.kind for slot in self._agent.slots)
        kinds = list((there - self._counts).elements())
        self._counts |= there
        made = [
            ClusterRunner(self._settings, self._metrics, self._agent, kind, self._keys.targets_of)
            for kind in kinds
        ]
        self._on_cluster += made
        return [*made]

    async def take(self, runner: Runner, database: Database, server: str) -> Job | None:
        """The next job for a runner. One takes at a time: none shall get another's.

        Args:
            runner: that is free.
            database: where jobs wait.
            server: the name of this one there.

        Raises:
            StoreError: the store cannot be written.
        """
        async with self._taking:
            running = [one.job.id for one in self.all() if one.job is not None]
            runner.job = await database.call(database.take, server, runner.targets(), running)
            return runner.job

    def running(self, id: str) -> Runner | None:
        """The one that runs a job."""
        return next((one for one in self.all() if one.job is not None and one.job.id == id), None)

    def targets(self) -> set[str]:
        """Of all jobs that can run on this machine or the cluster."""
        slots = () if self._agent is None else self._agent.slots
        of_cluster = (self._keys.targets_of(slot.kind) for slot in slots)
        return self._keys.targets().union(*of_cluster)

    @property
    def idle(self) -> bool:
        """Whether nothing is being measured."""
        return all(runner.job is None for runner in self.all())

    @property
    def wedged(self) -> bool:
        """Whether a job that runs should have ended long ago."""
        return any(runner.wedged for runner in self.all())

    @property
    def complaint(self) -> str | None:
        """Why something could not be measured now, if so."""
        if self._agent is not None and self._agent.complaint is not None:
            return self._agent.complaint
        return self.here.complaint

    @property
    def usual_s(self) -> float:
        """Seconds that a measurement takes, about."""
        return max(runner.usual_s for runner in self.all())
