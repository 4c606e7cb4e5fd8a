"""Time a model, its blocks and its layers: ``python timer.py --help``."""

from layerbench.cli import run

if __name__ == "__main__":
    run("timer")
