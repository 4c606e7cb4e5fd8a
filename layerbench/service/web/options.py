"""How the service runs, as ``layerbench serve`` and its surroundings say it.

Loads no web framework: ``--help`` is there without one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from layerbench.records.options import Device, option
from layerbench.units import parse_bytes

LISTENING = "Where it listens"
MEASURING = "How it measures"
LIMITS = "Limits"

# Also as text, such as 8GiB.
Memory = Annotated[
    int, BeforeValidator(lambda size: parse_bytes(size) if isinstance(size, str) else size)
]
# NaN and infinity are numbers to Python, and no durations; 30 days are longer than anybody waits.
Seconds = Annotated[float, Field(allow_inf_nan=False, le=30 * 86400)]


class ServiceOptions(BaseModel, defer_build=True):
    """How the service runs.

    Attributes:
        api_key: that requests must carry in ``X-API-Key``.
        locks: the folder of the lock files, one for each device.
        most_pixels: batch times height times width, of a request.
        most_body: bytes of a request.
        connections: that may be open at once, as far as the process's descriptors reach.
        request_s: seconds in which a request has to be there, head and body.
        reading_s: seconds after which an answer that nobody reads is given up.
        wait_s: so long a request waits for its answer before it is told to come back.
        lost_s: so long a server of a shared database may give no sign of life before its jobs are
            taken for interrupted.
        patience_s: so long who waits still gets an answer once the server is asked to end.
        child: the module that measures, run as a process.
        agent: the module that speaks with a cluster, run as a process.
        specs: models of one's own that may be looked at, besides the known ones: places of code.
        records: files, and folders of files, that may be looked at.
        most_record: bytes of a record's file.
        records_memory: bytes that the process which reads records may take.
    """

    host: Annotated[
        str,
        option(
            "Address to listen on; any but a loopback address needs an API key.", panel=LISTENING
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, option("Port to listen on; 0 takes any free one.", panel=LISTENING, ge=0, le=65535)
    ] = 8000
    database: Annotated[
        str,
        BeforeValidator(lambda place: os.fspath(place) if isinstance(place, Path) else place),
        option(
            "Database of jobs and results: a file, made if missing, or postgresql://..., which "
            "several servers may share.",
            panel=MEASURING,
            metavar="FILE|URL",
            # It may hold a password.
            repr=False,
        ),
    ] = "layerbench.db"
    device: Device = None
    cluster: Annotated[
        str | None,
        option(
            "Ray cluster whose devices a question may name: auto, HOST:6379 or ray://HOST:10001.",
            panel=MEASURING,
            metavar="ADDRESS",
            default_text="this machine alone",
        ),
    ] = None
    seconds: Annotated[
        Seconds,
        option(
            "Seconds that a measurement takes, about; slow models take longer.",
            panel=MEASURING,
            ge=0,
        ),
    ] = 3.0
    deadline: Annotated[
        Seconds, option("Seconds after which a measurement is ended.", panel=LIMITS, gt=0)
    ] = 900.0
    queue: Annotated[int, option("Number of measurements that may wait.", panel=LIMITS, ge=1)] = 32
    memory: Annotated[
        Memory | None,
        option(
            "Memory that a measuring process may take, such as 8GiB.",
            panel=LIMITS,
            metavar="SIZE",
            default_text="80 % of the host's",
            ge=2**28,
        ),
    ] = None
    api_key: SecretStr | None = Field(default=None, min_length=1)
    locks: Path | None = None
    most_pixels: int = Field(default=64 * 1024 * 1024, ge=1)
    most_body: int = Field(default=16 * 1024, ge=1)
    connections: int = Field(default=2048, ge=16)
    request_s: Seconds = Field(default=10.0, gt=0)
    reading_s: Seconds = Field(default=30.0, gt=0)
    wait_s: Seconds = Field(default=600.0, gt=0)
    lost_s: Seconds = Field(default=15.0, ge=1)
    patience_s: Seconds = Field(default=5.0, ge=0)
    child: str = "layerbench.service.worker.process"
    agent: str = "layerbench.cluster.agent"
    specs: tuple[str, ...] = ()
    records: tuple[Path, ...] = ()
    most_record: Memory = Field(default=32 * 2**20, ge=1)
    records_memory: Memory = Field(default=2**30, ge=2**27)
