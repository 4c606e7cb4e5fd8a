"""``python -m layerbench VERB ...``, and the command ``layerbench``."""

import gc

# Loading modules and reading records makes objects that stay: looking through them for garbage as
# often as Python does by itself is a noticeable part of the time that comparing two records takes.
gc.set_threshold(100_000, 10, 10)

from layerbench.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
