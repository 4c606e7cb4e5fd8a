"""PostgreSQL for tests: a server of their own, in a folder of its own, at a socket in there."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.service_process import until

# `.ci/run` sets it: there a missing server is a failure.
REQUIRED = "LAYERBENCH_POSTGRES_REQUIRED"
PROGRAMS = "LAYERBENCH_POSTGRES"
# Where Debian and Ubuntu have the programs, which are on no PATH.
DEBIAN = Path("/usr/lib/postgresql")
USER = "layerbench"
TEMPLATE = "prepared"
# Nothing here has to outlive a loss of power.
QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB")


def programs() -> Path:
    """The folder of initdb and postgres; without one the test is skipped, or fails."""
    named = os.environ.get(PROGRAMS) or shutil.which("initdb")
    if named:
        return Path(named) if Path(named).is_dir() else Path(named).resolve().parent
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    missing = f"no PostgreSQL: apt-get install postgresql, or say where with {PROGRAMS}"
    if os.environ.get(REQUIRED):
        pytest.fail(missing)
    pytest.skip(missing)


class Server:
    """A server; `start` and `stop` it as often as needed.

    Args:
        options: in place of the server's own defaults.
    """

    def __init__(self, options: Sequence[str] = QUICK) -> None:
        self._options = [word for one in (*options, "listen_addresses=") for word in ("-c", one)]
        self._programs = programs()
        # Short, since a socket's path is.
        self.folder = Path(tempfile.mkdtemp(prefix="lb-pg"))
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            # It refuses to run as root.
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        subprocess.run(
            [
                self._programs / "initdb", "-D", self.folder / "data", "-U", USER, "-A", "trust",
                "--no-sync", "-E", "UTF8", "--locale=C",
            ],
            check=True, capture_output=True, cwd=self.folder, **self._as,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Return once it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres", "-D", self.folder / "data",
                    "-k", self.folder, *self._options,
                ],
                stdout=log, stderr=log, cwd=self.folder, **self._as,
            )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        ready = [self._programs / "pg_isready", "-q", "-h", self.folder, "-U", USER]
        return subprocess.run(ready, check=False).returncode == 0

    def stop(self) -> None:
        """End it, and with it all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def pause(self, *, paused: bool = True) -> None:
        """Let its processes stand still, and go on."""
        import psutil

        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in (parent, *parent.children(recursive=True)):
            process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def remove(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql:///{name}?host={self.folder}&user={USER}"

    def run(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """What a statement gives in a database."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self, template: str | None = None) -> str:
        """The name of a new database."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name


@functools.cache
def server() -> Server:
    """The one of this process."""
    found = Server()
    atexit.register(found.remove)
    return found


@functools.cache
def _template() -> str:
    from layerbench.service.web.postgresql_database import PostgresqlDatabase

    name = server().database()
    PostgresqlDatabase(server().url(name)).close()
    return name


def store() -> str:
    """The address of a new store, whose tables are there."""
    return server().url(server().database(_template()))
