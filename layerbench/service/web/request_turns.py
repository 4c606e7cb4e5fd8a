"""Whose request is begun next, where more are there than can be answered at once. Loads no torch.

One that was sent before the answer to the one before it, or that has others right behind it, comes
after those of clients that ask, read the answer, and ask again. Of each kind, addresses take turns.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

# Begun in one pass of the event loop: those that are not sent in advance, then the others.
AT_ONCE, IN_ADVANCE = 8, 1
# Of new clients, so many are taken in within one pass.
TAKEN_IN = 4


class Turns:
    """The requests of one server that wait to be begun."""

    def __init__(self) -> None:
        self._waiting = (_Line(), _Line())
        self._left = AT_ONCE
        self._pass: asyncio.Handle | None = None

    async def taken(self, address: str, in_advance: bool) -> None:
        """Return once a request's turn has come.

        Args:
            address: that it comes from.
            in_advance: whether it was sent before an answer was there, or has others behind it.
        """
        line = self._waiting[in_advance]
        if not in_advance and self._left > 0 and not line:
            self._left -= 1
            self._goes_on()
            return
        turn = asyncio.get_running_loop().create_future()
        line.append(address, turn)
        self._goes_on()
        await turn

    def _goes_on(self) -> None:
        if self._pass is None:
            self._pass = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """One pass of the loop later: let the next ones begin."""
        self._pass = None
        usual, advance = self._waiting
        self._left = AT_ONCE - usual.let(AT_ONCE)
        if self._left == AT_ONCE:
            advance.let(IN_ADVANCE)
        if usual or advance:
            self._goes_on()


class _Line:
    """Requests of one kind: the first of each address, one address after another."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._of)

    def append(self, address: str, turn: asyncio.Future[None]) -> None:
        """One more at the end."""
        self._of.setdefault(address, deque()).append(turn)

    def let(self, count: int) -> int:
        """Let so many begin; gives how many there were."""
        begun = 0
        while self._of and begun < count:
            address, turns = self._of.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._of[address] = turns
            # Who left, or was ended with the server, waits no more.
            if not turn.done():
                turn.set_result(None)
                begun += 1
        return begun


class Spread:
    """Calls that many clients cause at once, some in each pass of the event loop.

    The latest first: who comes beside a thousand others does not wait for all of them.
    """

    def __init__(self) -> None:
        self._left = TAKEN_IN
        self._later: list[Callable[[], None]] = []
        self._pass: asyncio.Handle | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Call a function, now or as soon as others have had their turn."""
        if self._left > 0 and not self._later:
            self._left -= 1
            function()
        else:
            self._later.append(function)
        self._goes_on()

    def _goes_on(self) -> None:
        if self._pass is None:
            self._pass = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._pass = None
        self._left = TAKEN_IN
        while self._later and self._left > 0:
            self._left -= 1
            self._later.pop()()
        if self._later:
            self._goes_on()
