"""The Python interface, a file a noun. `layerbench` itself has the names that users call."""
