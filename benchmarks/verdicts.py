"""Whether comparisons stay quiet on noise and find what was planted, as docs/compare.md states.

    python -m benchmarks.verdicts

MobileNet-V2 at 1x3x224x224, one thread, with the settings that docs/compare.md recommends:

- records: pairs of profiles of the unchanged model, measured one after the other;
- live: the unchanged model against itself, in turn;
- planted: the model against one with a block that does a tenth more work, in turn;
- coverage: how often a 95 % interval holds the truth, by simulation;
- speed: comparing two records of 500 layers, start of the process included.

An option of 0 leaves a part out. The whole takes about 80 minutes; run it on an idle machine.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.models import PLANTED
from layerbench.analysis.paired import Series, estimate
from layerbench.profilers.paired import ROUNDS_IN_A_PLACE
from layerbench.records.comparison import Comparison
from layerbench.records.timing import LayerRow

ROOT = Path(__file__).resolve().parent.parent
WHAT = "mobilenet_v2 --input 1x3x224x224 --device cpu --threads 1"
SLOWED = WHAT.replace("mobilenet_v2", "benchmarks.models:slowed_mobilenet_v2")
RECOMMENDED = ("--processes", "5", "--iterations", "60")
NEIGHBOURS = ("features.3", "features.5")


def main(
    records: Annotated[int, typer.Option(help="Pairs of profiles.")] = 20,
    live: Annotated[int, typer.Option(help="Live comparisons of a model with itself.")] = 20,
    planted: Annotated[int, typer.Option(help="Live comparisons with a slowed model.")] = 20,
    coverage: Annotated[int, typer.Option(help="Simulated trials.")] = 1000,
    speed: Annotated[int, typer.Option(help="Starts of a comparison.")] = 10,
) -> None:
    """Print what came out, a line as soon as it is known."""
    if coverage:
        _print_coverage(coverage)
    if speed:
        _print_speed(speed)
    with tempfile.TemporaryDirectory() as folder:
        if planted:
            _print_planted([_live(WHAT, SLOWED) for _ in _counted("planted", planted)])
        if live:
            _print_quiet("live A/A", [_live(WHAT, WHAT) for _ in _counted("live", live)])
        if records:
            _print_quiet("records A/A", list(_record_pairs(records, Path(folder))))
            _print_spread(sorted(Path(folder).glob("*/*/layers/*.json")))


def _counted(name: str, count: int) -> Iterator[int]:
    for number in range(1, count + 1):
        print(f"  {name} {number}/{count} {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True)
        yield number


# --- measured ------------------------------------------------------------------------------


def _live(baseline: str, contender: str) -> Comparison:
    return _compared("compare", "--live", baseline, contender, "--quiet")


def _record_pairs(count: int, folder: Path) -> Iterator[Comparison]:
    for number in _counted("records", count):
        paths = [_profiled(folder / f"{number}{side}") for side in "ab"]
        yield _compared("compare", *map(str, paths))


def _profiled(out: Path) -> Path:
    model, *options = WHAT.split()
    command = ["timer.py", "--model", model, *options, *RECOMMENDED]
    _run(*command, "--out", str(out), "--format", "json", "--quiet")
    return next(out.glob("*/layers/*.json"))


def _compared(*arguments: str) -> Comparison:
    done = _run("-m", "layerbench", *arguments, "--format", "json")
    return Comparison.model_validate_json(done)


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode > 1:  # 1 says that something is slower
        raise SystemExit(done.stderr)
    return done.stdout


def _print_quiet(name: str, found: Sequence[Comparison]) -> None:
    rows = [row for one in found for row in one.rows]
    alarms = [row for row in rows if row.verdict in ("SLOWER", "FASTER")]
    wholes = [one.whole.verdict for one in found]
    unclear = sum(row.verdict == "UNCLEAR" for row in rows) / len(rows)
    blocks = [abs(math.log(row.ratio)) for row in rows if row.block]
    widths = [math.log(row.ratio_high / row.ratio_low) / 2 for row in rows if row.block]
    print(
        f"{name}: {len(found)} comparisons, {len(rows)} rows, called SLOWER or FASTER "
        f"{len(alarms)} ({len(alarms) / len(rows):.2%}), UNCLEAR {unclear:.0%}; the whole "
        f"{', '.join(f'{wholes.count(v)} {v}' for v in sorted(set(wholes)))}; blocks: "
        f"|change| median {statistics.median(blocks):.1%}, root of the mean square "
        f"{math.sqrt(statistics.fmean(b * b for b in blocks)):.2%}, largest {max(blocks):.1%}, "
        f"half-width median {statistics.median(widths):.1%}"
    )
    for row in alarms:
        print(f"  {row.verdict} {row.path} {row.ratio:.3f} [{row.ratio_low:.3f}, "
              f"{row.ratio_high:.3f}]")  # fmt: skip


def _print_spread(paths: Sequence[Path]) -> None:
    """How far two processes of the unchanged model lie apart, from one profile to the next."""
    from layerbench.store import reading

    profiles = [reading.read(path) for path in paths]
    apart = [
        abs(math.log(after / before))
        for one, other in pairwise(profiles)
        for row, same in zip(one.layers, other.layers, strict=True)
        if row.path and row.inclusive and same.inclusive
        for before, after in zip(
            row.inclusive.process_medians, same.inclusive.process_medians, strict=True
        )
    ]
    half, most, nearly_all = np.percentile(apart, [50, 95, 99])
    print(
        f"two processes, {len(apart)} pairs of one row: the logarithm of their ratio is half of "
        f"the time within {half:.3f}, 95 % of the time within {most:.3f}, 99 % within "
        f"{nearly_all:.3f}"
    )


def _print_planted(found: Sequence[Comparison]) -> None:
    by_path = [{row.path: row for row in one.rows} for one in found]
    there = [rows[PLANTED] for rows in by_path]
    ratios = sorted(row.ratio for row in there)
    hits = sum(row.verdict == "SLOWER" for row in there)
    neighbours = sum(rows[path].verdict != "SLOWER" for rows in by_path for path in NEIGHBOURS)
    elsewhere = [
        (row.path, row.verdict)
        for rows in by_path
        for row in rows.values()
        if row.verdict in ("SLOWER", "FASTER") and not row.path.startswith(PLANTED)
    ]
    print(
        f"planted in {PLANTED}: SLOWER in {hits} of {len(there)}; ratio median "
        f"{statistics.median(ratios):.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}; its "
        f"neighbours not called SLOWER in {neighbours} of {len(there) * len(NEIGHBOURS)}; "
        f"rows elsewhere called: {len(elsewhere)} {elsewhere or ''}"
    )


# --- simulated -----------------------------------------------------------------------------

TRUTH = 1.07
PROCESSES, SAMPLES, ROUNDS = 5, 60, 300
PROCESS_EFFECT = 0.05
PLACE_EFFECT = 0.04
Noise = Callable[[np.random.Generator, int], np.ndarray]


def _normal(draw: np.random.Generator, n: int) -> np.ndarray:
    return 1 + 0.1 * draw.standard_normal(n)


def _log_normal(draw: np.random.Generator, n: int) -> np.ndarray:
    return draw.lognormal(0, 0.15, n)


def _bimodal(draw: np.random.Generator, n: int) -> np.ndarray:
    """Every third forward is disturbed and takes 40 % longer."""
    return (1 + 0.02 * draw.standard_normal(n)) * np.where(draw.random(n) < 1 / 3, 1.4, 1.0)


NOISES: dict[str, Noise] = {"normal": _normal, "log-normal": _log_normal, "bimodal": _bimodal}


@dataclass(frozen=True)
class _Trial:
    draw: np.random.Generator
    noise: Noise

    def process(self, factor: float) -> np.ndarray:
        """The samples of one fresh process, seconds."""
        effect = self.draw.lognormal(0, PROCESS_EFFECT)
        return factor * 1e-3 * effect * self.noise(self.draw, SAMPLES)

    def records(self) -> tuple[float, float]:
        """Two records of several processes each."""
        from layerbench.analysis import ratios

        before, after = (
            [float(np.median(self.process(factor))) for _ in range(PROCESSES)]
            for factor in (1.0, TRUTH)
        )
        return ratios.of_groups(before, after).interval()

    def live_processes(self) -> tuple[float, float]:
        """Both in turn in several processes, each with an effect of its own on the ratio."""
        return self._in_turn([self._rounds(SAMPLES, effect=0.01) for _ in range(PROCESSES)])

    def live(self) -> tuple[float, float]:
        """Both in turn in one process, the weights of each in a new place every few rounds."""
        return self._in_turn([self._rounds(ROUNDS, effect=0.0)])

    def _in_turn(self, series: Sequence[Series]) -> tuple[float, float]:
        found = estimate(series, seed=0)
        assert found is not None
        return found.ratio.interval()

    def _rounds(self, n: int, effect: float) -> Series:
        # What disturbs the machine for longer than a round meets both.
        common = 1e-3 * self.draw.lognormal(0, 0.2, n)
        places = np.arange(n) // ROUNDS_IN_A_PLACE
        layout = self.draw.lognormal(0, PLACE_EFFECT, places[-1] + 1)[places]
        before, after = (common * self.noise(self.draw, n) for _ in range(2))
        return Series(before, TRUTH * self.draw.lognormal(0, effect) * layout * after, places)


def _print_coverage(trials: int) -> None:
    from tabulate import tabulate

    cells = []
    for name, noise in NOISES.items():
        trial = _Trial(np.random.default_rng(2024), noise)
        row = [name]
        for method in (trial.records, trial.live_processes, trial.live):
            intervals = [method() for _ in range(trials)]
            row.append(f"{sum(low <= TRUTH <= high for low, high in intervals) / trials:.1%}")
        cells.append(row)
    header = ["noise", "two records, 5 processes", "live, 5 processes", "live, one process"]
    print(f"95 % intervals that hold the truth, {trials} trials each")
    print(tabulate(cells, header, tablefmt="github"))


# --- speed ---------------------------------------------------------------------------------


def _print_speed(starts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [_record_of_500(Path(folder), side) for side in "ab"]
        command = [sys.executable, "-m", "layerbench", "compare", *map(str, paths)]
        # As where a package is installed: its bytecode is there, which the first start sees to.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        took = []
        for _ in range(starts + 1):
            begin = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
            took.append(time.perf_counter() - begin)
    took = took[1:]
    print(
        f"comparing two records of 500 layers: median {statistics.median(took):.3f} s, largest of "
        f"{starts} starts {max(took):.3f} s"
    )


def _record_of_500(folder: Path, name: str) -> Path:
    """A committed record, its rows repeated until there are 500, as if from five processes."""
    from layerbench import reporters
    from layerbench.store import reading, writing

    source = next(iter(sorted((ROOT / "stats").glob("*/layers/mobilenet_v2_pascal*.json"))))
    record = reading.read(source)
    rows = list(record.layers)
    number = 0
    while len(rows) < 500:
        number += 1
        rows += [_copied(row, f"copy{number}") for row in record.layers if row.inclusive]
    draw = np.random.default_rng(ord(name))
    made = record.model_copy(
        update={
            "layers": tuple(_in_processes(row, draw) for row in rows[:500]),
            "process_medians": (record.whole.median,) * PROCESSES,
        }
    )
    path = folder / f"{name}.json"
    writing.write_text(path, reporters.render("json", made))
    return path


def _copied(row: LayerRow, below: str) -> LayerRow:
    """A row as if its whole model were a part of another one."""
    path = f"{below}.{row.path}" if row.path else below
    return row.model_copy(update={"path": path, "depth": row.depth + 1, "block": False})


def _in_processes(row: LayerRow, draw: np.random.Generator) -> LayerRow:
    if row.inclusive is None:
        return row
    medians = row.inclusive.median * draw.lognormal(0, PROCESS_EFFECT, PROCESSES)
    times = row.inclusive.model_copy(update={"process_medians": tuple(medians.tolist())})
    return row.model_copy(update={"inclusive": times})


if __name__ == "__main__":
    typer.run(main)
