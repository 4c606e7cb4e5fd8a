"""What timing every layer costs, against the untouched forward and against other ways of timing.

Every round runs each way once, in an order shuffled anew by a seeded generator, on one warmed
model; a way's ratio is the median over rounds of its time over the untouched forward's in the
same round.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tabulate import tabulate
from torch import nn

from layerbench import zoo
from layerbench.clocks import PerfCounter
from layerbench.environment import cpu_model, package_versions
from layerbench.instruments.attach import mode_set
from layerbench.instruments.calibration import mark_cost_s
from layerbench.live import LiveLayers
from layerbench.stats import Resampler, paired_ratio

Way = Callable[[nn.Module], AbstractContextManager[Any]]


@contextmanager
def forward_hooks(model: nn.Module) -> Any:
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
def torch_profiler(model: nn.Module) -> Any:
    """torch.profiler, with a range around every module."""
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.enter_context(_range(path or "model", module))
        stack.enter_context(
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        )
        yield


@contextmanager
def _range(name: str, module: nn.Module) -> Any:
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(name):
            return original(*args, **kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


def deepspeed_profiler() -> Way | None:
    """DeepSpeed's flops profiler, where it is installed."""
    try:
        from deepspeed.profiling.flops_profiler import FlopsProfiler
    except ImportError:
        return None

    @contextmanager
    def attached(model: nn.Module) -> Any:
        profiler = FlopsProfiler(model)
        profiler.start_profile()
        try:
            yield
        finally:
            profiler.end_profile()

    return attached


def live(model: nn.Module) -> Way:
    """`layerbench.time_layers`, entered anew each round around one long-lived set of layers."""
    layers = LiveLayers(model, PerfCounter())
    layers_of[id(model)] = layers
    return lambda _: layers.attached()


layers_of: dict[int, LiveLayers] = {}


def main(
    model: Annotated[str, typer.Option(help="Model spec.")] = "mobilenet_v2",
    input: Annotated[str, typer.Option(help="Input.")] = "1x3x224x224",
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 300,
    warmup: Annotated[int, typer.Option(help="Warm-up rounds.")] = 25,
    slow_every: Annotated[
        int, typer.Option(help="Run the slow ways in one round of this many.")
    ] = 5,
    threads: Annotated[int, typer.Option(help="Intra-op threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
) -> None:
    """Print the cost of timing every layer, from paired interleaved runs."""
    torch.set_num_threads(threads)
    built = zoo.build(zoo.resolve(model, input))
    net = built.module
    ways: dict[str, Way] = {
        "untouched": lambda _: nullcontext(),
        "untouched, once more": lambda _: nullcontext(),
        "layerbench.time_layers": live(net),
        "forward hooks": forward_hooks,
        "torch.profiler, a range per module": torch_profiler,
    }
    deepspeed = deepspeed_profiler()
    if deepspeed:
        ways["DeepSpeed's flops profiler"] = deepspeed
    slow = list(ways)[3:]
    order = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in ways}
    bases: dict[str, list[float]] = {name: [] for name in ways}
    with mode_set(net, training=False), torch.inference_mode():
        for number in range(-warmup, rounds):
            names = [n for n in ways if n not in slow or number % slow_every == 0]
            order.shuffle(names)
            taken = {name: _seconds(ways[name], net, built.args) for name in names}
            if number < 0:
                continue
            for name, seconds in taken.items():
                times[name].append(seconds)
                bases[name].append(taken["untouched"])
    modules = sum(1 for _ in net.modules())
    versions = ", ".join(f"{k} {v}" for k, v in package_versions(("torch", "torchvision")).items())
    print(f"{model} {input}, {modules} modules, {threads} thread(s), {cpu_model()}, {versions}")
    print(tabulate(_rows(times, bases), headers=["way", "rounds", "median ms", "ratio", "95 %"],
                   tablefmt="github", floatfmt=("", "", ".3f", ".4f", "")))  # fmt: skip
    _limits(net, statistics.median(times["untouched"]), modules)


def _seconds(way: Way, net: nn.Module, args: tuple[Any, ...]) -> float:
    """One forward; putting the instrument on and off is not counted."""
    with way(net):
        start = time.perf_counter()
        net(*args)
        return time.perf_counter() - start


def _rows(times: dict[str, list[float]], bases: dict[str, list[float]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, taken in times.items():
        numerator, denominator = np.array(taken), np.array(bases[name])
        ratio, low, high = paired_ratio(numerator, denominator, Resampler([len(taken)]))
        median = statistics.median(taken) * 1e3
        rows.append([name, len(taken), median, ratio, f"[{low:.4f}, {high:.4f}]"])
    return rows


def _limits(net: nn.Module, untouched_s: float, modules: int) -> None:
    mark = mark_cost_s(PerfCounter())
    limit = 1 + 2 * modules * mark / untouched_s
    print(f"limit, two clock readings a module at {mark * 1e9:.0f} ns: {limit:.4f}")
    start = time.perf_counter()
    rows = layers_of[id(net)].rows
    took = time.perf_counter() - start
    print(f"rows of {len(rows)} modules and functions made in {took:.2f} s, after the loop")


if __name__ == "__main__":
    typer.run(main)
