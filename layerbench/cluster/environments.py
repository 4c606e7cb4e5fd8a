"""What records of several nodes say of where they were measured, as one. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

from layerbench.records.environment import Environment


def joined(environments: Sequence[Environment], command: str) -> Environment:
    """The first one's device and software, with the time and the warnings of all.

    Args:
        environments: of one column, at least one.
        command: the command line that asked for all of them.
    """
    warnings = dict.fromkeys(line for one in environments for line in one.warnings)
    return environments[0].model_copy(
        update={
            "command": command,
            "started": min(one.started for one in environments),
            "finished": max(one.finished for one in environments),
            "warnings": tuple(warnings),
        }
    )
