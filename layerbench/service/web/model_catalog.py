"""The architectures and the device, which a process determines at the start.

Loads no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from layerbench.errors import did_you_mean
from layerbench.service.protocol.questions import RESIZED, Question
from layerbench.service.web.structure_process import StructureProcess
from layerbench.service.web.worker_process import ChildFailed

log = structlog.get_logger("layerbench.service")

MOST_CLOSE_MATCHES = 3

Names = dict[str, list[str]]


class Unlisted(Exception):
    """Architectures and device cannot be determined; the message says why."""


class Catalog:
    """The known architectures by task, and the device.

    Args:
        architect: the process that tells them.
        refused: hears why the device is not there, if the process says so.
    """

    def __init__(
        self, architect: StructureProcess, refused: Callable[[str], object] | None = None
    ) -> None:
        self._architect = architect
        self._refused = refused
        self._names: Names | None = None
        self._sets: dict[str, frozenset[str]] = {}
        self._shorthands: dict[str, str] = {}
        self._predictor = ""
        self._device = ""
        self._devices: dict[str, str] = {}
        self._why = ""
        self._refusal: str | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Ask a measuring process."""
        self._task = asyncio.create_task(self._list())

    async def stop(self) -> None:
        """End the process that lists architectures, if it still runs."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def known(self) -> None:
        """Wait until names and device are known.

        Raises:
            Unlisted: they cannot be told.
        """
        if self._names is None:
            if self._task is None or self._task.done():
                self.begin()
            assert self._task is not None
            # Who no longer waits for the names does not end the listing for the others.
            await asyncio.shield(self._task)
        if self._names is None:
            raise Unlisted(self._why)

    async def refusal(self) -> str | None:
        """Why nothing can be measured with these settings, once that has been asked."""
        with contextlib.suppress(Unlisted):
            await self.known()
        return self._refusal

    @property
    def complaint_of_all(self) -> str | None:
        """Why no question can be answered; ``None`` also while the list is being made."""
        waits = self._task is None or not self._task.done()
        return None if waits or self._names is not None else self._why

    @property
    def names(self) -> Names:
        """The architectures by task, after `known`."""
        assert self._names is not None
        return self._names

    @property
    def device(self) -> str:
        """The device's name and description, after `known`."""
        return self._device

    @property
    def predictor(self) -> str:
        """A name for what predictions are made of, after `known`; another one gives others."""
        return self._predictor

    @property
    def devices(self) -> Mapping[str, str]:
        """The devices that a question may name, after `known`: what each is, by its name."""
        return self._devices

    def device_of(self, name: str | None) -> str:
        """The name and description of a device that a question names, or of the usual one."""
        return self._device if name is None else self._devices.get(name, name)

    def no_device(self, name: str | None) -> str | None:
        """Why a device is refused, after `known`."""
        if name is None or name in self._devices:
            return None
        return f"no device {name!r} here: {', '.join(self._devices)}"

    def complaint(self, question: Question) -> str | None:
        """Why a question's architecture is refused, after `known`."""
        name, task = question.architecture, question.task_type
        if name in self._sets[task]:
            return None
        others = [other for other, names in self._sets.items() if name in names]
        if others:
            return f"{name} is no architecture for {task}, but for {' and '.join(others)}"
        return f"no architecture {name!r} for {task}: {_hint(name, self.names[task])}"

    def spelled_out(self, name: str) -> str:
        """The architecture that a shorthand stands for; any other name as it is."""
        return self._shorthands.get(name, name)

    def unknown(self, name: str) -> str | None:
        """Why an architecture is refused for every task, after `known`."""
        if any(name in names for names in self._sets.values()):
            return None
        every = [*self._shorthands, *(name for names in self.names.values() for name in names)]
        return f"no architecture {name!r}: {_hint(name, every)}"

    def resizes(self, name: str) -> bool:
        """Whether a model resizes the images that it is given."""
        return any(name in self._sets.get(task, ()) for task in RESIZED)

    async def _list(self) -> None:
        try:
            listing = await self._architect.listed()
        except ChildFailed as error:
            self._why = f"architectures and device cannot be told: {error.reason}"
            self._refusal = error.reason if error.kind == "refused" else None
            if self._refusal is None or self._refused is None:
                log.error("no list", reason=error.reason)
            else:
                self._refused(self._refusal)
            return
        self._device = listing["device"]
        self._devices = listing["devices"]
        self._sets = {task: frozenset(names) for task, names in listing["models"].items()}
        self._shorthands = listing.get("shorthands", {})
        self._predictor = listing.get("predictor", "")
        self._names = listing["models"]


def _hint(name: str, names: Sequence[str]) -> str:
    return did_you_mean(name, names, MOST_CLOSE_MATCHES) or "GET /api/v1/models lists all"
