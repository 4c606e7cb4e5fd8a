"""The nesting of calls: a module's work is attributed to the place where it ran.

A module can be called from several places: a layer that blocks share, one that a block keeps in a
list. Its place in the tree of modules then says little. What ran inside a module is therefore told
by the calls: a module's inclusive figure is that of all work done while a call of it was running.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from torch import nn

from layerbench.records.tree import ancestors, parent

Number = TypeVar("Number", int, float)

NOWHERE = -1
"""The parent of a node without a caller."""


class Names:
    """The names of modules that have several.

    Args:
        named: every name with its module, as `torch.nn.Module.named_modules` gives them without
            removing duplicates.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Module]] = ()) -> None:
        by_module: dict[int, list[str]] = {}
        for name, module in named:
            by_module.setdefault(id(module), []).append(name)
        several = [names for names in by_module.values() if len(names) > 1]
        self._all = {names[0]: sorted(names) for names in several}
        self._first = {name: names[0] for names in several for name in names[1:]}

    def first(self, name: str) -> str:
        """The module's first name, by which it has its row."""
        return self._first.get(name, name)

    def below(self, path: str, caller: str) -> str | None:
        """A name of the module at ``path`` that lies below ``caller``, if it has one."""
        beginning = f"{caller}." if caller else ""
        if path.startswith(beginning):
            return path
        names = self._all.get(path, [])
        at = bisect_left(names, beginning)
        if at < len(names) and names[at].startswith(beginning):
            return names[at]
        return None


class CallTree:
    """A node stands for all calls of one module that were made within the same calls.

    A node comes after the one that it was called in.

    Args:
        names: of the modules that have several.

    Attributes:
        paths: of each node its module's first name.
        parents: of each node the one whose call it was made in, or `NOWHERE`.
    """

    def __init__(self, names: Names | None = None) -> None:
        self.paths: list[str] = []
        self.parents: list[int] = []
        self.names = names or Names()
        self._nodes: dict[tuple[int, str], int] = {}
        self._first: dict[str, int] = {}
        self._called: set[str] = set()
        self._known: tuple[tuple[int, int], list[tuple[str, ...]]] = ((0, 0), [])

    def call(self, within: int, path: str) -> int:
        """The node of a call of the module at ``path``, made in the node ``within``."""
        node = self._nodes.get((within, path))
        if node is None:
            node = self._node(within, path)
        self._called.add(path)
        return node

    def home(self, path: str) -> int:
        """The node of a module's first call; of one never called, a node below the module above."""
        node = self._first.get(path)
        if node is not None:
            return node
        return self._node(self.home(parent(path)) if path else NOWHERE, path)

    def around(self, node: int, path: str) -> int:
        """The innermost call around ``node`` that the module at ``path`` lies below by a name."""
        while node != NOWHERE and self.names.below(path, self.paths[node]) is None:
            node = self.parents[node]
        return node

    def chain(self, node: int) -> Iterator[int]:
        """The node and those around it, innermost first."""
        while node != NOWHERE:
            yield node
            node = self.parents[node]

    def callers(self) -> dict[str, dict[str, None]]:
        """For each called module the modules that called it, in order."""
        callers: dict[str, dict[str, None]] = {}
        for path, above in zip(self.paths, self.parents, strict=True):
            if above != NOWHERE and path in self._called:
                callers.setdefault(path, {})[self.paths[above]] = None
        return callers

    def only_inside(self) -> set[str]:
        """The modules that are never called themselves, though modules in them are."""
        nodes = zip(self.paths, self._begun(), strict=True)
        names = {name for path, begun in nodes if path in self._called for name in begun}
        return names - self._called

    def sums(self, own: Mapping[int, Number]) -> dict[str, Number]:
        """For each module the sum over all nodes within its calls, each node counted once.

        A module that is never called itself counts what runs of the modules in it.

        Args:
            own: figures by node.

        Returns:
            sums by path, without modules in whose calls no node has a figure.
        """
        return self._inclusive(own, lambda one, other: one + other)

    def maxima(self, own: Mapping[int, Number]) -> dict[str, Number]:
        """As `sums`, the largest in place of the sum."""
        return self._inclusive(own, max)

    def _inclusive(
        self, own: Mapping[int, Number], together: Callable[[Number, Number], Number]
    ) -> dict[str, Number]:
        within = dict(own)
        for node in range(len(self.paths) - 1, -1, -1):
            above = self.parents[node]
            if node in within and above != NOWHERE:
                value = within[node]
                within[above] = together(within[above], value) if above in within else value
        sums: dict[str, Number] = {}
        for node, paths in enumerate(self._begun()):
            if node in within:
                for path in paths:
                    value = within[node]
                    sums[path] = together(sums[path], value) if path in sums else value
        return sums

    def running(self) -> list[tuple[str, ...]]:
        """For each node the paths of the modules running there, innermost first, each once."""
        paths: list[tuple[str, ...]] = []
        for begun, above in zip(self._begun(), self.parents, strict=True):
            paths.append((*begun, *(paths[above] if above != NOWHERE else ())))
        return paths

    def _begun(self) -> list[tuple[str, ...]]:
        """For each node the paths that run there and do not run in the node around it."""
        state = (len(self.paths), len(self._called))
        if self._known[0] != state:
            self._known = (state, self._find_begun())
        return self._known[1]

    def _find_begun(self) -> list[tuple[str, ...]]:
        containers: dict[str, tuple[str, ...]] = {}
        below: dict[int, list[int]] = {}
        for node, above in enumerate(self.parents):
            below.setdefault(above, []).append(node)
        begun: list[tuple[str, ...]] = [()] * len(self.paths)
        # By the name that a module has below its caller, as that is named there.
        names = [""] * len(self.paths)
        active: set[str] = set()
        # A node comes twice: to begin, and, as ~node, to end.
        waiting = list(reversed(below.get(NOWHERE, [])))
        while waiting:
            node = waiting.pop()
            if node < 0:
                active.difference_update(begun[~node])
                continue
            path, above = self.paths[node], self.parents[node]
            caller = names[above] if above != NOWHERE else ""
            names[node] = self.names.below(path, caller) or path
            inside = dict.fromkeys((path, *self._containers(names[node], containers)))
            begun[node] = tuple(name for name in inside if name not in active)
            active.update(begun[node])
            waiting.append(~node)
            waiting.extend(reversed(below.get(node, [])))
        return begun

    def _containers(self, name: str, containers: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The modules above one of this name that are never called themselves.

        ``containers`` keeps, by path, what was worked out for the first of its children.
        """
        if not name:
            return ()
        above = parent(name)
        if above not in containers:
            around = (self.names.first(path) for path in (above, *ancestors(above)))
            containers[above] = tuple(
                dict.fromkeys(path for path in around if path not in self._called)
            )
        return containers[above]

    def _node(self, within: int, path: str) -> int:
        node = self._nodes[within, path] = len(self.paths)
        self.paths.append(path)
        self.parents.append(within)
        self._first.setdefault(path, node)
        return node
