"""Time a model, its blocks and its layers: ``python timer.py --help``."""

if __name__ == "__main__":
    try:
        from layerbench.cli import run

        run("timer")
    except KeyboardInterrupt:  # while Python still loads what the command needs
        raise SystemExit(130) from None
