"""Generators of random numbers that a whole process shares: where a run starts, and put back.

Runs whose figures are set side by side start from the same state: a forward that draws which of its
layers run then takes the same way each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes


class RandomState:
    """The state of Python's, numpy's and torch's generators, of the CPU and of accelerators.

    An accelerator that nothing has touched yet is left alone: to ask would start it.
    """

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._cpu = torch.default_generator.get_state()
        self._accelerators = _accelerators_states()

    def restore(self) -> bool:
        """Restore the generators that were used; returns whether any was."""
        drawn = self.drawn()
        self.put_back()
        return drawn

    def put_back(self) -> None:
        """As `restore`, and nothing is asked: no operator runs, which a trace would see."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.default_generator.set_state(self._cpu)
        for put_back, states in self._accelerators:
            put_back(states)

    def drawn(self) -> bool:
        """Whether somebody has drawn from one of the generators since."""
        return (
            random.getstate() != self._python
            or not _equal(torch.default_generator.get_state(), self._cpu)
            or not _alike(np.random.get_state(), self._numpy)
            or any(
                not _equal(now, earlier)
                for state, (_, states) in zip(
                    _accelerators_states(), self._accelerators, strict=False
                )
                for now, earlier in zip(state[1], states, strict=True)
            )
        )


class SameDraws:
    """Lets the forwards of a round draw the same numbers, and leaves the state alone where none do.

    Reading and writing the states takes the host's caches: a forward right after it took 1 to 2 %
    longer (`benchmarks.simulated`). So whether a model draws at all is looked at in the first round
    and in every 16th. One that begins to draw later has the same numbers from that look on.
    """

    LOOK_EVERY = 16

    def __init__(self) -> None:
        self._before = RandomState()
        self._draws = True
        self._rounds = 0

    def begin(self) -> None:
        """A round begins."""
        if self._draws:
            self._before = RandomState()

    def put_back(self) -> None:
        """The next forward of the round is about to run."""
        if self._draws:
            self._before.put_back()

    def end(self) -> None:
        """The round is over."""
        if self._rounds % self.LOOK_EVERY == 0:
            self._draws = self._before.drawn()
        self._rounds += 1


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let what runs draw from a seed; who drew before goes on as if nothing had been drawn.

    An accelerator must have been touched before, or its generator goes on as it was.
    """
    before = RandomState()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed would also seed accelerators that nothing has touched.
        torch.default_generator.manual_seed(seed)
        for module in _accelerators():
            module.manual_seed_all(seed)
        yield
    finally:
        before.put_back()


def _equal(now: torch.Tensor, earlier: torch.Tensor) -> bool:
    """Asked of the values, whatever mode of tensors without memory is on."""
    with _disable_current_modes():
        return torch.equal(now, earlier)


def _alike(now: Any, earlier: Any) -> bool:  # noqa: ANN401 - numpy's state: a tuple
    return all(np.array_equal(one, other) for one, other in zip(now, earlier, strict=True))


_States = list[torch.Tensor]


def _accelerators_states() -> list[tuple[Callable[[_States], object], _States]]:
    return [(module.set_rng_state_all, module.get_rng_state_all()) for module in _accelerators()]


def _accelerators() -> list[Any]:
    modules = [getattr(torch, name, None) for name in ("cuda", "xpu")]
    return [module for module in modules if module is not None and module.is_initialized()]
