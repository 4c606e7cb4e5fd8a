"""Measuring on a cluster of nodes on this machine: deaths, overhead, same.

deaths    200 points of a tiny model on four nodes. 20 nodes are killed with -9 at random moments,
          and a new one joins each time: how many records there are, each once, and none torn.
overhead  seconds a point beside the measuring itself: the same points by one node, and by a local
          sweep in one process.
same      one node's times against a local run's, by `layerbench compare`, several times in turn:
          how often anything is SLOWER.

    python -m benchmarks.cluster

The nodes share this machine's cores and its lock of the CPU, so that one measures at a time.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from layerbench.cluster.journal import NAME
from layerbench.records.sweep import Sweep
from layerbench.store import reading

POINTS, DEATHS, NODES = 200, 20, 4
TINY = """
from torch import nn


def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )
"""
COMMON = ["--models=tiny.py:make", "--sizes=32", "--quiet"]
TIMED = ["--model=resnet18", "--input=1x3x64x64", "--threads=1", "--no-ceilings", "--quiet"]

app = typer.Typer(help=__doc__, add_completion=False)


class Nodes:
    """The nodes of a cluster, by label.

    Args:
        process: that has started them.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = ""

    def tell(self, *words: str) -> None:
        """Add or kill one; waits until that is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        self.address = json.loads(self._process.stdout.readline())["address"]


@contextmanager
def cluster(*labels: str) -> Iterator[Nodes]:
    """Nodes on this machine."""
    script = Path(__file__).parents[1] / "tests" / "support" / "ray_node_script.py"
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        nodes = Nodes(process)
        for label in labels:
            nodes.tell("add", label)
        try:
            yield nodes
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def environment() -> dict[str, str]:
    """Of what is run here: this checkout's layerbench."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def layerbench(*words: str, folder: Path) -> subprocess.Popen[str]:
    """A command line that runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "layerbench", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def seconds_of(*words: str, folder: Path) -> tuple[float, float]:
    """What a command line takes, that has to end well: seconds, and of the processor."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = layerbench(*words, folder=folder)
    said, _ = run.communicate()
    if run.returncode:
        print(f"{' '.join(words)} ended with {run.returncode}: {said}")
        raise typer.Exit(1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, own


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with the tiny model in it."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "tiny.py").write_text(TINY)
        yield Path(name)


def written(path: Path) -> list[Path]:
    """Records of points, by the moment that they were written."""
    return sorted(path.rglob("points/*.json"), key=lambda one: one.stat().st_mtime_ns)


@app.command()
def deaths(
    points: Annotated[int, typer.Option(help="Points.")] = POINTS,
    killed: Annotated[int, typer.Option(help="Nodes that are killed.")] = DEATHS,
    seed: Annotated[int, typer.Option(help="Of the moments and nodes.")] = 0,
) -> None:
    """Kill nodes while they measure, and count what is there at the end."""
    chance = random.Random(seed)
    labels = [f"node{number}" for number in range(NODES)]
    # The first one keeps the cluster's own books: without it there is none.
    with folder() as place, cluster(*labels) as nodes:
        batches = ",".join(map(str, range(1, points + 1)))
        began = time.monotonic()
        run = layerbench(
            *("sweep", f"--batches={batches}", "--seconds=20", *COMMON),
            *("--cluster", nodes.address, "--out=out"),
            folder=place,
        )
        # At so many written points each, so that all moments of a point are met.
        moments = sorted(chance.sample(range(1, points - 5), killed))
        done = 0
        while run.poll() is None:
            time.sleep(chance.uniform(0.05, 0.5))
            if done < killed and len(written(place)) >= moments[done]:
                victim = chance.choice(labels[1:])
                labels.remove(victim)
                nodes.tell("kill", victim)
                labels.append(f"node{NODES + done}")
                nodes.tell("add", labels[-1])
                done += 1
        said = run.communicate()[0]
        took = time.monotonic() - began
        files = written(place)
        torn = sum(not isinstance(reading.read(file), Sweep) for file in files)
        lines = [json.loads(line) for line in (place / "out" / NAME).read_text().splitlines()]
        times = Counter(line["key"] for line in lines)
        whole = reading.read(place / "out" / "sweep_devices.json")
    columns = whole.columns  # type: ignore[attr-defined]
    print(
        f"{done} of {killed} nodes killed with -9, as many joined; {took:.0f} s, "
        f"status {run.returncode}"
    )
    print(f"{len(files)} of {points} records, {torn} torn")
    print(f"{len(times)} points in the journal, {sum(n > 1 for n in times.values())} of them twice")
    print(f"{sum(len(one.sweep.points) for one in columns if one.sweep)} points in the table")
    print(f"{sum(len(one.missing) for one in columns)} missing")
    for why in sorted({point.why for one in columns for point in one.missing}):
        print(f"missing: {why}")
    if run.returncode:
        print(said[-2000:])


@app.command()
def overhead(
    points: Annotated[int, typer.Option(help="Points.")] = 40,
    repeats: Annotated[int, typer.Option(help="Times that all is done.")] = 3,
) -> None:
    """Compare the time of a point with that of a local sweep, in turn."""
    batches = [str(number) for number in range(1, points + 1)]
    sweep = ["sweep", "--seconds=20", *COMMON]
    with folder() as place, cluster("one") as nodes:
        for repeat in range(repeats):
            out = place / f"out{repeat}"
            asked = (f"--batches={','.join(batches)}", f"--batches={batches[0]}")
            there = ("--cluster", nodes.address)
            (_, driver), (_, driver_one) = (
                seconds_of(*sweep, some, *there, f"--out={out}-{number}", folder=place)
                for number, some in enumerate(asked)
            )
            moments = [one.stat().st_mtime for one in written(Path(f"{out}-0"))]
            on_cluster = (moments[-1] - moments[0]) / (len(moments) - 1)
            (all_s, _), (one_s, _) = (seconds_of(*sweep, some, folder=place) for some in asked)
            here = (all_s - one_s) / (points - 1)
            print(
                f"a point on a node {on_cluster:.2f} s, in a local sweep {here:.2f} s: "
                f"{on_cluster - here:.2f} s more; of the driver's processor time "
                f"{1000 * (driver - driver_one) / (points - 1):.0f} ms a point"
            )


@app.command()
def same(pairs: Annotated[int, typer.Option(help="Runs of each.")] = 6) -> None:
    """Compare one node's times with a local run's, and count the alarms."""
    verdicts: Counter[str] = Counter()
    with folder() as place, cluster("one") as nodes:
        for pair in range(pairs):
            here, there = place / f"here{pair}", place / f"there{pair}"
            sides: Sequence[Any] = (
                (*("timer", *TIMED, f"--out={here}"),),
                (*("timer", *TIMED, f"--out={there}", "--cluster", nodes.address),),
            )
            for words in sides if pair % 2 else reversed(sides):
                seconds_of(*words, folder=place)
            records = [next(side.rglob("layers/*.json")) for side in (here, there)]
            run = layerbench("compare", *map(str, records), folder=place)
            said, _ = run.communicate()
            verdicts[f"status {run.returncode}"] += 1
            print(f"pair {pair + 1}: status {run.returncode}: {said.strip().splitlines()[2]}")
    print(", ".join(f"{name}: {count} of {pairs}" for name, count in verdicts.items()))


if __name__ == "__main__":
    app()
