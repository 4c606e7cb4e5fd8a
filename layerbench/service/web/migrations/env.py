"""What Alembic runs around the migrations: on the connection, and in the transaction, it is given.

Read by Alembic alone; there is no other way to load it.
"""

from __future__ import annotations

from alembic import context

from layerbench.service.web.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
