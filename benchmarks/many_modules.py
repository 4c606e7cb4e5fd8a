"""What a call costs beyond the forwards, by the number of modules.

A model of small residual blocks, two layers each, in a ``ModuleList``: its forward takes
milliseconds, so that what is seen is the work for each module and row. Seconds are those of the
processor (`time.process_time`), which neighbours disturb least, with the report as text. Beyond the
forwards: less as many forwards, or training steps, as the call made, each as long as a bare one; a
structure's forward is one on the meta device.

    python -m benchmarks.many_modules --sizes 6001,12001,25001,50001
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.records.workload import Frozen

ROUNDS = {"warmup": 1, "iterations": 3, "threads": 1}


class Block(nn.Module):
    """Two layers and an addition: three modules, one function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(2, 2), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both layers, and the input added."""
        return x + self.act(self.fc(x))


class Net(nn.Module):
    """Blocks one after the other."""

    def __init__(self, modules: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range((modules - 2) // 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All blocks in order."""
        for block in self.blocks:
            x = block(x)
        return x


CALLS: dict[str, Callable[[nn.Module, torch.Tensor], Frozen]] = {
    "structure": layerbench.structure,
    "memory": layerbench.memory,
    "profile": lambda m, x: layerbench.profile(m, x, function_iterations=3, **ROUNDS),
    "profile_training": lambda m, x: layerbench.profile_training(m, x, **ROUNDS),
}


# One to look, two in each of the four rounds, one and three for functions; of a training two more
# steps with memory traced.
FORWARDS = {"structure": 1, "memory": 1, "profile": 13, "profile_training": 11}


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of modules.")] = "6001,12001,25001,50001",
    calls: Annotated[str, typer.Option(help="Which calls.")] = ",".join(CALLS),
) -> None:
    """Print a row for each size and call."""
    torch.set_num_threads(1)
    for name in calls.split(","):
        _measure(name, 301)  # loads what the call loads once
    print(f"{'modules':>8}  {'call':<16}  {'CPU s':>7}  {'forwards':>8}  {'beyond s':>8}")
    for size in map(int, sizes.split(",")):
        for name in calls.split(","):
            taken, forwards, bare = _measure(name, size)
            beyond = taken - forwards * bare
            print(f"{size:8,}  {name:<16}  {taken:7.2f}  {forwards:8}  {beyond:8.2f}", flush=True)


def _measure(name: str, size: int) -> tuple[float, int, float]:
    """CPU seconds of a call with its text, forwards in it, and CPU seconds of a bare one."""
    model, x = Net(size).eval(), torch.rand(2, 2)
    bare = _bare(name, size)
    start = time.process_time()
    reporters.render("txt", CALLS[name](model, x))
    return time.process_time() - start, FORWARDS[name], bare


def _bare(name: str, size: int) -> float:
    device = "meta" if name == "structure" else "cpu"
    model, x = Net(size).to(device), torch.rand(2, 2, device=device)
    times = []
    for _ in range(3):
        start = time.process_time()
        with torch.set_grad_enabled(name.endswith("training")):
            output = model(x)
        if name.endswith("training"):
            output.square().mean().backward()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    typer.run(main)
