"""Train or fine-tune a classifier: ``python train.py --help``."""

if __name__ == "__main__":
    try:
        from layerbench.cli import run

        run("train")
    except KeyboardInterrupt:  # while Python still loads what the command needs
        raise SystemExit(130) from None
