"""What timing every layer costs, against the untouched forward and against other ways of timing.

Every round runs each way once, in an order shuffled by a seeded generator, on one warmed model,
and the untouched forward twice. A way's ratio is the median over rounds of its time over the mean
of the two untouched ones of the same round; the second untouched forward over the first shows how
much of a ratio is noise.

    python -m benchmarks.overhead
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tabulate import tabulate
from torch import nn

from layerbench import zoo
from layerbench.analysis.statistics import Resampler, paired_ratio
from layerbench.environment.devices.clocks import PerfCounter
from layerbench.environment.machine import cpu_model
from layerbench.environment.software import package_versions
from layerbench.instruments.attach import mode_set
from layerbench.instruments.calibration import mark_cost_s
from layerbench.profilers.user_loop import LiveLayers

Way = Callable[[nn.Module], AbstractContextManager[None]]

UNTOUCHED, AGAIN, OURS = "untouched", "untouched, once more", "layerbench.time_layers"


@contextmanager
def forward_hooks(model: nn.Module) -> Iterator[None]:
    """A pre-forward and a forward hook on every module, each reading the clock."""
    times: list[int] = []

    def before(module: nn.Module, args: object) -> None:
        times.append(time.perf_counter_ns())

    def after(module: nn.Module, args: object, output: object) -> None:
        times.append(time.perf_counter_ns())

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield


@contextmanager
def torch_profiler(model: nn.Module) -> Iterator[None]:
    """torch.profiler, with a range around every module."""
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.enter_context(_ranged(path or "model", module))
        activities = [torch.profiler.ProfilerActivity.CPU]
        stack.enter_context(torch.profiler.profile(activities=activities))
        yield


@contextmanager
def _ranged(name: str, module: nn.Module) -> Iterator[None]:
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(name):
            return original(*args, **kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


def deepspeed_profiler() -> dict[str, Way]:
    """DeepSpeed's flops profiler, where it is installed."""
    try:
        from deepspeed.profiling.flops_profiler import FlopsProfiler
    except ImportError:
        return {}

    @contextmanager
    def attached(model: nn.Module) -> Iterator[None]:
        profiler = FlopsProfiler(model)
        profiler.start_profile()
        try:
            yield
        finally:
            profiler.end_profile()

    return {"DeepSpeed's flops profiler": attached}


def main(
    model: Annotated[str, typer.Option(help="Model spec.")] = "mobilenet_v2",
    input: Annotated[str, typer.Option(help="Input.")] = "1x3x224x224",
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 1000,
    warmup: Annotated[int, typer.Option(help="Warm-up rounds.")] = 25,
    others_every: Annotated[
        int, typer.Option(help="Run the other ways in one round of this many.")
    ] = 10,
    threads: Annotated[int, typer.Option(help="Intra-op threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
) -> None:
    """Print the cost of timing every layer, from paired interleaved runs."""
    torch.set_num_threads(threads)
    built = zoo.build(zoo.resolve(model, input))
    net = built.module
    layers = LiveLayers(net, PerfCounter())
    always: dict[str, Way] = {
        UNTOUCHED: lambda _: nullcontext(),
        AGAIN: lambda _: nullcontext(),
        OURS: lambda _: layers.attached(),
    }
    others: dict[str, Way] = {
        "forward hooks": forward_hooks,
        "torch.profiler, a range per module": torch_profiler,
        **deepspeed_profiler(),
    }
    order = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in (*always, *others)}
    bases: dict[str, list[float]] = {name: [] for name in times}
    with mode_set(net, training=False), torch.inference_mode():
        for number in range(-warmup, rounds):
            ways = {**always, **(others if number % others_every == 0 else {})}
            names = list(ways)
            order.shuffle(names)
            taken = {name: _seconds(ways[name], net, built.args) for name in names}
            if number < 0:
                continue
            for name, seconds in taken.items():
                times[name].append(seconds)
                bases[name].append(_base(name, taken))
    modules = sum(1 for _ in net.modules())
    versions = ", ".join(" ".join(pair) for pair in package_versions(("torch",)).items())
    print(f"{model} {input}, {modules} modules, {threads} thread(s), {cpu_model()}, {versions}")
    print(_table(times, bases))
    mark = mark_cost_s(PerfCounter())
    limit = 1 + 2 * modules * mark / statistics.median(times[UNTOUCHED])
    print(f"limit, two clock readings a module at {mark * 1e9:.0f} ns: {limit:.4f}")
    start = time.perf_counter()
    rows = layers.rows
    print(f"{len(rows)} rows made in {time.perf_counter() - start:.2f} s, after the loop")


def _seconds(way: Way, net: nn.Module, args: tuple[Any, ...]) -> float:
    """One forward; putting the instrument on and off is not counted."""
    with way(net):
        start = time.perf_counter()
        net(*args)
        return time.perf_counter() - start


def _base(name: str, taken: dict[str, float]) -> float:
    """What a time is held against: both untouched ones, the second against the first."""
    if name in (UNTOUCHED, AGAIN):
        return taken[UNTOUCHED]
    return (taken[UNTOUCHED] + taken[AGAIN]) / 2


def _table(times: dict[str, list[float]], bases: dict[str, list[float]]) -> str:
    rows = []
    for name, taken in times.items():
        ratio, low, high = paired_ratio(
            np.array(taken), np.array(bases[name]), Resampler([len(taken)])
        )
        median = f"{statistics.median(taken) * 1e3:.2f}"
        rows.append([name, len(taken), median, f"{ratio:.4f}", f"[{low:.4f}, {high:.4f}]"])
    header = ["way", "rounds", "median ms", "ratio", "95 % interval"]
    return tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    typer.run(main)
