"""The form of a store: made new, or brought into the present one by Alembic. Loads no torch.

Alembic takes a third of a second to load, so it is loaded only where a store is of an earlier form.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from layerbench.service.web.tables import metadata

# In their order, as the files in `migrations/versions` have them.
REVISIONS = ("0001", "0002")
MIGRATIONS = Path(__file__).parent / "migrations"

# Alembic's own.
_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


class NewerStore(Exception):
    """A store of a form that only later versions of this program know."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"a newer version of layerbench made it (revision {revision})")


def bring_up(connection: Connection) -> None:
    """Give the store the present form, in the transaction that has begun.

    Raises:
        NewerStore: it has a later one.
        sqlalchemy.exc.DBAPIError: a table of that name is another program's.
    """
    present = set(inspect(connection).get_table_names())
    revision = None
    if _version.name in present:
        revision = connection.scalar(select(_version.c.version_num))
    if revision == REVISIONS[-1]:
        return
    if revision is not None and revision not in REVISIONS:
        raise NewerStore(revision)
    if revision is None and not present & set(metadata.tables):
        metadata.create_all(connection)
        _version.create(connection, checkfirst=True)
        connection.execute(_version.insert().values(version_num=REVISIONS[-1]))
        return
    upgrade(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that a store has not seen, in the transaction that has begun."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
