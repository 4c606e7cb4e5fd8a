"""Records and reports in files: where they lie, written whole or not, read back validated."""
