r"""A LaTeX table of the blocks, for a paper: booktabs, ``\usepackage{booktabs}``."""

from __future__ import annotations

from layerbench import units
from layerbench.records.timing import Profile
from layerbench.reporters import formatting
from layerbench.text import shown

NAME = "latex"
SUFFIX = ".tex"
PROFILES_ONLY = True


def render(record: Profile) -> str:
    """The whole model and its blocks; the environment stands above it as comments."""
    record = shown(record)
    header = ["Block", "Path", "Input", "Parameters", "Mean (ms)", "Std (ms)", "Median (ms)"]
    rows = [_whole(record), *_blocks(record)]
    table = formatting.tabulated([*header, "Share"], rows, "lll" + "r" * 5, "latex_booktabs")
    return "\n".join([*_comments(record), table]) + "\n"


def _whole(record: Profile) -> list[str]:
    whole = record.whole
    return [
        record.model_type,
        "",
        units.shape(record.workload.shape),
        units.count(record.parameters),
        formatting.ms(whole, "mean"),
        formatting.ms(whole, "std"),
        formatting.ms(whole, "median"),
        "",
    ]


def _blocks(record: Profile) -> list[list[str]]:
    return [
        [
            row.type,
            row.path,
            formatting.shape_list(row.input_shapes),
            "" if row.parameters is None else units.count(row.parameters),
            formatting.ms(row.inclusive, "mean"),
            formatting.ms(row.inclusive, "std"),
            formatting.ms(row.inclusive, "median"),
            formatting.share(row.inclusive.mean, record) if row.inclusive else "-",
        ]
        for row in formatting.blocks(record)
    ]


def _comments(record: Profile) -> list[str]:
    environment = record.environment
    packages = ", ".join(f"{k} {v}" for k, v in environment.software.packages.items())
    lines = [
        f"{formatting.model_name(record.workload)} on {record.workload.input}",
        f"{environment.device.name}, {packages}, layerbench {environment.software.layerbench}",
        f"{environment.started}: {environment.command}",
        *([busy] if (busy := environment.machine.too_busy) else []),
        *formatting.partial(record),
    ]
    return [f"% {' '.join(line.split())}" for line in lines]
