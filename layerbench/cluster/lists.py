"""Orders of a column that do not depend on each other. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerbench.cluster.columns import Column
from layerbench.cluster.scheduling import Ended, Task


class ListWork:
    """Each task once.

    Args:
        column: on whose devices.
        tasks: in the order in which they begin.
        ended: hears of each end.
    """

    def __init__(
        self,
        column: Column,
        tasks: Sequence[Task],
        ended: Callable[[Column, Ended], None],
    ) -> None:
        self._column = column
        self._to_come = list(tasks)
        self._ended = ended
        self.total = len(tasks)
        self.done = 0

    def take(self) -> Task | None:
        """The next one."""
        return self._to_come.pop(0) if self._to_come else None

    def give_back(self, task: Task) -> None:
        """It did not run: it is the next one."""
        self._to_come.insert(0, task)

    def finish(self, ended: Ended) -> None:
        """Pass its end on."""
        if ended.task in self._to_come:
            self._to_come.remove(ended.task)
        self.done += 1
        self._ended(self._column, ended)

    @property
    def waits(self) -> bool:
        """Whether any has not begun."""
        return bool(self._to_come)

    def left(self) -> list[Task]:
        """Those that have not begun."""
        return list(self._to_come)
