"""A training whose parts take known times on a manual clock, and what lies on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as checkpoints
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from layerbench.environment.devices.clocks import ManualClock
from layerbench.records.training_step import TrainingProfile
from tests.instruments.test_step_timer import Takes

ROWS = {
    "": (1, 60, 6),
    "0": (1, 0, 0),
    "1": (1, 10, 1),
    "2": (1, 20, 2),
    "2.0": (1, 20, 2),
    "2.1": (1, 0, 0),
    "3": (1, 30, 3),
}
"""Calls of the modules of `net`, and nanoseconds forward and backward."""
DATA, UPDATE, CLEAR = 7, 17, 2


class Batches(Dataset[torch.Tensor]):
    """Each takes `DATA` to load."""

    def __init__(self, clock: ManualClock, number: int = 100) -> None:
        self.clock, self.number = clock, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> torch.Tensor:
        self.clock.advance(DATA)
        return torch.full((4,), float(index + 1))


class Slow(torch.optim.SGD):
    """Whose update takes `UPDATE`, and clearing `CLEAR`."""

    clock: ManualClock

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.clock.advance(UPDATE)
        super().step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.clock.advance(CLEAR)
        super().zero_grad(set_to_none)


def net(clock: ManualClock) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 4),
        Takes(clock, 10, 1),
        nn.Sequential(Takes(clock, 20, 2), nn.ReLU(inplace=True)),
        Takes(clock, 30, 3),
    )


def slow(model: nn.Module, clock: ManualClock) -> Slow:
    optimizer = Slow(model.parameters(), lr=1e-3)
    optimizer.clock = clock
    return optimizer


def phases(record: TrainingProfile) -> dict[str, int]:
    """Nanoseconds; of each phase all steps took the same."""
    for phase in record.phases:
        assert phase.time.std == 0
    return {phase.name: round(phase.time.median * 1e9) for phase in record.phases}


def rows(record: TrainingProfile) -> dict[str, tuple[int, int, int]]:
    """Calls, and nanoseconds forward and backward."""
    return {
        row.path: (row.calls, round(row.forward.median * 1e9), round(row.backward.median * 1e9))
        for row in record.rows
        if row.forward is not None and row.backward is not None
    }


def everywhere(model: nn.Module, *optimizers: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """All that the parts of a loop hold themselves, and what lies where they call it."""
    return [
        *(
            {**module.__dict__, "hooks": [*module._forward_hooks, *module._backward_hooks]}
            for module in model.modules()
        ),
        *(
            {
                # A scheduler notes there that a step has been made.
                **{name: it for name, it in vars(optimizer).items() if name != "_opt_called"},
                "before": list(optimizer._optimizer_step_pre_hooks),
                "after": list(optimizer._optimizer_step_post_hooks),
            }
            for optimizer in optimizers
        ),
        {"backward": torch.autograd.backward, "next": _BaseDataLoaderIter.__next__},
        {"scaler": torch.amp.GradScaler.step, "apply": CheckpointFunction.apply},
        {"modes": _get_current_dispatch_mode_stack(), "autocast": torch.set_autocast_enabled},
        {"random": torch.get_rng_state, "compile": torch.compile},
        {"checkpoint": {**vars(checkpoints)}, "frames": torch._dynamo.eval_frame.set_eval_frame},
    ]
