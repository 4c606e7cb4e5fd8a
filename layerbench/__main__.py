"""``python -m layerbench VERB ...``, and the command ``layerbench``."""

import gc
from typing import NoReturn

# Loading modules and reading records makes objects that stay: looking through them for garbage as
# often as Python does by itself is a noticeable part of the time that comparing two records takes.
gc.set_threshold(100_000, 10, 10)


def main() -> NoReturn:
    """Run, also where somebody interrupts while Python still loads what the command needs."""
    try:
        from layerbench.cli import main as command

        command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
