"""A model's memory, measured or predicted, and its structure: ``python mem.py --help``."""

from layerbench.cli import run

if __name__ == "__main__":
    run("mem")
