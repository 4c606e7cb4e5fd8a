"""The document of a profile: times of the whole, the blocks and the layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from layerbench import units
from layerbench.analysis.kernels import own_kernels
from layerbench.analysis.launching import Launching
from layerbench.analysis.portions import part_of
from layerbench.records.timing import UNTOUCHED, LayerRow, Profile, Summary, Verdict
from layerbench.records.view import USUAL, View
from layerbench.reporters import formatting, freeing
from layerbench.reporters.documents import (
    compilation,
    cuda_graph,
    device,
    energy,
    isolation,
    kernels,
    layout,
    reconciliation,
    shared,
    trifles,
)
from layerbench.reporters.documents.slowest import cautions, first_screen
from layerbench.reporters.documents.timing_rows import rows
from layerbench.reporters.sentences import sentences, whole_sentence

_MARKS: dict[Verdict, str] = {"stable": "", "noisy": "~", "drifting": ">"}
_MARK_LEGEND = {"~": "~ noisy", ">": "> drifting"}
_FUNCTIONS = (
    "ƒ a function that its module runs itself, timed in a pass of its own: its time is "
    "part of that module's self time"
)
_FUNCTIONS_BY_KERNELS = (
    "ƒ a function that its module runs itself: its kernels' time is part of that module's self time"
)
__all__ = ["cautions", "document", "rows", "sections"]

# Of the whole, what a block takes at least to have a row.
_LEAST_BLOCK = 0.001
# Fewer are not worth folding.
_FEWEST_FOLDED = 2
# Of the whole, what a block takes at least for its verdict to be explained.
_LEAST_DOUBTFUL = 0.01


def document(record: Profile, view: View = USUAL) -> layout.Document:
    """A whole-model record has the same sections less the layers'."""
    return layout.Document(
        title=shared.title(record.workload),
        head=first_screen(record, view),
        sections=sections(record, view, [_tree(record, view)]),
    )


def sections(record: Profile, view: View, layers: Sequence[layout.Section]) -> list[layout.Section]:
    """What stands behind the first screen.

    Args:
        record: whose times they say.
        view: what is shown.
        layers: the rows of layers, and what belongs to them.
    """
    return [
        _whole(record),
        device.section(record),
        compilation.section(record),
        cuda_graph.section(record),
        layout.Section(
            "", [layout.Text(whole_sentence(record), wrapped=False)], formats=layout.FULL
        ),
        _block_table(record, view),
        *layers,
        kernels.every(record, view),
        isolation.section(record),
        energy.section(record),
        reconciliation.section(record),
        _verdicts(record),
        *shared.warnings_and_notes(record),
        # The tree says so where it is shown.
        layout.Section("", [layout.Text(freeing.in_all(record))], formats=layout.BRIEF),
        shared.not_measured(record.absent),
        layout.Section("Measured on", [_fields(record)], formats=layout.FULL),
        layout.Section("", [layout.Text(_origin(record))], formats=layout.BRIEF),
        _sentences(record, view),
    ]


def _fields(record: Profile) -> layout.Fields:
    workload, environment = record.workload, record.environment
    model = (
        f"{workload.model} ({record.model_type}), {units.count(record.parameters)} parameters, "
        f"{formatting.weights(workload)}"
    )
    on_accelerator = environment.device.kind != "cpu"
    items = [
        ("Model", model),
        ("Input", f"{workload.input} {units.shape(workload.shape)}"),
        *formatting.files(workload),
        ("Mode", ", ".join([workload.mode, *_settings(record)])),
        ("Device", _device(record)),
        ("Host", ", ".join([environment.machine.cpu, *_cores(record)]) if on_accelerator else ""),
        ("While measured", shared.conditions(environment)),
        ("Software", shared.versions(environment.software)),
        ("Settings", formatting.pairs(environment.software.settings)),
        ("Plan", _plan(record)),
        ("Date", f"{environment.started} to {environment.finished}"),
        ("Commit", shared.commit(environment.software)),
        (layout.COMMAND, environment.command),
    ]
    return layout.Fields(items, formats=layout.FULL)


def _origin(record: Profile) -> str:
    """Where and how it was measured, in one line."""
    environment = record.environment
    torch = environment.software.packages.get("torch")
    tools = f"layerbench {environment.software.layerbench}" + (f", torch {torch}" if torch else "")
    place = formatting.place(record)
    return f"{place}, {environment.started}, {tools}: `{environment.command}`"


def _settings(record: Profile) -> list[str]:
    """What is unusual about the run, other than the mode and weights named beside it."""
    named = (record.workload.mode, formatting.weights(record.workload))
    return [setting for setting in formatting.variant(record.workload) if setting not in named]


def _device(record: Profile) -> str:
    device = record.environment.device
    parts = [f"{device.name} ({device.kind})", *(_cores(record) if device.kind == "cpu" else [])]
    if device.memory_bytes is not None:
        parts.append(f"{units.bytes_(device.memory_bytes)} memory")
    return ", ".join([*parts, *([formatting.pairs(device.details)] if device.details else [])])


def _cores(record: Profile) -> list[str]:
    return shared.cores(record.environment.machine, formatting.threads(record))


def _plan(record: Profile) -> str:
    plan, whole = record.plan, record.whole
    processes = _processes(record)
    each = f"{plan.warmup} warm-up + {whole.n // processes} measured iterations"
    stop = {
        "iterations": "",
        "until": ", until the interval was as narrow as asked for",
        "cap": ", stopped at the cap before the interval was as narrow as asked for",
        "interrupted": ", then interrupted",
    }[record.stop]
    on_device = record.device_rounds is not None and record.device_rounds.how == "kernels"
    by_kernels = on_device or record.compilation is not None
    if record.absent.get("functions") is None and record.layers and not by_kernels:
        each += f", {formatting.plural(plan.function_iterations, 'forward')} for functions"
    goal = f" ({units.percent(plan.until, digits=1)})" if plan.until and stop else ""
    where = "1 process" if processes == 1 else f"in each of {processes} fresh processes"
    return f"{each}, {where}{stop}{goal}"


def _processes(record: Profile) -> int:
    if record.stop == "interrupted":
        return len(record.process_medians)
    return max(record.plan.processes, len(record.process_medians))


def _whole(record: Profile) -> layout.Section:
    whole = record.whole
    parts: list[layout.Part] = [
        _figures_table(record),
        *_figures(record, whole, formatting.fps(record)),
    ]
    if record.whole_host:
        parts += [
            layout.Text("The same on the host's clock", indented=False, formats=layout.FULL),
            *_figures(record, record.whole_host, None),
        ]
    if len(record.process_medians) > 1:
        half = formatting.half_width(whole)
        medians = ", ".join(units.milliseconds(time, half) for time in record.process_medians)
        parts.append(layout.Text(f"Medians of the processes: {medians} ms"))
    how = "instrumented" if UNTOUCHED in record.absent else "untouched"
    return layout.Section(f"Whole model, {how}", parts)


def _figures_table(record: Profile) -> layout.Table:
    """Where a report is short, the parameters stand beside the figures."""
    whole = record.whole
    cells = {
        "Mean": formatting.time(whole, "mean"),
        "Std": formatting.time(whole, "std"),
        "FPS": formatting.fps(record),
        "Median": formatting.time(whole, "median"),
        "95 % interval": formatting.interval(whole),
        "Parameters": units.count(record.parameters),
        "Verdict": whole.verdict,
    }
    return layout.Table([*cells], [[*cells.values()]], "rrrrrrl", formats=layout.BRIEF)


def _figures(record: Profile, summary: Summary, fps: str | None) -> Iterator[layout.Text]:
    """The whole-model line, and what it missed if it is not stable."""
    over = f" over {_processes(record)} processes" if _processes(record) > 1 else ""
    figures = [
        f"mean {formatting.time(summary, 'mean')}",
        f"std {formatting.time(summary, 'std')}",
        *([f"{fps} FPS"] if fps else []),
        f"median {formatting.time(summary, 'median')} {formatting.interval(summary)} "
        f"(95 % interval{over})",
        summary.verdict,
    ]
    yield layout.Text(" | ".join(figures), wrapped=False, formats=layout.FULL)
    yield layout.Text(_distribution(summary), formats=layout.FULL)
    if summary.missed:
        yield layout.Text(f"{summary.verdict}: {'; '.join(summary.missed)}")


def _distribution(summary: Summary) -> str:
    """Where the samples lie, in one unit."""
    places = ("min", "p5", "p25", "median", "p75", "p95", "p99", "max")
    unit = formatting.time(summary, "median").rpartition(" ")[2]
    figures = (f"{name} {formatting.time(summary, name).rpartition(' ')[0]}" for name in places)
    mad = f"MAD {formatting.time(summary, 'mad').rpartition(' ')[0]}"
    return f"{summary.n} samples in {unit}: {', '.join(figures)}; {mad}"


@dataclass(frozen=True)
class _Columns:
    """What a record knows of its rows besides times on one clock.

    Attributes:
        host: whether there are times on the host's clock beside the device's.
        kernels: whether somebody saw the device's kernels.
        functions: how many of them each function ran, by path.
        launching: which rows are launch-bound.
    """

    host: bool
    kernels: bool
    functions: Mapping[str, int]
    launching: Launching

    @classmethod
    def of(cls, record: Profile) -> _Columns:
        """Those of a record."""
        kernels = any(row.kernels is not None for row in record.layers)
        host = formatting.has_host_times(record)
        return cls(host, kernels, own_kernels(record) or {}, Launching.of(record))

    def bound(self, row: LayerRow) -> str:
        """The mark of a launch-bound row."""
        return shared.LAUNCH_BOUND if self.launching.bounds(row) else ""

    def ran(self, row: LayerRow) -> str:
        """How many kernels ran for a row and what it called."""
        number = row.kernels
        if row.kind == "function" and number is None:
            number = self.functions.get(row.path)
        return formatting.dash(number, units.count)

    def legend(self, record: Profile) -> list[str]:
        """What the mark means, where it occurs."""
        return [shared.LAUNCH_BOUND_MEANS] if any(map(self.launching.bounds, record.layers)) else []


def _block_table(record: Profile, view: View) -> layout.Section:
    blocks = formatting.blocks(record)
    if not blocks:
        return layout.listed("Blocks", [])
    whole = record.base.mean
    small = [row for row in blocks if trifles.is_trifle(row, whole, _LEAST_BLOCK)]
    if len(small) < _FEWEST_FOLDED or not view.folded:
        small = []
    folded = {row.path for row in small}
    columns = _Columns.of(record)
    rows = [_block(row, record, columns) for row in blocks if row.path not in folded]
    between = formatting.between_blocks_s(record)
    all_of_it = "whole, device at work" if record.device_rounds else "whole, instrumented"
    sums_of = [("between the blocks", between), (all_of_it, whole)]
    if small:
        name = f"{formatting.plural(len(small), 'block')} under {_least(_LEAST_BLOCK)}"
        sums_of.insert(0, (name, fsum(row.inclusive.mean for row in small if row.inclusive)))
    for name, part in sums_of:
        mean = units.milliseconds(part, formatting.half_width(record.base))
        sums = {"block": name, "mean ms": mean, "share": formatting.share(part, record)}
        rows.append(dict.fromkeys(rows[0], "") | sums)
    marks = "l" * columns.launching.waits
    align = "rlclr..r" + "." * columns.host + marks + "r" * columns.kernels + ".l"
    legend = layout.Text("; ".join(columns.legend(record)), indented=False)
    return layout.table("Blocks", rows, align, legend, omitted_first=("calls", "input shape", "±"))


def _block(row: LayerRow, record: Profile, columns: _Columns) -> dict[str, str]:
    times = row.inclusive
    return {
        **shared.block_cells(row),
        "input shape": formatting.shape_list(row.input_shapes),
        "calls": str(row.calls),
        **{
            f"{figure} ms": compilation.mark(row.shared) + formatting.ms(times, figure)
            for figure in ("mean", "median")
        },
        "±": formatting.relative_half_width(times) if times else "-",
        **({"host ms": formatting.ms(row.host_inclusive, "median")} if columns.host else {}),
        **({"": columns.bound(row)} if columns.launching.waits else {}),
        **({"kernels": columns.ran(row)} if columns.kernels else {}),
        "share": formatting.share(times.mean, record) if times else "-",
        "verdict": times.verdict if times else formatting.why_untimed(row),
    }


def _tree(record: Profile, view: View) -> layout.Section:
    columns = _Columns.of(record)
    # The unnamed columns hold marks of the figure before them.
    header = ["layer", "calls", "inclusive ms", "", "self ms", "", "self share"]
    header += ["host ms", "host self"] if columns.host else []
    header += [""] if columns.launching.waits else []
    header += ["kernels"] if columns.kernels else []
    align = "lr.l.l." + ".." * columns.host + "l" * columns.launching.waits + "r" * columns.kernels
    freed = freeing.remarks(record)
    shown = [row for row in record.layers if view.has(row.type, row.depth)]
    rows = [
        _layer(run[0], shared.branch(run[0], view), columns, record, freed.get(run[0].path, ""))
        if len(run) == 1
        else _folded(run, len(header) + 1, record)
        for run in trifles.in_runs(
            shown, view, _taken(record), record.base.mean, trifles.LEAST_SHARE
        )
    ]
    layers = layout.Table([*header, ""], rows, align + "l")
    legend = layout.Text(_legend(record, columns), indented=False)
    times = "device times, medians" if record.device_rounds else "medians"
    title = f"Layers ({times}; share of means)"
    return layout.Section(title, [layers, legend], formats=layout.FULL)


def _folded(rows: Sequence[LayerRow], cells: int, record: Profile) -> list[str]:
    """One row for neighbours that take next to nothing, and what is in them."""
    times = [row.inclusive.median for row in trifles.outer(rows) if row.inclusive]
    total = units.milliseconds(fsum(times), formatting.half_width(record.base))
    sums = [trifles.label(rows, trifles.LEAST_SHARE), "", total]
    return [*sums, *[""] * (cells - len(sums))]


def _taken(record: Profile) -> Callable[[LayerRow], float | None]:
    """What a row takes of the whole's time; where the host has its own, no less than of that."""
    root = record.root
    whole = root.host_inclusive if root is not None and record.device_rounds is not None else None
    scale = part_of(record.base.mean, whole.mean) if whole is not None else 0.0

    def taken(row: LayerRow) -> float | None:
        if row.inclusive is None:
            return None
        host = row.host_inclusive.mean if row.host_inclusive else 0.0
        return max(row.inclusive.mean, scale * host)

    return taken


def _layer(row: LayerRow, branch: str, columns: _Columns, record: Profile, freed: str) -> list[str]:
    """One row of the tree, whose name is ``branch``."""
    host_times = (row.host_inclusive, row.host_self) if columns.host else ()
    untimed = "" if row.inclusive else formatting.why_untimed(row)
    below = device.is_below_resolution(record.device_rounds, row.inclusive)
    return [
        branch,
        str(row.calls),
        *_marked(row.inclusive, row.shared),
        *_marked(row.self_, row.self_shared),
        formatting.share(row.self_.mean, record) if row.self_ else "-",
        *(formatting.ms(summary, "median") for summary in host_times),
        *([columns.bound(row)] if columns.launching.waits else []),
        *([columns.ran(row)] if columns.kernels else []),
        formatting.remarks(untimed, device.BELOW_RESOLUTION if below else "", freed, row.note),
    ]


def _marked(summary: Summary | None, shared: float | None) -> list[str]:
    mark = _MARKS[summary.verdict] if summary else ""
    return [formatting.ms(summary, "median"), compilation.mark(shared) + mark]


def _legend(record: Profile, columns: _Columns) -> str:
    """What the marks and remarks that occur mean."""
    times = [row.inclusive for row in record.layers] + [row.self_ for row in record.layers]
    marks = {_MARKS[summary.verdict] for summary in times if summary}
    parts = [text for mark, text in _MARK_LEGEND.items() if mark in marks]
    parts += columns.legend(record)
    if compilation.has_shares(record):
        parts.append(compilation.SHARED_MEANS)
    if any(row.kind == "function" for row in record.layers):
        parts.append(_FUNCTIONS_BY_KERNELS if columns.kernels else _FUNCTIONS)
    freed = freeing.in_all(record)
    return "; ".join([*parts, freed] if freed else parts)


def _sentences(record: Profile, view: View) -> layout.Section:
    lines = sentences(record) if view.sentences else ()
    return layout.Section(
        "", [layout.Text(line, wrapped=False) for line in lines], formats=layout.FULL
    )


def _verdicts(record: Profile) -> layout.Section:
    """The number of rows with each verdict, and the criteria that blocks missed."""
    timed = [row.inclusive for row in record.layers if row.inclusive]
    counts = Counter(summary.verdict for summary in timed)
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _MARKS if counts[verdict])
    untimed = len(record.layers) - len(timed)
    without = f", {untimed} without times" if untimed else ""
    doubtful = [
        (row, row.inclusive)
        for row in formatting.blocks(record)
        if row.inclusive and row.inclusive.missed
    ]
    whole = record.base.mean
    large = [(row, times) for row, times in doubtful if times.mean >= _LEAST_DOUBTFUL * whole]
    rows = formatting.plural(len(record.layers), "row")
    lines = [
        f"Of {rows} (inclusive times): {counted}{without}.",
        *filter(None, [device.verdict(record)]),
        *_explained(large),
    ]
    if rest := len(doubtful) - len(large):
        lines.append(
            f"{formatting.plural(rest, 'more block')} of less than {_least(_LEAST_DOUBTFUL)} "
            "not stable either."
        )
    return layout.Section("Verdicts", [layout.Lines(lines if timed else [])], formats=layout.FULL)


def _explained(blocks: Sequence[tuple[LayerRow, Summary]]) -> Iterator[str]:
    """Of each verdict the blocks with what they missed, one after the other."""
    for verdict in _MARKS:
        missed = [
            f"{row.path} ({'; '.join(times.missed)})"
            for row, times in blocks
            if times.verdict == verdict
        ]
        if missed:
            yield f"{verdict}: {', '.join(missed)}"


def _least(share: float) -> str:
    return f"{units.percent(share, digits=0 if share >= _LEAST_DOUBTFUL else 1)} each"
