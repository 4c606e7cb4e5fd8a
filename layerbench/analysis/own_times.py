"""The own times of rows and kernels in each round of a run. No torch."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from layerbench.analysis.kernel_pairs import Side
from layerbench.analysis.ratios import of_interval
from layerbench.analysis.statistics import Resampler, Samples
from layerbench.records import samples
from layerbench.records.samples import Run
from layerbench.records.timing import KernelRow


class OwnTimes:
    """What rows and kernels of a run took in each round, nanoseconds.

    Functions have a pass of their own. In a round, a function takes of its module's own time what
    it takes of it in that pass, by medians.

    Args:
        run: of one process.
        seed: of the resampling.
    """

    def __init__(self, run: Run, seed: int = 0) -> None:
        self._run = run
        self._seed = seed
        self._modules = {row.path: at for at, row in enumerate(run.facts.modules)}
        self._functions = {row.path: at for at, row in enumerate(run.facts.functions)}

    def of(self, side: Side) -> tuple[Samples, float] | None:
        """Times, shape (rounds,), and the standard error of their level, of its logarithm.

        ``None`` where the run has not seen it.
        """
        if isinstance(side, KernelRow):
            return self._of_kernel(side)
        parts = [(one.part, self.of_row(one.path)) for one in side]
        known = [(part, *found) for part, found in parts if found is not None]
        if not known or len(known) < len(parts):
            return None
        times: Samples = np.sum([part * times for part, times, _ in known], axis=0)
        level = float(np.median(times))
        errors = [part * float(np.median(times)) * error for part, times, error in known]
        return times, float(np.hypot.reduce(errors)) / level if level else 0.0

    def of_row(self, path: str) -> tuple[Samples, float] | None:
        """The same of a module or a function."""
        if path in self._functions:
            return self._of_function(self._functions[path])
        own = self._run.arrays.get(samples.SELF)
        if own is None or path not in self._modules:
            return None
        return own[:, self._modules[path]].astype(np.float64), 0.0

    def _of_function(self, column: int) -> tuple[Samples, float] | None:
        module = self._run.facts.functions[column].module
        found = None if module is None else self.of_row(module)
        if found is None or not len(self._pass):
            return None
        own = found[0]
        together = sum(
            float(self._medians[at])
            for at, row in enumerate(self._run.facts.functions)
            if row.module == module
        )
        whole = max(together, float(np.median(own)))
        if not (whole and self._medians[column]):
            return None
        times: Samples = own * (float(self._medians[column]) / whole)
        return times, self._error(column)

    @cached_property
    def _pass(self) -> Samples:
        return self._run.arrays.get(samples.FUNCTIONS, np.empty((0, 0))).astype(np.float64)

    @cached_property
    def _medians(self) -> Samples:
        medians: Samples = np.median(self._pass, axis=0)
        return medians

    def _error(self, column: int) -> float:
        times = self._pass[:, column]
        low, high = Resampler([len(times)], seed=self._seed).median_interval(times)
        return of_interval(float(self._medians[column]), low, high).scale if low > 0 else 0.0

    def _of_kernel(self, kernel: KernelRow) -> tuple[Samples, float] | None:
        times = self._run.arrays.get(samples.KERNELS)
        at = kernel.position
        if at is None:
            at = self._columns.get((kernel.module, kernel.function, kernel.name))
        if times is None or at is None or at >= times.shape[1]:
            return None
        return times[:, at].astype(np.float64), 0.0

    @cached_property
    def _columns(self) -> dict[tuple[str, str, str], int]:
        every = enumerate(self._run.facts.kernels)
        return {(one.module, one.function, one.name): at for at, one in every}
