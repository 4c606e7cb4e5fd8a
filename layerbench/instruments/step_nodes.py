"""Nodes of autograd's graph: the order in which they run, and marks where a module's begin.

Backward hooks of modules raise on in-place layers, so none are used. Autograd runs the nodes one
after the other, the one made last first, and one that accumulates a gradient as soon as it can.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.autograd.function import BackwardCFunction

from layerbench.instruments.modules import modules_at
from layerbench.instruments.step_places import OUTSIDE, Places
from layerbench.introspection.modules import own_parameters
from layerbench.records.tree import holder

Node = torch.autograd.graph.Node

# A node that accumulates a gradient carries the largest number there is.
_NO_SEQUENCE = 2**63


class NodeMarks:
    """Marks a backward where the nodes of another place begin.

    Args:
        owners: the row that the gradients of a parameter, by its ``id``, belong to.
        mark: marks a moment.

    Attributes:
        taken: place and mark, in the order in which the nodes ran, since the last `hook`.
    """

    def __init__(self, owners: Mapping[int, int], mark: Callable[[], int]) -> None:
        self._owners = dict(owners)
        self._mark = mark
        self.taken: list[tuple[int, int]] = []

    def hook(
        self, losses: Sequence[torch.Tensor], places: Places, handles: ExitStack
    ) -> deque[Node]:
        """Let the first node of each place mark when it begins, as often as it is its turn.

        Args:
            losses: whose backward is to come.
            places: of the forward.
            handles: takes the hooks off.

        Returns:
            all nodes, in the order in which they run; see `let_go`.
        """
        self.taken = []
        turns = _as_they_run(*losses)

        def place_of(node: Node) -> int:
            return self._place(node, places.of_number, places, OUTSIDE)

        self._hook(turns, place_of, handles)
        return _in_a_row(turns)

    def hook_again(
        self,
        outputs: Sequence[torch.Tensor],
        place_of: Callable[[int], int],
        other: int,
        places: Places,
        handles: ExitStack,
    ) -> None:
        """As `hook`, within the backward, for a graph that was made in it.

        Args:
            outputs: that it leads to.
            place_of: of each number that autograd gave its nodes.
            other: the place of what has no number and is no module's parameter.
            places, handles: as before.
        """
        self.taken.append((OUTSIDE, self._mark()))  # that hooks are put on it is no module's

        def place(node: Node) -> int:
            return self._place(node, place_of, places, other)

        self._hook(_as_they_run(*outputs), place, handles)
        self.taken.append((other, self._mark()))

    @contextmanager
    def during(self, place: int) -> Iterator[None]:
        """Entered around what runs at this place within a node."""
        before = self.taken[-1][0] if self.taken else OUTSIDE
        self.taken.append((place, self._mark()))
        try:
            yield
        finally:
            self.taken.append((before, self._mark()))

    def _hook(
        self, turns: Iterable[Sequence[Node]], place_of: Callable[[Node], int], handles: ExitStack
    ) -> None:
        before: int | None = None
        for turn in turns:
            placed = [place_of(node) for node in turn]
            # A node in Python may run others within it, after which another place has the turn.
            alike = set(placed) == {placed[0]} and not isinstance(turn[0], BackwardCFunction)
            for node, place in zip(turn, placed, strict=True):
                if place != before or not alike:
                    handle = node.register_prehook(self._begins(place))
                    handles.callback(handle.remove)
                before = place
            before = placed[0] if alike else None

    def _begins(self, place: int) -> Callable[..., None]:
        mark, taken = self._mark, self.taken

        def begins(*_: object) -> None:
            taken.append((place, mark()))

        return begins

    def _place(self, node: Node, place_of: Callable[[int], int], places: Places, other: int) -> int:
        number = node._sequence_nr()
        if number < _NO_SEQUENCE:
            return place_of(number)
        row = self._owners.get(id(getattr(node, "variable", None)))
        return other if row is None else places.home(row)


def spent_between(
    taken: Sequence[tuple[int, int]], positions: Sequence[int], cost_ns: int = 0
) -> tuple[Counter[int], int]:
    """Nanoseconds by place, and what belongs to none.

    Args:
        taken: of `NodeMarks`.
        positions: of the backward's begin, the marks taken, and its end.
        cost_ns: what a mark itself takes, which is taken off.
    """
    spent: Counter[int] = Counter()
    places = (OUTSIDE, *(place for place, _ in taken))
    for place, at, until in zip(places, positions, positions[1:], strict=False):
        spent[place] += max(0, until - at - cost_ns)
    return spent, spent.pop(OUTSIDE, 0)


def owned_parameters(model: nn.Module, paths: Sequence[str]) -> list[tuple[torch.Tensor, int]]:
    """Each parameter once, with the row of a module that has it itself.

    Args:
        model: any module.
        paths: row → path of the modules.
    """
    row_of = {path: row for row, path in enumerate(paths)}
    owners = {
        id(parameter): (parameter, row_of[path])
        for path, module in modules_at(model, frozenset(paths)).items()
        for parameter in own_parameters(module)
    }
    return list(owners.values())


def owners_of(model: nn.Module, paths: Sequence[str]) -> dict[int, int]:
    """Of each parameter, by its ``id``, the row of a module that has it itself."""
    return {id(parameter): row for parameter, row in owned_parameters(model, paths)}


def rows_above(paths: Sequence[str]) -> dict[int, int]:
    """Of each row the one that holds it.

    Args:
        paths: row → path of the modules.
    """
    row_of = {path: row for row, path in enumerate(paths)}
    return {row: row_of[holder(path, row_of)] for path, row in row_of.items() if path}


def graph(*losses: torch.Tensor) -> Iterator[Node]:
    """Every node that the backward of losses can run, once."""
    waiting = list(dict.fromkeys(loss.grad_fn for loss in losses if loss.grad_fn is not None))
    seen: set[Node] = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def nodes_of(loss: torch.Tensor) -> deque[Node]:
    """The nodes of `graph` in the order in which they run: each before those that it leads to."""
    return _in_a_row(_as_they_run(loss))


def let_go(nodes: deque[Node]) -> None:
    """Free a graph node by node; its loss and output must have been deleted.

    PyTorch frees a graph whose nodes Python has looked at by recursion, which ends the process
    where the graph is a hundred thousand nodes long.

    Args:
        nodes: from `nodes_of`, held since before the graph's loss and output went.
    """
    while nodes:
        nodes.popleft()


def _in_a_row(turns: Iterable[Sequence[Node]]) -> deque[Node]:
    return deque(node for turn in turns for node in turn)


def _as_they_run(*losses: torch.Tensor) -> list[list[Node]]:
    """The nodes in the order in which autograd's engine runs them, turn by turn.

    Of the nodes that are ready it takes the one with the largest number, and one that accumulates a
    gradient before all others (torch/csrc/autograd/engine.cpp, ``ReadyQueue``). What a node waits
    for was made after it, so that the numbers fall from one to the next; an accumulating one comes
    after the last that feeds it. A turn is one node and the accumulating ones after it, these in
    no certain order.
    """
    numbers: dict[Node, int] = {}
    last_fed: dict[Node, int] = {}
    for node in graph(*losses):
        number = numbers[node] = node._sequence_nr()
        for following, _ in node.next_functions:
            if following is not None:
                last_fed[following] = min(last_fed.get(following, _NO_SEQUENCE), number)

    turns: dict[int, list[Node]] = {}
    for node, number in numbers.items():
        accumulates = number >= _NO_SEQUENCE
        turn = turns.setdefault(last_fed.get(node, number) if accumulates else number, [])
        turn.insert(len(turn) if accumulates else 0, node)
    return [turns[number] for number in sorted(turns, reverse=True)]
