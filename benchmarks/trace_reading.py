"""How long a large trace of torch.profiler takes to read, and how much memory.

A genuine trace is recorded here: training steps of a model under torch.profiler with
``with_stack``. Its steps are repeated, one after the other in time, until there are as many events
as wanted, in the layout that Kineto writes. The last row is of a GPU's steps, written by hand, of
which every event counts. A fresh process then reads the file and makes the page.
Seconds are those of the wall clock and of the processor; memory is the most that the process had.

    python -m benchmarks.trace_reading --events 1000000
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

from layerbench import zoo
from layerbench.units import bytes_
from tests.support.sample_traces import HEADER, cuda_step

STEPS = 3
_READ = """
import json, sys, time
from layerbench import reporters
from layerbench.profilers.trace_profile import profile_trace

def most():
    # What getrusage says is also of the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

bare = most()
wall, cpu = time.perf_counter(), time.process_time()
record = profile_trace(sys.argv[1])
read = time.perf_counter() - wall, time.process_time() - cpu
page = reporters.render("html", record)
print(json.dumps({
    "events": record.events, "rows": len(record.rows), "steps": record.steps,
    "wall": read[0], "cpu": read[1], "page": time.process_time() - cpu - read[1],
    "bare": bare, "most": most(),
}))
assert "torch" not in sys.modules
"""


def recorded(path: Path, model: nn.Module, side: int) -> dict[str, Any]:
    """A trace of some training steps."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images = torch.rand(2, 3, side, side)
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=0, warmup=1, active=STEPS),
        on_trace_ready=lambda made: made.export_chrome_trace(str(path)),
        with_stack=True,
        record_shapes=True,
    ) as running:
        for _ in range(STEPS + 1):
            model(images).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            running.step()
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def repeated(path: Path, content: dict[str, Any], events: int) -> None:
    """Write the trace's events again and again, later each time, as Kineto lays them out."""
    own = content.pop("traceEvents")
    timed = [one for one in own if one.get("ph") == "X"]
    first = min(one["ts"] for one in timed)
    span = max(one["ts"] + one["dur"] for one in timed) - first + 1_000
    header = json.dumps(content, indent=2)[:-2]
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write(f'{header},\n  "traceEvents": [')
        for number in range(events):
            round_, at = divmod(number, len(own))
            one = own[at]
            if "ts" in one:
                one = {**one, "ts": round(one["ts"] + round_ * span, 3)}
            lines = json.dumps(one, indent=2).replace("\n", "\n  ")
            file.write(f"{',' if number else ''}\n  {lines}")
        file.write("\n  ]\n}\n")


def by_hand(path: Path, events: int) -> None:
    """Write steps of a GPU, each with numbers of its own."""
    each = len(cuda_step(0, 0))
    with path.open("w") as file:
        file.write(f'{{{json.dumps(HEADER)[1:-1]}, "traceEvents": [')
        for number in range(-(-events // each)):
            for at, one in enumerate(cuda_step(number, 1_100 * number)):
                file.write(f"{',' if number + at else ''}\n{json.dumps(one)}")
        file.write("\n]}\n")


def main(
    events: Annotated[int, typer.Option(help="Events of the largest trace.")] = 1_000_000,
    model: Annotated[str, typer.Option(help="A model of the zoo.")] = "resnet50",
    side: Annotated[int, typer.Option(help="Height and width of its images.")] = 64,
) -> None:
    """Print a row for each size, one for the largest compressed, and one of a GPU."""
    torch.set_num_threads(1)
    built = zoo.build(zoo.resolve(model)).module.train()
    print(
        f"{'events':>9}  {'file':>10}  {'steps':>5}  {'rows':>5}  {'wall s':>6}  {'CPU s':>6}  "
        f"{'page s':>6}  {'memory':>9}  {'before':>9}"
    )
    with TemporaryDirectory() as folder:
        content = recorded(Path(folder) / "own.json", built, side)
        for number, name in ((events // 10, "t.json"), (events, "t.json"), (events, "t.json.gz")):
            path = Path(folder) / name
            repeated(path, dict(content), number)
            _print(path)
        by_hand(path := Path(folder) / "gpu.json", events)
        _print(path)


def _print(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], check=True, capture_output=True, text=True
    )
    said = json.loads(ran.stdout)
    print(
        f"{said['events']:>9,}  {bytes_(path.stat().st_size):>10}  {said['steps']:>5}  "
        f"{said['rows']:>5}  {said['wall']:>6.1f}  {said['cpu']:>6.1f}  {said['page']:>6.1f}  "
        f"{bytes_(said['most']):>9}  {bytes_(said['bare']):>9}",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
