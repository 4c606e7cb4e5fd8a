"""What profiling some steps of a user's own training costs the others, and what it says of them.

    python -m benchmarks.training_loops

Trainings of a small net, 200 steps each. Outside the steps that are profiled, of each eight steps
in a row four have the callback and four have not. The ratio is the median over these eights, with
its 95 % interval. *Without, once more* leaves the callback away from all. Beside an
empty callback, which a trainer calls several times a step, ours comes out below one.

Then one model in a loop, beside `layerbench train-profile`'s figures of it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from math import fsum
from random import Random
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
WARMING = 16

WITH, EMPTY, NEITHER = "with / without", "with / an empty callback", "without, once more"
BEFORE, WITHIN, AFTER, OUTSIDE = "before", "within", "after", "outside"

Eights = list[tuple[float, ...]]
"""Seconds of eight steps in a row: of the four with, and of the four without."""

# Which of eight steps in a row have the callback, or have not: a drift is the same for both.
DICE = Random(0)
PATTERN = (True, False, False, True, False, True, True, False)


class Turns:
    """Lets four of each eight steps have the callback, and notes when each began.

    Args:
        when: the part of the training that it is in now.
        put: what else there is to do for a step that has it, and for one that has not.

    Attributes:
        has: whether the step that has begun has the callback.
    """

    def __init__(
        self, when: Callable[[], str], put: Callable[[bool], object] = lambda _: None
    ) -> None:
        self._put = put
        self._when = when
        self._began: list[tuple[float, str, bool]] = []
        self._turned = False
        self.has = True

    def begin(self) -> None:
        """A step begins."""
        when = self._when()
        at = len(self._began) % len(PATTERN)
        if at == 0:
            # By chance: what the steps of all trainings have in common, as Python's collections
            # of garbage at the same ones of them, would count for one side alone.
            self._turned = DICE.random() < 0.5
        self.has = when == WITHIN or PATTERN[at] != self._turned
        self._put(self.has)
        self._began.append((perf_counter(), when, self.has))

    def eights(self, part: str) -> Eights:
        """Of the steps in a part of the training, or in all of it but the profiled steps."""
        parts = (BEFORE, AFTER) if part == OUTSIDE else (part,)
        steps = [
            (two[0] - one[0], one[2], one[1] in parts and two[1] == one[1])
            for one, two in pairwise(self._began)
        ]
        size = len(PATTERN)
        found = [steps[at : at + size] for at in range(WARMING, len(steps) - size + 1, size)]
        return [
            tuple(fsum(time for time, has, _ in eight if has == wanted) for wanted in (True, False))
            for eight in found
            if all(counts for _, _, counts in eight)
        ]


def when_of(live: LiveSteps | None) -> str:
    """The part of a training that a callback's steps are in."""
    if live is None or live.is_over:
        return AFTER
    return BEFORE if live._window is None else WITHIN


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
    turns = Turns(lambda: when_of(live))
    with live.attached() if profiled else nullcontext():
        for x, y in DataLoader(images(8 * STEPS), batch_size=8):
            turns.begin()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if profiled and turns.has:
                live.step()
    return turns


def turns_of(profiling: Any, other: Any, callbacks: Callable[[], list[Any]]) -> Turns:
    """Turns of a callback, with another one, if any, in the trainer's list in its place."""

    def put(has: bool) -> None:
        there = callbacks()
        if other is not None and has == (other in there):
            (there.remove if has else there.append)(other)

    return Turns(lambda: when_of(profiling and profiling._profiled.live), put)


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
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            loop = trainer.fit_loop.epoch_loop
            ours, bare = loop.advance, type(loop).advance.__get__(loop)

            def advance(*args: Any) -> Any:
                turns.begin()
                return (ours if turns.has else bare)(*args)

            loop.advance = advance

    profiling = None if what == NEITHER else layerbench.Callback(START, PROFILED, None)
    other = pl.Callback() if what == EMPTY else None
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[*([] if profiling is None else [profiling]), Timing()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    turns = turns_of(profiling, other, lambda: trainer.callbacks)
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
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            handler = trainer.callback_handler
            ours, bare = handler.on_step_end, type(handler).on_step_end.__get__(handler)

            def on_step_end(*args: Any) -> Any:
                return (ours if turns.has else bare)(*args)

            handler.on_step_end = on_step_end

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
        callbacks = [*([] if profiling is None else [profiling]), Timing()]
        trainer = Trainer(Module(), arguments, train_dataset=data, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        turns = turns_of(profiling, other, lambda: trainer.callback_handler.callbacks)
        trainer.train()
    return turns


def main(
    trainings: Annotated[int, typer.Option(help="Of each kind.")] = 20,
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
                rows.append([name, what, part, *compared([each.eights(part) for each in turns])])
    header = ["loop", "", "steps", "step without", "eights", "ratio", "95 %"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True), end="\n\n")
    print(both(rounds))


def compared(trainings: list[Eights]) -> list[object]:
    """The cells of a row: a step without, eights, the ratio and its interval."""
    found = [eight for eights in trainings for eight in eights]
    one, two = np.array(found).T
    ratio, low, high = paired_ratio(one, two, Resampler([len(found)]))
    step = units.seconds(float(np.median(two)) / 4)
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
