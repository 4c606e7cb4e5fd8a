"""layerbench inside the programs that call a user's model: test suites and training loops.

A file a host. Each is imported by its host, or on the first use of its name in `layerbench`.
"""
