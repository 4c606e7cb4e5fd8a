"""Look at models and at what they took, in a browser: ``python model_viz.py --help``."""

from layerbench.cli import run

if __name__ == "__main__":
    run("view")
