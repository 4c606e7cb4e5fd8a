"""Train or fine-tune a classifier: ``python train.py --help``."""

from layerbench.cli import run

if __name__ == "__main__":
    run("train")
