"""The store in each of its engines, for tests that hold for both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbench.service.web.database import Database
from layerbench.service.web.sqlite_database import SqliteDatabase
from tests.support import postgresql

ENGINES = ("sqlite", "postgresql")
on_both = pytest.mark.parametrize("engine", ENGINES)


def new_store(engine: str, folder: Path) -> Callable[[], Database]:
    """What opens a new store, the same one at every call."""
    if engine == "sqlite":
        path = Path(tempfile.mkdtemp(dir=folder)) / "deep" / "service.db"
        return lambda: SqliteDatabase(path)
    url = postgresql.store()
    # Not at the top: the tests of SQLite do without.
    from layerbench.service.web.postgresql_database import PostgresqlDatabase

    return lambda: PostgresqlDatabase(url)
