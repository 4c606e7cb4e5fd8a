"""Look at models and at what they took, in a browser: ``python model_viz.py --help``."""

if __name__ == "__main__":
    try:
        from layerbench.cli import run

        run("view")
    except KeyboardInterrupt:  # while Python still loads what the command needs
        raise SystemExit(130) from None
