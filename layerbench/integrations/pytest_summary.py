"""What checks came to, as plain values, and the section of them below the tests. No torch."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypedDict

from layerbench.integrations.pytest_settings import HOW_IT_RUNS
from layerbench.records.comparison import Comparison, Judged
from layerbench.reporters import fitting
from layerbench.reporters.documents import layout
from layerbench.reporters.documents.comparison import cautions, cells_of
from layerbench.text import visible
from layerbench.units import bytes_, percent

# Of a failing check, rows that its message names.
MOST_ROWS = 10
# The gravest come first.
MOST_CAUTIONS = 3
_FIGURES = ("Baseline ms", "Contender ms", "Change", "95 % interval")
IN = "    "
_NARROWEST = 40
# Of a table that is wider than the terminal.
_OMITTED_FIRST = ("Compared with", "Model")
# Of the table of a failing check: what the change tells of.
_OMITTED_OF_COMPLAINT = ("Baseline ms", "Contender ms")
# pytest's mark before each line of an error.
_MARK = len("E   ")
_NONE = dict.fromkeys(_FIGURES, "")


class Told(TypedDict):
    """What one check came to. Plain values, which pytest-xdist sends from process to process.

    Attributes:
        test: its node ID.
        model: and its input.
        verdict: FASTER, SLOWER, SAME, UNCLEAR, UPDATED or NOT COMPARED; of limits WITHIN or
            EXCEEDED.
        beside: what the model was compared with.
        figures: cells by the name of the column; none where nothing was compared.
        limits: what was limited, how much it is, and how much it may be.
        why: the verdict is so, a sentence each.
        notes: what is said once, of however many checks.
        written: path of the record.
        line: all of it in a line.
    """

    test: str
    model: str
    verdict: str
    beside: str
    figures: dict[str, str]
    limits: list[tuple[str, str, str, str]]
    why: list[str]
    notes: list[str]
    written: str
    line: str


def told(
    test: str,
    model: str,
    verdict: str,
    *,
    beside: str = "",
    figures: dict[str, str] | None = None,
    limits: Sequence[tuple[str, str, str, str]] = (),
    why: Sequence[str] = (),
    notes: Sequence[str] = (),
    written: str = "",
) -> Told:
    """What one check came to, with its line."""
    said = [f"{model}: {verdict}"]
    if figures:
        said.append(
            f"{figures['Baseline ms']} ms → {figures['Contender ms']} ms, {figures['Change']} "
            f"{figures['95 % interval']}"
        )
    said += [f"beside {beside}"] if beside else []
    said += [f"{what} {value}, at most {most}" for what, value, most, _ in limits]
    said += [f"wrote {written}"] if written else []
    return Told(
        test=test,
        model=model,
        verdict=verdict,
        beside=beside,
        figures=figures or {},
        limits=[*limits],
        why=[*why],
        notes=[*notes],
        written=written,
        line=", ".join(said),
    )


def figures_of(comparison: Comparison) -> dict[str, str]:
    """The whole model's cells."""
    cells = cells_of(comparison.whole)
    return {name: cells[name] for name in _FIGURES}


def verdict_of(comparison: Comparison) -> str:
    """The whole model's verdict, or SLOWER where a part is: as the status of `compare`."""
    return "SLOWER" if comparison.slower else comparison.whole.verdict


def _width() -> int:
    """The terminal's, as pytest has it: no report limits it."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


# --- a failing check ------------------------------------------------------------------------


def limit_row(name: str, value: int, most: int) -> tuple[str, str, str, str]:
    """A limit as it is told: what, how much it is, how much it may be, and whether it is."""
    # Every digit: rounded, a value just beyond its limit would look like it.
    value_text, most_text = (f"{one:,}" for one in (value, most))
    if name == "peak bytes" and value >= 2**10:
        value_text = f"{value_text} ({bytes_(value)})"
    return name, value_text, most_text, "EXCEEDED" if value > most else "WITHIN"


def complaint(comparison: Comparison, beside: str, advice: str = "") -> str:
    """The message of a check that fails: what is slower, by how much, and what differs besides.

    Args:
        comparison: in which something is slower.
        beside: what the model was compared with.
        advice: a last line.
    """
    work = comparison.contender
    slower = sorted(_slower_parts(comparison), key=lambda named: _loss(named[1]), reverse=True)
    shown = [("whole model", comparison.whole), *slower[:MOST_ROWS]]
    rows = [{"": name, **cells_of(row)} for name, row in shown]
    names = [*rows[0]]
    table = layout.Table(
        names,
        [[*row.values()] for row in rows],
        "ll...r",
        omitted_first=tuple(map(names.index, _OMITTED_OF_COMPLAINT)),
        cut=0,
    )
    more = len(slower) - MOST_ROWS
    lines = [
        f"{work.model_type} is SLOWER than {beside} "
        f"(threshold {percent(comparison.threshold, digits=1)})",
        *fitting.on_screen(table, _width() - _MARK),
        *([f"and {more} more"] if more > 0 else []),
        *_cautions(comparison)[:MOST_CAUTIONS],
        *([advice] if advice else []),
    ]
    return "\n".join(map(visible, lines))


def _cautions(comparison: Comparison) -> list[str]:
    """What weakens a verdict, the gravest first: that the two did not run alike."""
    unlike = [
        f"{each.what} {each.baseline} → {each.contender}"
        for each in comparison.differences
        if each.where == "workload" and each.what in HOW_IT_RUNS
    ]
    return [*([f"What ran differs: {', '.join(unlike)}"] if unlike else []), *cautions(comparison)]


def _slower_parts(comparison: Comparison) -> Iterator[tuple[str, Judged]]:
    """What of the model is called SLOWER, with its name."""
    for rows, where in ((comparison.rows, ""), (comparison.host_rows, ", on the host")):
        for row in rows:
            if row.verdict == "SLOWER":
                yield f"{row.path} ({row.type}{where})", row
    for kernel in comparison.kernels:
        if kernel.verdict == "SLOWER":
            yield f"{kernel.name} (kernel)", kernel


def _loss(row: Judged) -> float:
    return row.contender_s - row.baseline_s


def why_unclear(comparison: Comparison) -> list[str]:
    """Why the whole model's change could not be told."""
    if comparison.disturbed:
        return [comparison.disturbed]
    low, high = cells_of(comparison.whole)["95 % interval"].strip("[]").split(", ")
    return [
        f"The change lies between {low} % and {high} %, the threshold is "
        f"{percent(comparison.threshold, digits=1)}",
        *_cautions(comparison)[:1],
    ]


def advice_if_unclear(comparison: Comparison) -> str:
    """What would tell a smaller change."""
    if comparison.disturbed:
        return ""
    if comparison.method == "one process":
        return (
            "With one process on a side only large changes can be told: update the records with "
            "processes=5, or measure beside reference=."
        )
    return "More iterations, or more processes, tell smaller changes."


# --- the section ----------------------------------------------------------------------------


def summary(every: Sequence[Told], *, workers: int = 0, listed: bool = True) -> Iterator[str]:
    """The lines of the section.

    Args:
        every: what all checks came to.
        workers: pytest-xdist's processes.
        listed: whether limits that hold are rows of the table, or only counted.
    """
    timed = [one for one in every if not one["limits"] and one["verdict"] != "UPDATED"]
    lines = [
        *_table_of_times(timed),
        *_table_of_limits(every, listed),
        *_remarks(every),
        *_beside_others(timed, workers),
    ]
    yield from map(visible, lines[: -1 if lines and not lines[-1] else None])


def _table_of_times(timed: Sequence[Told]) -> list[str]:
    rows = [
        {
            "Verdict": one["verdict"],
            **(one["figures"] or _NONE),
            "Compared with": one["beside"],
            "Model": one["model"],
            "Test": one["test"],
        }
        for one in timed
    ]
    return _table(rows, "l...rlll")


def _table_of_limits(every: Sequence[Told], listed: bool) -> list[str]:
    rows = [
        {
            "Verdict": verdict,
            "Limit": what,
            "Value": value,
            "At most": most,
            "Model": one["model"],
            "Test": one["test"],
        }
        for one in every
        for what, value, most, verdict in one["limits"]
        if listed or verdict != "WITHIN"
    ]
    held = sum(len(one["limits"]) for one in every) - len(rows)
    counted = [f"{held} limits hold (-v lists them)"] if held > 1 else []
    counted = ["1 limit holds (-v lists it)"] if held == 1 else counted
    return [*_table(rows, "llrrll"), *counted]


def _table(rows: Sequence[dict[str, str]], align: str) -> list[str]:
    """A table whose tests stand last and are never cut: they are there to be copied."""
    if not rows:
        return []
    lines = fitting.aligned([*rows[0]], [[*row.values()] for row in rows], align)
    omitted = next((name for name in _OMITTED_FIRST if name in rows[0]), None)
    if omitted is None or fitting.fits(lines, _width()):
        return [*lines, ""]
    at = [*rows[0]].index(omitted)
    narrower = [{name: cell for name, cell in row.items() if name != omitted} for row in rows]
    return _table(narrower, align[:at] + align[at + 1 :])


def _remarks(every: Sequence[Told]) -> Iterator[str]:
    """Why a verdict is what it is, for each test that says so, and which records are new."""
    times = Counter(one["written"] for one in every)
    remarks: dict[str, list[str]] = {}
    for one in every:
        path = one["written"]
        if path or one["why"]:
            again = f", by {times[path]} checks: the last one's stays" if times[path] > 1 else ""
            about = f"{path}{again}" if path else one["test"]
            remarks.setdefault(f"{one['verdict']} {about}", []).extend(one["why"])
    for about, why in remarks.items():
        yield about
        for reason in dict.fromkeys(why):
            yield from _wrapped(reason, IN)
    for note in dict.fromkeys(note for one in every for note in one["notes"]):
        yield from _wrapped(note)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent)


def _beside_others(timed: Sequence[Told], workers: int) -> Iterator[str]:
    if timed and workers > 1:
        yield from _wrapped(
            f"{workers} processes ran tests. One of them measured at a time, but the others' tests "
            "ran beside it: without -n times are quieter."
        )
