"""The reports of `timer`, as a user gets them, under ``stats/<device>/``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.step import Figures, Settings
from layerbench import cli, units
from layerbench.records.timing import Profile
from layerbench.store import reading

ITERATIONS = 100


@dataclass
class Report:
    """What one report says first: median of the whole, its verdict, warnings."""

    path: str
    median_s: float
    verdict: str
    warnings: list[str]


@dataclass
class Reports(Figures):
    """Reports, and the status that the command left with."""

    status: int | None = None
    reports: list[Report] = field(default_factory=list)

    def headline(self) -> str:
        """How many there are."""
        parts = [f"{Path(one.path).stem} {units.seconds(one.median_s)} ({one.verdict})"
                 for one in self.reports]  # fmt: skip
        return f"status {self.status}: {', '.join(parts)}"

    def table(self) -> list[list[str]]:
        """A row a report."""
        return [
            ["report", "median", "verdict", "warnings"],
            *(
                [one.path, units.seconds(one.median_s), one.verdict, " ".join(one.warnings)]
                for one in self.reports
            ),
        ]


def run(settings: Settings) -> Iterator[Reports]:
    """One command for all models, as `timer.py` runs it."""
    stats = settings.out / "stats"
    words = [
        *settings.models,
        *("--device", settings.device, "--out", str(stats), "--quiet"),
        *("--iterations", str(settings.either(ITERATIONS, 2)), "--sentences"),
    ]
    if settings.quick:
        shape = f"3x{settings.size}x{settings.size}"
        words += ["--input", shape, "--warmup", "1", "--function-iterations", "1", "--no-ceilings"]
    figures = Reports(status=_status("timer", words))
    for path in sorted(stats.glob("*/layers/*.json")):
        record = reading.read(path)
        assert isinstance(record, Profile)
        figures.reports.append(
            Report(
                str(path.relative_to(settings.out)),
                record.whole.median,
                record.whole.verdict,
                list(record.environment.warnings),
            )
        )
    yield figures


def _status(verb: str, words: Sequence[str]) -> int:
    """Run a verb with these words; the status it ends with."""
    before = sys.argv
    sys.argv = [f"{verb}.py", *words]
    try:
        cli.run(verb)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
