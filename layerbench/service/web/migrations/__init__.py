"""What brings a store of an earlier version into the present form: Alembic runs it."""
