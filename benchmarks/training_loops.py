"""What profiling some steps of a user's own training costs the others, and what it says of them.

    python -m benchmarks.training_loops

Trainings of a small net, 200 steps each. Outside the steps that are profiled, of each two one has
the callback and one has not, in alternating order. The ratio is the median over these pairs, with
its 95 % interval. *Without, once more* leaves the callback away from both. A trainer calls an empty
callback as often as ours, so ours also stands beside one.

Then one model in a loop, beside `layerbench train-profile`'s figures of it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import torchvision
import typer
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import layerbench
from layerbench import units
from layerbench.analysis.statistics import Resampler, paired_ratio
from layerbench.profilers.user_steps import LiveSteps

STEPS = 200
# Every other one of the first steps has the callback, which counts those alone.
START, PROFILED = 50, 10
# The first steps of each training make memory, and so on.
WARMING = 12

WITH, EMPTY, NEITHER = "with / without", "with / an empty callback", "without, once more"
BEFORE, WITHIN, AFTER, OUTSIDE = "before", "within", "after", "outside"

Pairs = list[tuple[float, float]]
"""Seconds of two neighbours, with and without."""


class Turns:
    """Lets one of each two steps have the callback, and notes when each began.

    Args:
        put: gives the loop the callback, or takes it away.
        when: the part of the training that it is in now.
    """

    def __init__(self, put: Callable[[bool], object], when: Callable[[], str]) -> None:
        self._put = put
        self._when = when
        self._began: list[tuple[float, bool, str]] = []

    def begin(self) -> None:
        """A step begins."""
        when = self._when()
        # Neighbours are not alike for other reasons, too: with, without, without, with.
        has = when == WITHIN or len(self._began) % 4 in (0, 3)
        self._put(has)
        self._began.append((perf_counter(), has, when))

    def pairs(self, part: str) -> Pairs:
        """Of the steps in a part of the training, or in all of it but the profiled steps."""
        parts = (BEFORE, AFTER) if part == OUTSIDE else (part,)
        steps = [
            (two[0] - one[0], one[1], one[2] in parts and two[2] == one[2])
            for one, two in pairwise(self._began)
        ]
        steps = steps[WARMING:]
        neighbours = zip(steps[::2], steps[1::2], strict=False)
        return [
            (one[0], two[0]) if one[1] else (two[0], one[0])
            for one, two in neighbours
            if one[1] != two[1] and one[2] and two[2]
        ]


def when_of(live: LiveSteps | None) -> str:
    """The part of a training that a callback's steps are in."""
    if live is None or live.is_over:
        return AFTER
    return BEFORE if live.number < START else WITHIN


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(1152, 10))


def images(number: int) -> TensorDataset:
    return TensorDataset(torch.rand(number, 3, 16, 16), torch.randint(0, 10, (number,)))


def plain(what: str) -> Turns:
    profiled = what == WITH
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    live = LiveSteps(model, [optimizer], skip=START, steps=PROFILED)
    has = [False]
    turns = Turns(lambda one: has.__setitem__(0, one), lambda: when_of(live))
    with live.attached() if profiled else nullcontext():
        for x, y in DataLoader(images(8 * STEPS), batch_size=8):
            turns.begin()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if profiled and has[0]:
                live.step()
    return turns


def listed(callbacks: Callable[[], list[Any]], profiling: Any, other: Any) -> Turns:
    """Turns of a callback in a trainer's list, with another one, if any, in its place.

    One that has taken itself out of the list is not put back: its users have it so, too.
    """
    taken = [False]

    def put(has: bool) -> None:
        there = callbacks()
        if has and taken[0]:
            there.append(profiling)
        elif not has and profiling in there:
            there.remove(profiling)
            taken[0] = True
        if has:
            taken[0] = False
        if other is not None and has == (other in there):
            (there.remove if has else there.append)(other)

    return Turns(put, lambda: when_of(profiling and profiling._profiled.live))


def lightning(what: str) -> Turns:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    class Timing(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            turns.begin()

    profiling = None if what == NEITHER else layerbench.Callback(START, PROFILED, None)
    other = pl.Callback() if what == EMPTY else None
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Timing(), *([] if profiling is None else [profiling])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    turns = listed(lambda: trainer.callbacks, profiling, other)
    trainer.fit(Module(), DataLoader(images(8 * STEPS), batch_size=8))
    return turns


def transformers(what: str) -> Turns:
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            output = self.net(x)
            return {"loss": nn.functional.cross_entropy(output, labels), "logits": output}

    class Timing(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.begin()

    data = [{"x": x, "labels": y} for x, y in images(8 * STEPS)]
    profiling = None if what == NEITHER else layerbench.TrainerCallback(START, PROFILED, None)
    other = TrainerCallback() if what == EMPTY else None
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            use_cpu=True,
            disable_tqdm=True,
            per_device_train_batch_size=8,
            num_train_epochs=1,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            remove_unused_columns=False,
        )
        callbacks = [Timing(), *([] if profiling is None else [profiling])]
        trainer = Trainer(Module(), arguments, train_dataset=data, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        turns = listed(lambda: trainer.callback_handler.callbacks, profiling, other)
        trainer.train()
    return turns


def main(
    trainings: Annotated[int, typer.Option(help="Of each kind.")] = 8,
    rounds: Annotated[int, typer.Option(help="Of the model that is profiled both ways.")] = 6,
) -> None:
    """Print a row for each loop, then the phases of one model from both."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for name, run in (("plain", plain), ("Lightning", lightning), ("transformers", transformers)):
        run(WITH)
        for what in (WITH, NEITHER) if run is plain else (WITH, EMPTY, NEITHER):
            turns = [run(what) for _ in range(trainings)]
            for part in (OUTSIDE, BEFORE, AFTER) if what == WITH else (OUTSIDE,):
                rows.append([name, what, part, *compared([each.pairs(part) for each in turns])])
    header = ["loop", "", "steps", "step without", "pairs", "ratio", "95 %"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True), end="\n\n")
    print(both(rounds))


def compared(trainings: list[Pairs]) -> list[object]:
    """The cells of a row: a step without, pairs, the ratio and its interval."""
    found = [pair for pairs in trainings for pair in pairs]
    one, two = np.array(found).T
    ratio, low, high = paired_ratio(one, two, Resampler([len(found)]))
    step = units.seconds(float(np.median(two)))
    return [step, len(found), f"{ratio:.4f}", f"{low:.4f} to {high:.4f}"]


def both(rounds: int) -> str:
    """A model's phases in a loop of one's own, and in a training profile."""
    built = layerbench.profile_training(
        "resnet18", "8x3x64x64", device="cpu", threads=1, iterations=rounds
    )
    model = torchvision.models.resnet18()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    number = 8 * (2 * rounds + 6)
    data = TensorDataset(torch.rand(number, 3, 64, 64), torch.zeros(number).long())
    with layerbench.profile_steps(model, optimizer, skip=5, steps=2 * rounds) as live:
        for x, y in DataLoader(data, batch_size=8):
            output = model(x)
            loss = nn.functional.cross_entropy(output, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            live.step()
    rows = []
    for name, found in (("own loop", live.record), ("train-profile", built)):
        times = {phase.name: phase.time.median for phase in found.phases}
        rows.append(
            [
                name,
                *(units.seconds(times[name]) for name in ("forward", "backward", "optimizer")),
                f"{found.overhead:.3f}",
                f"{found.overhead_low:.3f} to {found.overhead_high:.3f}",
                units.bytes_(found.memory.peak.bytes) if found.memory else "-",
            ]
        )
    header = ["resnet18 8x3x64x64", "forward", "backward", "optimizer", "instrumented / untouched"]
    return tabulate(rows, [*header, "95 %", "peak"], tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    typer.run(main)
