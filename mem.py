"""A model's memory, measured or predicted, and its structure: ``python mem.py --help``."""

if __name__ == "__main__":
    try:
        from layerbench.cli import run

        run("mem")
    except KeyboardInterrupt:  # while Python still loads what the command needs
        raise SystemExit(130) from None
