"""GitHub Markdown: the whole model and its blocks, to paste into an issue or a pull request."""

from __future__ import annotations

from layerbench import units
from layerbench.records import LayerRow, Profile
from layerbench.reporters import layout

NAME = "md"
SUFFIX = ".md"


def render(record: Profile) -> str:
    """The whole-model figures and, for a layers record, the block table."""
    workload = record.workload
    parts = [
        f"### {layout.model_name(workload)} on {workload.input}, {_place(record)}",
        _whole(record),
        *([_blocks(record)] if layout.blocks(record) else []),
        _origin(record),
    ]
    return "\n\n".join(parts) + "\n"


def _place(record: Profile) -> str:
    threads = layout.threads(record)
    device = record.environment.device.name
    return device if threads is None else f"{device}, {layout.plural(threads, 'thread')}"


def _whole(record: Profile) -> str:
    whole = record.whole
    cells = {
        "Mean": layout.time(whole, "mean"),
        "Std": layout.time(whole, "std"),
        "FPS": layout.fps(record),
        "Median": layout.time(whole, "median"),
        "95 % interval": layout.interval(whole),
        "Parameters": units.count(record.parameters),
    }
    table = layout.markdown_table(
        [*cells, "Verdict"], [[*cells.values(), whole.verdict]], "r" * len(cells) + "l"
    )
    missed = f"\n\nThe whole is {whole.verdict}: {'; '.join(whole.missed)}." if whole.missed else ""
    return table + missed


def _blocks(record: Profile) -> str:
    host = layout.has_host_times(record)
    rows = [_block(row, record, host) for row in layout.blocks(record)]
    between = layout.between_blocks_s(record)
    mean = units.milliseconds(between, layout.base_half_width(record))
    rest = [mean, "", "", *([""] if host else [])]
    rows.append(["", "between the blocks", "", "", "", *rest, layout.share(between, record), ""])
    header = ["#", "Block", "Path", "Input shape", "Calls", "Mean ms", "Std ms", "Median ms"]
    return layout.markdown_table(
        [*header, *(["Host ms"] if host else []), "Share", "Verdict"],
        rows,
        "rlllrrrr" + ("r" if host else "") + "rl",
    )


def _block(row: LayerRow, record: Profile, host: bool) -> list[str]:
    times = row.inclusive
    return [
        "" if row.position is None else str(row.position),
        row.type,
        f"`{row.path}`",
        layout.first_shape(row),
        str(row.calls),
        layout.ms(times, "mean"),
        layout.ms(times, "std"),
        layout.ms(times, "median"),
        *([layout.ms(row.host_inclusive, "mean")] if host else []),
        layout.share(times.mean, record) if times else "-",
        times.verdict if times else layout.why_untimed(row),
    ]


def _origin(record: Profile) -> str:
    software = record.environment.software
    torch = software.packages.get("torch")
    tools = f"layerbench {software.layerbench}" + (f", torch {torch}" if torch else "")
    return f"{record.environment.started}, {tools}: `{record.environment.command}`"
