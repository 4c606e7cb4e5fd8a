"""How often comparing a model with itself calls something SLOWER, and what is found all the same.

    python -m benchmarks.alarms

Each comparison is `layerbench compare --live`, as typed, in this process, with the status that the
command ends with. Two loops keep both cores busy beside it; ``--loops 0`` leaves the machine as it
is. The figures of the last run are in docs/benchmarks.md.

- simulated: comparisons of a model with itself on machines in virtual time (`benchmarks.virtual`),
  and of one with a layer that takes 15 % longer;
- live: of a model with itself;
- planted: of a model with one whose second block does three times as much.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from benchmarks import virtual
from layerbench.analysis.aggregation import assemble
from layerbench.analysis.comparison import judge
from layerbench.analysis.paired import of_rounds
from layerbench.records.comparison import Comparison
from layerbench.records.workload import Plan, Workload

MODEL = "mobilenet_v2 --input 1x3x64x64 --device cpu --threads 1"
SMALL = "tests/models.py:small --input 2x3x32x32 --device cpu --threads 1"
SLOW = SMALL.replace(":small", ":slow_small")


def main(
    live: Annotated[int, typer.Option(help="Comparisons of each model with itself.")] = 100,
    planted: Annotated[int, typer.Option(help="Comparisons with a slower model.")] = 20,
    simulated: Annotated[int, typer.Option(help="Comparisons in virtual time.")] = 1000,
    loops: Annotated[int, typer.Option(help="Processes that keep the cores busy.")] = 2,
    iterations: Annotated[int, typer.Option(help="Rounds of each comparison.")] = 100,
) -> None:
    """Print what came out, a line as soon as it is known."""
    if simulated:
        _simulated(simulated)
    if not live and not planted:
        return
    with _busy(loops):
        rounds = ("--iterations", str(iterations), "--warmup", "5", "--quiet")
        for name, count, pair in (
            ("a small model with itself", live, (SMALL, SMALL)),
            ("MobileNet-V2 with itself", live, (MODEL, MODEL)),
            ("a small model with a slower one", planted, (SMALL, SLOW)),
        ):
            if count:
                print(_told(name, [_compare(*pair, *rounds) for _ in _counted(name, count)]))


# --- live -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    status: int
    found: Comparison


@contextlib.contextmanager
def _busy(loops: int) -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def _counted(name: str, count: int) -> Iterator[int]:
    for number in range(1, count + 1):
        load = f"load {os.getloadavg()[0]:.1f}"
        print(f"  {name} {number}/{count} {time.strftime('%H:%M:%S')} {load}", file=sys.stderr)
        yield number


def _compare(*arguments: str) -> _Outcome:
    from layerbench import cli

    sys.argv = ["layerbench", "compare", "--live", *arguments, "--format", "json"]
    told = io.StringIO()
    status: object = 0
    try:
        with contextlib.redirect_stdout(told):
            cli.main()
    except SystemExit as left:
        status = left.code
    if status not in (0, 1):
        raise SystemExit(f"the command ended with {status}")
    return _Outcome(int(str(status)), Comparison.model_validate_json(told.getvalue()))


def _told(name: str, outcomes: list[_Outcome]) -> str:
    statuses = Counter(one.status for one in outcomes)
    void = sum(bool(one.found.void) for one in outcomes)
    wholes = Counter(one.found.whole.verdict for one in outcomes)
    rows = Counter(row.verdict for one in outcomes for row in one.found.rows)
    return (
        f"{name}: {len(outcomes)} comparisons, {statuses[1]} with status 1; too busy to tell "
        f"{void}; the whole {_counts(wholes)}; rows {_counts(rows)}; load at the end "
        f"{os.getloadavg()[0]:.1f}"
    )


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


# --- simulated ------------------------------------------------------------------------------


def _simulated(count: int) -> None:
    for name, disturbance in virtual.MACHINES.items():
        for moved in (True, False):
            same = [_virtual(seed, disturbance, moved, 1.0) for seed in range(count)]
            slow = [_virtual(seed, disturbance, moved, 1.15) for seed in range(count // 10)]
            path = f"layer{virtual.PLANTED}"
            hits = sum(
                row.verdict == "SLOWER" for one in slow for row in one.rows if row.path == path
            )
            called = sum(
                any(row.verdict in ("SLOWER", "FASTER") for row in (one.whole, *one.rows))
                for one in same
            )
            print(
                f"simulated, {name}, weights {'moved' if moved else 'in one place'}: of {count} "
                f"comparisons with itself {sum(one.slower for one in same)} SLOWER, {called} with "
                f"any row called, {sum(bool(one.void) for one in same)} too busy to tell; 15 % in "
                f"a layer found in {hits} of {len(slow)}"
            )


def _virtual(seed: int, disturbance: virtual.Disturbance, moved: bool, factor: float) -> Comparison:
    pair = virtual.measured_in_turn(seed, disturbance, moved=moved, factor=factor)
    sides = [assemble(_WORKLOAD, Plan(threads=1), [run]) for run in pair]
    return judge(sides[0], sides[1], of_rounds([pair]), names=("a", "b"))


_WORKLOAD = Workload(model="virtual", input="x", shape=(1, 1, 1, 1), batch=1)


if __name__ == "__main__":
    typer.run(main)
