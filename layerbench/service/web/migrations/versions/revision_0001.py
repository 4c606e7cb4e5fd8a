"""Jobs and results of one server; also on what versions before migrations have left.

Revision ID: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MOMENT: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
# Fails where a table of that name is another program's.
LOOK = (
    "SELECT key, question, found, measured_at FROM results LIMIT 0",
    "SELECT id, key, question, state, reason, created_at, started_at, ended_at FROM jobs LIMIT 0",
)
# Of a store that was made before there was the column: a profile's question alone has iterations.
# Not AND: SQLite may look into what is no JSON all the same.
KIND = """
UPDATE {table} SET what = CASE WHEN NOT json_valid(question) THEN 'damaged'
    WHEN json_type(question, '$.iterations') IS NOT NULL THEN 'profile' ELSE 'measurement' END
"""


def upgrade() -> None:
    """Make the tables that are not there, and tell the kinds of what is."""
    _create("results", _text("key", key=True), _text("question"), _text("found"),
            sa.Column("measured_at", MOMENT, nullable=False), _kind())  # fmt: skip
    _create("jobs", _text("id", key=True), _text("key"), _text("question"), _text("state"),
            sa.Column("reason", sa.Text, nullable=False, server_default=""),
            sa.Column("created_at", MOMENT, nullable=False), sa.Column("started_at", MOMENT),
            sa.Column("ended_at", MOMENT), _kind())  # fmt: skip
    _create("tries", sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("at", MOMENT, nullable=False))  # fmt: skip
    for query in LOOK:
        op.execute(query)
    op.create_index("jobs_by_state", "jobs", ["state"], if_not_exists=True)
    for table in ("jobs", "results"):
        columns = sa.inspect(op.get_bind()).get_columns(table)
        if "what" not in {column["name"] for column in columns}:
            op.add_column(table, _kind())
            op.execute(KIND.format(table=table))


def _create(table: str, *columns: sa.Column[Any]) -> None:
    op.create_table(table, *columns, if_not_exists=True, sqlite_strict=True)


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=False)


def _kind() -> sa.Column[str]:
    return sa.Column("what", sa.Text, nullable=False, server_default="measurement")
