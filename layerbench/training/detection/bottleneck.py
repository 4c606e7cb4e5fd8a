"""The bottleneck of a training step, from its phases and the device's busy time.

Loads no torch: it judges figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerbench.records.detection_run import BOTTLENECKS, Bottleneck, BottleneckKind

# A share from which on advice is given about it even where it is not the largest.
WORTH_A_WORD = 0.1
# Phases in which no work is done.
WAITING_PHASES = ("data", "copy")


def judge(
    phases_s: Mapping[str, float],
    busy: float | None,
    *,
    on_cpu: bool,
    workers: int,
    prefetch_factor: int,
) -> Bottleneck:
    """Divide a step among waiting for data, copying, launching and computing, and name the largest.

    Args:
        phases_s: mean seconds of each phase of the step.
        busy: of the phases in which work is done, the share in which an operator (on an
            accelerator: a kernel) ran; ``None`` if it was not measured: all of it counts as
            computing then.
        on_cpu: whether the work runs there.
        workers, prefetch_factor: of the loader.

    Raises:
        ValueError: the phases add up to nothing.
    """
    step = sum(phases_s.values())
    if step <= 0:
        raise ValueError("a step that takes no time has no bottleneck")
    data, copy = (phases_s.get(name, 0.0) / step for name in WAITING_PHASES)
    working = max(0.0, 1.0 - data - copy)
    computing = working * (1.0 if busy is None else min(1.0, max(0.0, busy)))
    shares: dict[BottleneckKind, float] = {
        "data": data,
        "copy": copy,
        "launch": working - computing,
        "compute": computing,
    }
    kind = max(BOTTLENECKS, key=lambda name: shares[name])
    return Bottleneck(
        kind=kind,
        shares=shares,
        how=_how(busy, on_cpu),
        advice=tuple(_advice(kind, shares, step, on_cpu, workers, prefetch_factor)),
    )


def _how(busy: float | None, on_cpu: bool) -> str:
    if busy is None:
        return "launching was not told from computing: no step was profiled"
    if on_cpu:
        return "launching: under torch.profiler, time in no operator"
    return "launching: under torch.profiler, time in which no kernel ran"


def _advice(
    kind: BottleneckKind,
    shares: Mapping[BottleneckKind, float],
    step_s: float,
    on_cpu: bool,
    workers: int,
    prefetch_factor: int,
) -> Iterator[str]:
    def matters(name: BottleneckKind) -> bool:
        return kind == name or shares[name] >= WORTH_A_WORD

    if matters("data"):
        least = step_s * (1 - shares["data"])
        how = (
            f"more than {workers} loading processes (num_workers), or a prefetch_factor above "
            f"{prefetch_factor}, may help"
            if workers
            else "let further processes load (num_workers)"
        )
        yield f"without the wait for data a step would take {least:.3g} s: {how}; --tune tries"
    if matters("copy"):
        yield "smaller images, or uint8 ones that are scaled on the device, copy faster"
    if matters("launch"):
        yield (
            "much time goes by outside operators, in Python and PyTorch's own dispatch: a larger "
            "batch makes each operator's work larger"
            if on_cpu
            else "the device waits for Python: a larger batch, or torch.compile of the backbone, "
            "gives it more work at once"
        )
    if kind == "compute":
        yield (
            "the work itself is the bottleneck: smaller images, a smaller backbone, more threads "
            "or an accelerator"
            if on_cpu
            else "the work itself is the bottleneck: bfloat16 (--precision amp-bf16), smaller "
            "images or a smaller backbone; the operators by part say where it goes"
        )
