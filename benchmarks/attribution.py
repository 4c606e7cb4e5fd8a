"""Whether kernels are given to the module that launched them, and how long that takes to work out.

    python -m benchmarks.attribution

There is no GPU here, so the innermost operators that the CPU runs stand in for kernels. Which
module runs one is told twice: by the ranges of `layerbench.instruments.kernel_timer`, and by a
stack that forward hooks keep, from which every operator gets a range of its own as it is called.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import get_model, list_models

from layerbench.environment import devices
from layerbench.instruments.kernel_timer import KernelTimer, in_root, profiled
from layerbench.instruments.kernels import RANGE, HostEvent, Kernel, added_up, events_of
from layerbench.instruments.modules import named_instances

TRUTH = "truth:"
SIDES = {"inception_v3": 96}
SIDE = 64


@dataclass(frozen=True)
class Attributed:
    """One model's forward.

    Attributes:
        right_ns, all_ns: time of the operators given to the right module, and of all.
        right, operators: their numbers.
    """

    model: str
    right_ns: int
    all_ns: int
    right: int
    operators: int

    @property
    def share(self) -> float:
        """Of the time, the part that is in the right place."""
        return self.right_ns / self.all_ns


class Telling(TorchDispatchMode):
    """Puts a range that names the running module around every operator.

    Args:
        running: indices of the running modules, the innermost last.
    """

    def __init__(self, running: Sequence[int]) -> None:
        super().__init__()
        self._running = running

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with record_function(f"{TRUTH}{self._running[-1]}"):
            return func(*args, **(kwargs or {}))


@contextmanager
def stack_kept(model: nn.Module) -> Iterator[list[int]]:
    """The indices of the running modules, by forward hooks."""
    running = [0]
    with ExitStack() as hooks:
        for index, (path, module) in enumerate(named_instances(model).items()):
            if path:
                hooks.callback(
                    module.register_forward_pre_hook(
                        lambda *_, index=index: running.append(index)
                    ).remove
                )
                hooks.callback(module.register_forward_hook(lambda *_: _gone(running)).remove)
        yield running


def _gone(running: list[int]) -> None:
    running.pop()


def attributed(name: str, model: nn.Module, images: torch.Tensor) -> Attributed:
    """Run one forward and compare both accounts."""
    device = devices.get("cpu")
    paths = list(named_instances(model))
    timer = KernelTimer(model, paths, frozenset(paths), device)
    # What `KernelTimer.run` does, but for what it makes of the events.
    with torch.no_grad(), stack_kept(model) as running, timer.ranges():

        def forward() -> None:
            with Telling(running):
                in_root(lambda: model(images), device)()

        results = profiled(forward, device)
    host, _ = events_of(results)
    kernels, truth = stand_ins(host)
    without = [event for event in host if not event.name.startswith(TRUTH)]
    account = added_up(without, kernels, len(paths)).kernels
    right = {key.kernel: run for key, run in account.items() if truth[key.kernel] == key.module}
    return Attributed(
        model=name,
        right_ns=sum(time_ns for _, time_ns in right.values()),
        all_ns=sum(time_ns for _, time_ns in account.values()),
        right=len(right),
        operators=len(account),
    )


def stand_ins(host: Sequence[HostEvent]) -> tuple[list[Kernel], dict[str, int]]:
    """The innermost operators as kernels, each with a name of its own; by that name its module.

    Args:
        host: operators, and ranges of both kinds.
    """
    kernels: list[Kernel] = []
    truth: dict[str, int] = {}
    in_order = sorted(host, key=lambda event: (event.start_ns, -event.end_ns))
    told: list[HostEvent] = []
    for event, following in zip(in_order, [*in_order[1:], None], strict=True):
        told = [one for one in told if one.end_ns > event.start_ns]
        if event.name.startswith(TRUTH):
            told.append(event)
            continue
        inner = following is not None and following.start_ns < event.end_ns
        if event.name.startswith(RANGE) or inner or not told:
            continue
        name = f"{event.name} {event.number}"
        kernels.append(Kernel(name, event.number, event.start_ns, event.end_ns))
        truth[name] = int(told[-1].name[len(TRUTH) :])
    return kernels, truth


def classifiers() -> list[str]:
    """Every model for images that torchvision has."""
    import torchvision.models as module

    return list(list_models(module=module))


def of_all(names: Sequence[str]) -> Iterator[Attributed]:
    """Each in turn, with random weights."""
    for name in names:
        side = SIDES.get(name, 224 if name.startswith(("vit", "swin", "maxvit")) else SIDE)
        model = get_model(name, weights=None).eval()
        yield attributed(name, model, torch.rand(1, 3, side, side))


def seconds_to_work_out(repeats: int = 9) -> tuple[int, float]:
    """Operators of a MobileNet-V2's forward, and the median time to make its account of them."""
    device = devices.get("cpu")
    model = get_model("mobilenet_v2", weights=None).eval()
    paths = list(named_instances(model))
    timer = KernelTimer(model, paths, frozenset(paths), device)
    images = torch.rand(1, 3, SIDE, SIDE)
    taken, counts = [], Counter[int]()
    with torch.no_grad(), timer.ranges():
        for _ in range(repeats):
            results = profiled(in_root(lambda: model(images), device), device)
            begin = time.thread_time()
            host, _ = events_of(results)
            operators = [event for event in host if not event.name.startswith(RANGE)]
            between = time.thread_time() - begin
            kernels = [
                Kernel(event.name, event.number, event.start_ns, event.end_ns)
                for event in operators
            ]
            begin = time.thread_time()
            added_up(host, kernels, len(paths))
            taken.append(between + time.thread_time() - begin)
            counts[len(operators)] += 1
    return counts.most_common(1)[0][0], statistics.median(taken)


def main(
    models: Annotated[
        list[str] | None, typer.Argument(help="All classifiers unless named.")
    ] = None,
) -> None:
    """Print a line a model that is not all right, and one for all."""
    every = []
    for one in of_all(models or classifiers()):
        every.append(one)
        if one.right < one.operators:
            print(f"{one.model}: {one.right} of {one.operators} operators, {one.share:.2%} of time")
    total = sum(one.all_ns for one in every)
    share = sum(one.right_ns for one in every) / total
    operators = sum(one.operators for one in every)
    right = sum(one.right for one in every)
    least = min(every, key=lambda one: one.share)
    print(
        f"{len(every)} models: {share:.3%} of time and {right} of {operators} operators given to "
        f"the right module; the least {least.share:.2%} ({least.model})"
    )
    count, seconds = seconds_to_work_out()
    print(f"a device round of {count} operators is worked out in {seconds * 1e3:.1f} ms")


if __name__ == "__main__":
    typer.run(main)
