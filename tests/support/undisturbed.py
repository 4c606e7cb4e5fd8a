"""Runs a module as ``python -m`` does, on a machine that nobody else seems to use.

    python tests/support/undisturbed.py -m layerbench timer ...

For tests of what becomes of measurements: a machine that runs other tests is at times too busy for
any verdict, which tests/records/test_contention.py holds.
"""

from __future__ import annotations

import runpy
import sys


class NeverWaits:
    """A meter by which no forward waits for a core."""

    def begin(self) -> None:
        """Nothing to begin."""

    def end(self) -> int:
        """No time at all."""
        return 0


def main() -> None:
    """The command line."""
    flag, module, *arguments = sys.argv[1:]
    assert flag == "-m", sys.argv
    if arguments[0] == "timer":  # loads torch, which other verbs need not
        from layerbench.profilers import rounds

        rounds.wait_meter = lambda _clock: NeverWaits()
    sys.argv = [module, *arguments]
    sys.path[0] = ""
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
