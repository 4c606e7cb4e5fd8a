"""Several servers: who runs a job, where it can run, and each question open once.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
OPEN = sa.column("state").in_(["queued", "running"])
# The oldest stays: who asked later waited for the same.
DOUBLES = """
UPDATE jobs
SET state = 'interrupted', reason = 'the same was asked for before', ended_at = created_at
WHERE state IN ('queued', 'running') AND EXISTS (SELECT 1 FROM jobs AS other
    WHERE other.key = jobs.key AND other.state IN ('queued', 'running')
    AND (other.created_at, other.id) < (jobs.created_at, jobs.id))
"""


def upgrade() -> None:
    """Add the tables, columns and indices."""
    op.create_table(
        "servers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "server_targets",
        sa.Column(
            "server", sa.Text, sa.ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("target", sa.Text, primary_key=True),
        sqlite_strict=True,
    )
    for name in ("target", "server"):
        op.add_column("jobs", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.execute(DOUBLES)
    op.create_index("jobs_by_key", "jobs", ["key"])
    op.create_index(
        "jobs_open_once", "jobs", ["key"], unique=True, sqlite_where=OPEN, postgresql_where=OPEN
    )
    op.create_index("results_by_moment", "results", ["what", sa.text("measured_at DESC"), "key"])
