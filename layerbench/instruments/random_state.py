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
        """Whether somebody has drawn from the host's generators since."""
        return (
            random.getstate() != self._python
            or not torch.equal(torch.default_generator.get_state(), self._cpu)
            or not _alike(np.random.get_state(), self._numpy)
        )


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


def _alike(now: Any, earlier: Any) -> bool:  # noqa: ANN401 - numpy's state: a tuple
    return all(np.array_equal(one, other) for one, other in zip(now, earlier, strict=True))


_States = list[torch.Tensor]


def _accelerators_states() -> list[tuple[Callable[[_States], object], _States]]:
    return [(module.set_rng_state_all, module.get_rng_state_all()) for module in _accelerators()]


def _accelerators() -> list[Any]:
    modules = [getattr(torch, name, None) for name in ("cuda", "xpu")]
    return [module for module in modules if module is not None and module.is_initialized()]
