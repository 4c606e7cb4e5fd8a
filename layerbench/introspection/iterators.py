"""Values that can be read once, as iterators and coroutines, in what a model takes or returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping

# What they give is there already.
_EMPTY: dict[str, str] = {}
_MADE: tuple[type, ...] = (
    *(type(iter([])), type(iter(()))),
    *(type(iter(_EMPTY)), type(iter(_EMPTY.values())), type(iter(_EMPTY.items()))),
)
_DEEP = 8


def iterator_in(output: object, *, unread: bool = False) -> str:
    """The type of the first iterator or coroutine in these values; empty if there is none.

    Args:
        output: what a model takes or returned; lists, tuples and mappings are looked into.
        unread: pass over those whose values were made before.
    """
    passed_over = _MADE if unread else ()
    try:
        return next((type(one).__name__ for one in _iterators(output, passed_over, 0)), "")
    except Exception:  # a container of the user's own that cannot be read
        return ""


def _iterators(output: object, passed_over: tuple[type, ...], depth: int) -> Iterator[object]:
    if isinstance(output, (Iterator, AsyncIterator, Awaitable)):
        if not isinstance(output, passed_over):
            yield output
    elif isinstance(output, (list, tuple, Mapping)) and depth < _DEEP:
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _iterators(part, passed_over, depth + 1)


def advice(kind: str) -> str:
    """What to do about an output of this type."""
    if kind in ("coroutine", "async_generator"):
        return "let the forward be an ordinary function that returns its tensors"
    return "let the forward return a list of what it gives"


def notes_on_iterators(kind: str) -> tuple[str, ...]:
    """One sentence where the output is yet to be computed."""
    if not kind:
        return ()
    return (
        f"the forward returned a {kind}: what it computes later, when it is used, is in no figure "
        f"here; {advice(kind)}",
    )
