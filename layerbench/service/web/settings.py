"""What the service is told by its surroundings: ``LAYERBENCH_SERVE_*``, or the command line.

Loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from layerbench.errors import UsageError
from layerbench.units import parse_bytes

# Also as text, such as 8GiB.
Memory = Annotated[
    int, BeforeValidator(lambda given: parse_bytes(given) if isinstance(given, str) else given)
]
# NaN and infinity are numbers to Python, and no durations; 30 days are longer than anybody waits.
Seconds = Annotated[float, Field(allow_inf_nan=False, le=30 * 86400)]
# That every machine has.
ALWAYS_THERE = (None, "", "auto", "cpu")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY_VARIABLE = "LAYERBENCH_SERVE_API_KEY"
# Of the host's memory, for a measuring process.
HOST_SHARE = 0.8
# Of that, beside it, for the process that works out structures; and what it needs to begin.
STRUCTURE_SHARE = 0.2
STRUCTURE_FEWEST = 2 * 2**30


class Settings(BaseSettings):
    """How the service runs.

    Attributes:
        host, port: it listens there; any but a loopback address demands an ``api_key``.
        api_key: that requests must carry in ``X-API-Key``.
        database: where jobs and results lie.
        locks: the folder of the lock files, one for each device.
        device: that is measured on; ``None`` takes the accelerator if there is one.
        queue: jobs that may wait, besides the one that runs.
        deadline: seconds of a measurement; then its processes are ended.
        memory: bytes that a measuring process may take; ``None`` for 80 % of the host's.
        most_pixels: batch times height times width, of a request.
        most_body: bytes of a request.
        connections: that may be open at once, as far as the process's descriptors reach.
        request_s: seconds in which a request has to be there, head and body.
        reading_s: seconds after which an answer that nobody reads is given up.
        wait_s: so long a request waits for its answer before it is told to come back.
        patience_s: so long who waits still gets an answer once the server is asked to end.
        seconds: that are measured, about, if a step or forward does not take longer.
        child: the module that measures, run as a process.
        specs: models of one's own that may be looked at, besides the known ones: places of code.
        records: files, and folders of files, that may be looked at.
        most_record: bytes of a record's file.
        records_memory: bytes that the process which reads records may take.
    """

    model_config = SettingsConfigDict(
        env_prefix="LAYERBENCH_SERVE_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = Field(default=None, min_length=1)
    database: Path = Path("layerbench.db")
    locks: Path | None = None
    device: str | None = None
    queue: int = Field(default=32, ge=1)
    deadline: Seconds = Field(default=900.0, gt=0)
    memory: Memory | None = Field(default=None, ge=2**28)
    most_pixels: int = Field(default=64 * 1024 * 1024, ge=1)
    most_body: int = Field(default=16 * 1024, ge=1)
    connections: int = Field(default=2048, ge=16)
    request_s: Seconds = Field(default=10.0, gt=0)
    reading_s: Seconds = Field(default=30.0, gt=0)
    wait_s: Seconds = Field(default=600.0, gt=0)
    patience_s: Seconds = Field(default=5.0, ge=0)
    seconds: Seconds = Field(default=3.0, ge=0)
    child: str = "layerbench.service.worker.process"
    specs: tuple[str, ...] = ()
    records: tuple[Path, ...] = ()
    most_record: Memory = Field(default=32 * 2**20, ge=1)
    records_memory: Memory = Field(default=2**30, ge=2**27)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    @property
    def device_may_be_missing(self) -> bool:
        """Whether a device is named that not every machine has."""
        return self.device not in ALWAYS_THERE

    @property
    def memory_bytes(self) -> int:
        """That a measuring process may take."""
        return self.memory or int(HOST_SHARE * psutil.virtual_memory().total)

    @property
    def structure_bytes(self) -> int:
        """That the process which works out structures may take, beside one that measures."""
        share = int(STRUCTURE_SHARE * self.memory_bytes)
        return min(self.memory_bytes, max(STRUCTURE_FEWEST, share))


def settings_of(**given: Any) -> Settings:  # noqa: ANN401 - fields of many kinds
    """The settings with these fields; the others are those of the surroundings.

    Raises:
        UsageError: they make no sense; one line.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        found = error.errors()[0]
        raise UsageError(f"{found['loc'][0]}: {found['msg']}, got {found['input']!r}") from None
    except ValueError as error:
        # A variable of the surroundings that should hold a list, and is none.
        raise UsageError(" ".join(str(error).split())) from None
