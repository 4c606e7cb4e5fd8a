"""What Dynamo says of its work: where graphs end, and why code was compiled again."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Any

from layerbench.records.compilation import GraphBreak

_OTHER_BACKEND = "BACKEND_MATCH"


class DynamoLog:
    """What Dynamo notes from now on; its own lists stay as they are.

    A release of PyTorch that keeps no such list tells nothing.
    """

    def __init__(self) -> None:
        self._breaks = len(_list("graph_break_reasons"))
        self._compilations = {id(one): one for one in _compilations()}

    def breaks(self) -> tuple[GraphBreak, ...]:
        """Where graphs ended."""
        seen = Counter(
            (_first_line(str(one.reason)), _where(one))
            for one in _list("graph_break_reasons")[self._breaks :]
            if getattr(one, "graph_break", True)
        )
        return tuple(
            GraphBreak(reason=reason, where=where, calls=calls)
            for (reason, where), calls in seen.items()
        )

    def recompilations(self) -> tuple[str, ...]:
        """The guard that failed, for each time that code was compiled again.

        What was compiled before, of the same class or by its user, has another backend: that it is
        not used is no recompilation.
        """
        new = (one for one in _compilations() if id(one) not in self._compilations)
        reasons = (_first_line(getattr(one, "recompile_reason", None) or "") for one in new)
        return tuple(reason for reason in reasons if reason and _OTHER_BACKEND not in reason)


def _list(name: str) -> list[Any]:
    try:
        from torch._dynamo import utils
    except ImportError:
        return []
    return list(getattr(utils, name, ()))


def _compilations() -> list[Any]:
    try:
        from torch._dynamo import utils
    except ImportError:
        return []
    ask = getattr(utils, "get_compilation_metrics", None)
    return [] if ask is None else list(ask())


def _where(reason: Any) -> str:  # noqa: ANN401 - Dynamo's own class
    """The innermost line of the user's code; of the file its name alone."""
    stack = getattr(reason, "user_stack", None)
    if not stack:
        return ""
    return f"{PurePath(stack[-1].filename).name}:{stack[-1].lineno}"


def _first_line(text: str) -> str:
    return next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
