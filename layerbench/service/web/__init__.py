"""The process that answers requests. It loads no torch."""
