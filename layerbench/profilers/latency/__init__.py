"""Time on a GPU that is not here."""
