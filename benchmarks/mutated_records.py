"""Damaged records through everything that reads records: tracebacks, memory and time.

Each case is a record of the tests or of the repository with something changed in it
(`tests.support.mutations`). It is read and, where it still is a record, shown by every reader: the
eight formats, the page, comparisons, tables, views, and for one case in ten a picture. A traceback
is anything but a LayerbenchError of one line. Every 1,000 cases have a process of their own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from layerbench.store import reading
from tests.support.mutations import PICTURES, committed, mutated, originals, read_all

PER_PROCESS = 1_000
# One case in so many is drawn, with one kind of picture.
DRAWN = 10


class TooLong(BaseException):
    """Not an Exception, so that no reader keeps it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, default=4_096, help="MiB of addresses at most")
    parser.add_argument("--seconds", type=int, default=30, help="of a case at most")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    slowest, most = (0.0, ""), 0
    for first in range(given.first, given.first + given.cases, PER_PROCESS):
        last = min(first + PER_PROCESS, given.first + given.cases)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            counts, slow, size = pool.submit(some, first, last, vars(given)).result()
        total += counts
        slowest, most = max(slowest, slow), max(most, size)
        print(
            f"to {last}: {total['cases']} cases, {total['read']} still records, "
            f"{total['calls']} calls of readers, {total['tracebacks']} tracebacks; longest call "
            f"{slowest[0]:.2f} s ({slowest[1]}), {most / 2**20:.0f} MiB at most",
            flush=True,
        )
    sys.exit(1 if total["tracebacks"] else 0)


def some(first: int, last: int, given: dict[str, Any]) -> tuple[Counter[str], Any, int]:
    """Cases in this process: counts, the longest call with its name, and the most bytes held."""
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"] * 2**20,) * 2)
    signal.signal(signal.SIGALRM, _too_long)
    counts: Counter[str] = Counter()
    slowest = (0.0, "")
    known = {**originals(), **{str(path): content for path, content in committed()}}
    names = sorted(known)
    with tempfile.TemporaryDirectory() as folder:
        place, before = Path(folder) / "case.json", Path(folder) / "before.json"
        for number in range(first, last):
            draw = random.Random(f"{given['seed']} {number}")
            # The small ones of every kind two times of three.
            small = sorted(originals_names(names))
            name = draw.choice(small if draw.random() < 2 / 3 else names)
            before.write_text(json.dumps(known[name]), encoding="utf-8")
            place.write_bytes(mutated(known[name], draw))
            pictures = (draw.choice(PICTURES),) if number % DRAWN == 0 else ()
            counts["cases"] += 1
            slowest = max(slowest, _case(place, before, pictures, counts, given, (number, name)))
    return counts, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def originals_names(names: list[str]) -> list[str]:
    return [name for name in names if "/" not in name]


def _case(
    place: Path,
    before: Path,
    pictures: tuple[str, ...],
    counts: Counter[str],
    given: dict[str, Any],
    what: tuple[int, str],
) -> tuple[float, str]:
    other = reading.read(before)
    slowest = (0.0, "")
    signal.alarm(given["seconds"])
    reader = "read"
    try:
        begins = time.process_time()
        for reader in read_all(place, other, pictures):
            counts["read" if reader == "read" else "calls"] += 1
            slowest = max(slowest, (time.process_time() - begins, f"{reader}, case {what[0]}"))
            begins = time.process_time()
    except (Exception, TooLong):
        counts["tracebacks"] += 1
        print(f"case {what[0]}, {what[1]}, after {reader}:", flush=True)
        traceback.print_exc(limit=-4, file=sys.stdout)
    finally:
        signal.alarm(0)
    return slowest


def _too_long(*_: Any) -> None:
    raise TooLong


if __name__ == "__main__":
    main()
