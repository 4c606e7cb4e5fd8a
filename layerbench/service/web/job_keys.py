"""What results are stored under, and where jobs can run. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from layerbench.service.protocol.questions import ProfileQuestion, Question
from layerbench.service.web.job_results import FORMS, versions
from layerbench.service.web.model_catalog import Catalog

AnyQuestion = Question | ProfileQuestion


class JobKeys:
    """Of one server. The catalog has to know the device before a key is asked for.

    Args:
        catalog: that knows the device.
        specs: code that the server was started with.
        server: of those that share a database; empty for one that shares none.
        kind_of: gives the kind of a cluster's device by its name; ``None`` where there is none.
    """

    def __init__(
        self,
        catalog: Catalog,
        specs: tuple[str, ...],
        server: str,
        kind_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._kind_of = kind_of
        self._catalog = catalog
        self._specs = specs
        self._server = server
        self._versions = {what: versions(*kinds) for what, kinds in FORMS.items()}

    def key(self, question: AnyQuestion) -> str:
        """What a question's result is stored under: all that the result depends on."""
        content = {
            **question.depends_on(),
            "device": self._device(question),
            "versions": self._versions[question.what],
        }
        if self._server and self._is_own(question):
            # Another server's code under that name may be other code.
            content["server"] = self._server
        return _hash(content)

    def target(self, question: AnyQuestion) -> str:
        """Where a question can be measured: with its device and versions, or on this server."""
        if self._is_own(question):
            return self._server
        return self._target(question.what, self._device(question))

    def targets(self) -> set[str]:
        """Those of jobs that can run here; none until the catalog knows the device."""
        if not self._catalog.device:
            return set()
        devices = {self._catalog.device, *self._catalog.devices.values()}
        targets = {self._target(what, device) for what in self._versions for device in devices}
        return targets | {self._server}

    def targets_of(self, kind: str) -> set[str]:
        """Those of jobs that can run on a kind of a cluster's devices."""
        device = _of_cluster(kind)
        return {self._target(what, device) for what in self._versions}

    def _target(self, what: str, device: str) -> str:
        return _hash({"what": what, "device": device, "versions": self._versions[what]})

    def _device(self, question: AnyQuestion) -> str:
        named: str | None = getattr(question, "device", None)
        if named is not None and isinstance(question, Question):
            return _of_cluster(self._kind_of(named) or named)
        return self._catalog.device_of(named)

    def _is_own(self, question: AnyQuestion) -> bool:
        return question.architecture in self._specs


def _of_cluster(kind: str) -> str:
    return f"cluster: {kind}"


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
