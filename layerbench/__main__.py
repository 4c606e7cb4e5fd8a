"""``python -m layerbench`` is the command ``layerbench``."""

from layerbench.cli import main

if __name__ == "__main__":
    main()
