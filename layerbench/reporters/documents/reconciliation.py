"""How far a profile's layers are from its untouched whole, and what the instruments cost."""

from __future__ import annotations

from layerbench import units
from layerbench.records.timing import Profile, Reconciliation
from layerbench.reporters import formatting
from layerbench.reporters.documents import device, layout


def section(record: Profile) -> layout.Section:
    """The sentences; none where nothing is known."""
    costs = record.reconciliation
    if record.device_rounds is not None:
        lines = [*device.reconciled(record), *([_host(costs), _clock(costs)] if costs else [])]
    elif record.compilation is not None and costs:
        lines = [_untouched(costs), _sum(costs), _around_kernels(costs, record)]
    else:
        lines = [_untouched(costs), _sum(costs), _clock(costs)] if costs else []
    return layout.Section("Reconciliation", [layout.Lines(lines)], formats=layout.FULL)


def _untouched(costs: Reconciliation) -> str:
    return (
        f"Untouched, the forward takes {units.seconds(costs.untouched_s)}; instrumented, "
        f"{units.seconds(costs.instrumented_s)} (medians). {_overhead(costs, 'instrumented')}"
    )


def _host(costs: Reconciliation) -> str:
    """The same of host rounds, whose instruments mark the host's clock alone."""
    return (
        f"Untouched, the forward takes {units.seconds(costs.untouched_s)}; in host rounds, "
        f"{units.seconds(costs.instrumented_s)} (medians). {_overhead(costs, 'host rounds')}"
    )


def _sum(costs: Reconciliation) -> str:
    return (
        "The self times of all modules add up to "
        f"{units.ratio(costs.self_sum_ratio, digits=6)} of the instrumented whole. By their "
        f"medians over all rounds, the layers' sum of {units.seconds(costs.layers_sum_s)} is "
        f"{_more_or_less(costs.layers_gap)} the untouched forward."
    )


def _clock(costs: Reconciliation) -> str:
    return (
        f"One reading of the clock costs {units.seconds(costs.mark_cost_s)}; timing one call "
        f"{'costs' if costs.wrapper_cost_s >= 0 else 'saves'} "
        f"{units.seconds(abs(costs.wrapper_cost_s))} in a tight loop; a forward has "
        f"{formatting.plural(costs.timed_calls, 'timed call')}.{_event(costs)}"
    )


def _around_kernels(costs: Reconciliation, record: Profile) -> str:
    kernels = sum(kernel.calls for kernel in record.kernels)
    return (
        f"One reading of the clock costs {units.seconds(costs.mark_cost_s)}; it is read twice for "
        f"each of {formatting.plural(kernels, 'kernel')}."
    )


def _event(costs: Reconciliation) -> str:
    if costs.event_s is None or costs.least_event_s is None:
        return ""
    return (
        f" An event takes {units.seconds(costs.event_s)} of the device's queue, and the untouched "
        f"forward holds one; {units.seconds(costs.least_event_s)} lie between two with nothing "
        "between them."
    )


def _overhead(costs: Reconciliation, what: str) -> str:
    low, high = costs.overhead_low - 1, costs.overhead_high - 1
    return (
        f"Round by round, {what} / untouched is {units.ratio(costs.overhead, digits=4)}: "
        f"{_cost(costs)} {units.percent(costs.overhead - 1, digits=2)} "
        f"(95 % interval {units.percent(low, digits=2)} to {units.percent(high, digits=2)})."
    )


def _cost(costs: Reconciliation) -> str:
    """What the interval allows to be said: an overhead that may be zero has not been seen."""
    if costs.overhead_low > 1:
        return "the instruments cost"
    if costs.overhead_high < 1:
        return "the instrumented forward came out faster,"
    return "the instruments' cost cannot be told from zero,"


def _more_or_less(gap: float) -> str:
    return f"{units.percent(abs(gap), digits=2)} {'less' if gap < 0 else 'more'} than"
