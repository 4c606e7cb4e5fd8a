"""What ran, how long it took, and what came out: one table of all steps. Loads no torch."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from layerbench.store.writing import write_text

STOPPED = {124, 137}
"""`timeout`'s own statuses: it ended the step, gently or not."""
NOT_BEGUN = "-"

PYTEST = "tests"


@dataclass
class Ran:
    """One step.

    Attributes:
        name: of the step.
        outcome: ``ok``, ``failed (status)``, ``stopped at its limit``, ``no time left``.
        seconds: that it took.
        headline: its figures in a line.
    """

    name: str
    outcome: str
    seconds: int
    headline: str


def summarize(out: Path) -> str:
    """Write ``summary.txt``, ``summary.json`` and ``benchmarks.md``; give the text.

    Args:
        out: the folder with ``steps.tsv``, a line a step: name, status, seconds.
    """
    steps = [_ran(line.split("\t"), out) for line in _lines(out / "steps.tsv")]
    rows = [[one.name, one.outcome, one.seconds, one.headline] for one in steps]
    table = tabulate(
        rows,
        ["step", "outcome", "s", "figures"],
        tablefmt="simple",
        maxcolwidths=[None, None, None, 90],
        disable_numparse=True,
    )
    took = sum(one.seconds for one in steps)
    passed = sum(one.outcome == "ok" for one in steps)
    text = f"{_where(out)}\n\n{table}\n\n{passed} of {len(steps)} steps ok, {took} s\n"
    write_text(out / "summary.txt", text)
    write_text(out / "summary.json", json.dumps([asdict(one) for one in steps], indent=1) + "\n")
    write_text(out / "benchmarks.md", _for_the_docs(out))
    return text


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _ran(line: list[str], out: Path) -> Ran:
    name, status, seconds = line
    record = _record(out, name)
    headline = _tests(out) if name == PYTEST else str(record.get("headline", ""))
    if record and not record["finished"]:
        headline = f"(so far) {headline}"
    return Ran(name, _outcome(status), int(seconds), headline or _last_line(out, name))


def _outcome(status: str) -> str:
    if status == NOT_BEGUN:
        return "no time left"
    if status == "0":
        return "ok"
    return "stopped at its limit" if int(status) in STOPPED else f"failed ({status})"


def _record(out: Path, name: str) -> dict[str, Any]:
    path = out / f"{name}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record


def _last_line(out: Path, name: str) -> str:
    """Of a step without figures: what it said last."""
    lines = [line for line in _lines(out / "logs" / f"{name}.log") if line.strip()]
    return lines[-1][:200] if lines else ""


def _tests(out: Path) -> str:
    """Pytest's counts."""
    path = out / "pytest.xml"
    if not path.exists():
        return ""
    suites = xml.parse(path).getroot().iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for name in counts:
            counts[name] += int(suite.get(name, "0"))
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _where(out: Path) -> str:
    """The device and the version of PyTorch, from the first step that told."""
    for path in sorted(out.glob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and "device" in record:
            return f"{record['device']}, torch {record['torch']}"
    return "no step has told what ran here"


def _for_the_docs(out: Path) -> str:
    """Tables for docs/benchmarks.md: those that the steps have written."""
    parts = [f"{_where(out)}. `sh benchmarks/gpu.sh`\n"]
    for name, about in _TABLES.items():
        path = out / f"{name}.txt"
        table = [line for line in _lines(path) if line.startswith("|")]
        if table:
            parts.append("\n".join([about, "", *table, ""]))
    return "\n".join(parts)


_TABLES = {
    "rounds": (
        "Medians, ms. The kernels' sum is that of device rounds; graph is the replay of the same "
        "forward as a CUDA graph; perturbed is an untouched forward among the other rounds over "
        "one among its like, with its 95 % interval."
    ),
    "graphs": (
        "A CUDA graph's replay and compiled code at batch 1: medians, ms. Known is the part of the "
        "compiled kernels' time that belongs to known layers."
    ),
    "events": "What an event costs.",
    "memory": "Peaks of PyTorch's allocator, MiB, batch 8.",
    "sweep": "Peaks of a sweep, the small model before and after a larger one.",
}
