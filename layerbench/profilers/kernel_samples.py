"""From forwards whose kernels were seen to samples and facts of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from layerbench.instruments.function_timer import FunctionFacts, FunctionForward
from layerbench.instruments.kernels import KernelForward, KernelKey, Spot
from layerbench.records import samples
from layerbench.records.samples import KernelFacts, RowFacts, Samples


def device_arrays(traced: Sequence[KernelForward]) -> dict[str, Samples]:
    """The samples of these forwards under the names of `layerbench.records.samples`.

    Args:
        traced: at least one forward.
    """
    keys = _keys(traced)
    kernels = [[forward.kernels.get(key, (0, 0))[1] for key in keys] for forward in traced]
    return {
        samples.INCLUSIVE: np.stack([forward.inclusive_ns for forward in traced]),
        samples.SELF: np.stack([forward.self_ns for forward in traced]),
        **spans_of(traced),
        samples.KERNELS: np.array(kernels, dtype=np.int64).reshape(len(traced), len(keys)),
    }


def spans_of(traced: Sequence[KernelForward]) -> dict[str, Samples]:
    """From the first kernel's start to the last one's end, and how long no kernel ran."""
    return {
        samples.SPAN: np.array([forward.span_ns for forward in traced], dtype=np.int64),
        samples.IDLE: np.array([forward.idle_ns for forward in traced], dtype=np.int64),
    }


def kernel_facts(traced: Sequence[KernelForward], paths: Sequence[str]) -> tuple[KernelFacts, ...]:
    """What the rows of kernels are, in the order of the samples' columns.

    Args:
        traced: the forwards.
        paths: of the modules, by their indices.
    """
    runs = _typical_runs(traced)
    return tuple(
        KernelFacts(
            module=paths[key.module], function=key.function, name=key.kernel, calls=runs[key]
        )
        for key in _keys(traced)
    )


def _keys(traced: Sequence[KernelForward]) -> list[KernelKey]:
    """In the order of first runs."""
    return list(dict.fromkeys(key for forward in traced for key in forward.kernels))


def _typical_runs(traced: Sequence[KernelForward]) -> Mapping[KernelKey, int]:
    """Runs of each kernel in one forward: the most common number."""
    runs: dict[KernelKey, Counter[int]] = {}
    for forward in traced:
        for key, (count, _) in forward.kernels.items():
            runs.setdefault(key, Counter())[count] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in runs.items()}


def with_kernels(rows: Sequence[RowFacts], traced: Sequence[KernelForward]) -> tuple[RowFacts, ...]:
    """The modules' rows with the number of their kernels in one forward: the most common one."""
    counts = np.stack([forward.counts for forward in traced])
    return tuple(
        row.model_copy(update={"kernels": int(np.bincount(column).argmax())})
        for row, column in zip(rows, counts.T, strict=True)
    )


def function_forwards(
    traced: Sequence[KernelForward], paths: Sequence[str], with_rows: frozenset[str]
) -> list[FunctionForward]:
    """These forwards as those of a functions' pass: functions are what launched kernels.

    Args:
        traced: the forwards.
        paths: of the modules, by their indices.
        with_rows: paths of the modules whose own functions get rows.
    """
    return [_function_forward(forward, paths, with_rows) for forward in traced]


def _function_forward(
    forward: KernelForward, paths: Sequence[str], with_rows: frozenset[str]
) -> FunctionForward:
    times: Counter[Spot] = Counter()
    for key, (_, time) in forward.kernels.items():
        times[key.module, key.function] += time
    spots = [
        spot
        for spot in sorted(forward.functions, key=forward.order.__getitem__)
        if paths[spot[0]] in with_rows
    ]
    facts = tuple(
        FunctionFacts(
            module=paths[module],
            name=name,
            order=forward.order[module, name],
            calls=forward.functions[module, name].calls,
            input_shapes=forward.functions[module, name].shapes,
            output_shapes=(),
        )
        for module, name in spots
    )
    order = {paths[index]: at for (index, function), at in forward.order.items() if not function}
    return FunctionForward(facts, tuple(times[spot] for spot in spots), order)
