"""The callback in trainings that Lightning runs: known times, and nothing left behind."""

from __future__ import annotations

import csv
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import layerbench
from layerbench.environment.devices.clocks import ManualClock
from layerbench.environment.devices.cpu import Cpu
from layerbench.errors import OutputError, UsageError
from tests.support.timed_training import ROWS, Batches, everywhere, net, phases, rows, slow

pl = pytest.importorskip("lightning.pytorch")
loggers = pytest.importorskip("lightning.pytorch.loggers")

# The forward is `training_step`, with its loss; gradients are cleared before the backward.
PHASES = {"data": 7, "copy": 0, "forward": 73, "loss": 0, "backward": 6, "optimizer": 19}
OURS = ("training_step", "forward", "zero_grad", "__getstate__")


@pytest.fixture(autouse=True)
def quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "disabled", True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr(Cpu, "clock", lambda self: clock)
    return clock


class Lit(pl.LightningModule):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.net = net(clock)
        self.clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        output = self(batch)
        self.clock.advance(13)
        return output.square().mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.clock.advance(1000)
        self.log("val", self(batch).mean())

    def configure_optimizers(self) -> Any:
        optimizer = slow(self, self.clock)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Looking(pl.Callback):
    """Notes at the begin of each batch whether anything lies on the model."""

    def __init__(self, raising_at: int | None = None) -> None:
        self.bare: list[bool] = []
        self.raising_at = raising_at

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = self.everything(trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, at: int) -> None:
        self.bare.append(self.everything(trainer, pl_module) == self.before)
        if len(self.bare) - 1 == self.raising_at:
            raise ValueError("in a callback")

    @staticmethod
    def everything(trainer: Any, pl_module: Any) -> list[dict[str, Any]]:
        # Lightning writes to its own module all the time.
        own = {name: vars(pl_module)[name] for name in OURS if name in vars(pl_module)}
        return [own, *everywhere(pl_module.net, *trainer.optimizers)]


def trainer_of(tmp_path: Path, *callbacks: Any, **options: Any) -> Any:
    usual = {"max_epochs": 1, "logger": False, "num_sanity_val_steps": 0}
    usual |= {"enable_checkpointing": False, **options}
    return pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **usual,
    )


def in_net(times: dict[str, tuple[int, int, int]], often: int = 1) -> dict[str, Any]:
    """The rows of `net` as a part of the model, whose own rows hold the loss."""
    return {
        f"net.{path}" if path else "net": (calls, often * there, often * back)
        for path, (calls, there, back) in times.items()
    }


def test_known_times_with_validation_in_the_middle_of_several_epochs(clock, tmp_path) -> None:
    torch.manual_seed(0)
    model, looking = Lit(clock), Looking()
    callback = layerbench.Callback(start=2, steps=4, out=tmp_path / "reports")
    csv_logger = loggers.CSVLogger(tmp_path, name="csv")
    board = loggers.TensorBoardLogger(tmp_path, name="board")
    trainer = trainer_of(
        tmp_path,
        looking,
        callback,
        logger=[csv_logger, board],
        max_epochs=3,
        val_check_interval=2,
        limit_val_batches=2,
        log_every_n_steps=1,
    )
    trainer.fit(model, DataLoader(Batches(clock, 4)), DataLoader(Batches(clock, 4)))
    record = callback.record
    assert record is not None
    assert phases(record) == PHASES
    assert rows(record) == {"": (1, 73, 6), **in_net(ROWS)}
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    assert (record.workload.model, record.workload.shape) == ("Lit", (1, 4))
    # Passed over: 0 and 1; looked at: 2; timed: 3 to 6.
    assert looking.bare == [True] * 2 + [False] * 5 + [True] * 5
    assert Looking.everything(trainer, model) == looking.before
    text, data = callback.written
    assert layerbench.read(data) == record
    assert "a training step" in text.read_text()
    (logged,) = [row for row in read_csv(csv_logger) if row.get("layerbench/step_s")]
    assert float(logged["layerbench/step_s"]) == record.step.median
    assert float(logged["layerbench/backward_s"]) == 6e-9
    assert int(logged["step"]) == 7
    assert of_board(board, "layerbench/forward_s") == [(7, pytest.approx(73e-9))]


def read_csv(logger: Any) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def of_board(logger: Any, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.log_dir)
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_accumulated_gradients_are_micro_batches(clock, tmp_path) -> None:
    callback = layerbench.Callback(start=1, steps=2, out=None)
    trainer = trainer_of(tmp_path, callback, accumulate_grad_batches=3)
    trainer.fit(Lit(clock), DataLoader(Batches(clock, 18)))
    record = callback.record
    assert record is not None
    assert record.workload.gradient_accumulation == 3
    assert phases(record) == {
        name: time if name == "optimizer" else 3 * time for name, time in PHASES.items()
    }
    assert rows(record) == {"": (1, 3 * 73, 18), **in_net(ROWS, 3)}
    assert callback.written == ()


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_an_exception_leaves_nothing_behind_but_what_there_is(at: int, clock, tmp_path) -> None:
    """Before, in the step that is looked at, in one with marks alone, one with its layers timed."""
    model, looking = Lit(clock), Looking(raising_at=at)
    callback = layerbench.Callback(start=2, steps=4, out=tmp_path / "reports")
    trainer = trainer_of(tmp_path, looking, callback)
    with pytest.raises(ValueError, match="in a callback"):
        trainer.fit(model, DataLoader(Batches(clock)))
    assert looking.bare[-1] is (at < 2)
    assert Looking.everything(trainer, model) == looking.before
    check_kept(callback, at)


def check_kept(callback: Any, at: int) -> None:
    """What had been profiled before step ``at`` is there: one looked at, two timed."""
    if at < 5:
        assert (callback.record, callback.written) == (None, ())
    else:
        assert callback.record.step.n == 1
        assert layerbench.read(callback.written[1]) == callback.record


def test_each_fit_is_profiled_anew(clock, tmp_path) -> None:
    """A training that is shorter than its steps tells what there is, or that there is nothing."""
    model = Lit(clock)
    callback = layerbench.Callback(start=1, steps=6, out=tmp_path)
    for batches, rounds in ((8, 3), (5, 1), (20, 3)):
        trainer_of(tmp_path, callback).fit(model, DataLoader(Batches(clock, batches)))
        assert callback.record is not None
        assert callback.record.step.n == rounds
        assert layerbench.read(callback.written[1]) == callback.record
    with pytest.warns(UserWarning, match="no training step was profiled: .*at least three steps"):
        trainer_of(tmp_path, callback).fit(model, DataLoader(Batches(clock, 2)))
    assert (callback.record, callback.written) == (None, ())
    with pytest.warns(UserWarning, match="ended after 2 of the 50 steps .*; give a smaller start"):
        trainer_of(tmp_path, layerbench.Callback()).fit(model, DataLoader(Batches(clock, 2)))


def test_a_training_that_goes_on_counts_its_own_steps(clock, tmp_path) -> None:
    saving = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="last")
    loader = DataLoader(Batches(clock, 6))
    trainer_of(tmp_path, saving, enable_checkpointing=True).fit(Lit(clock), loader)
    looking, callback = Looking(), layerbench.Callback(start=2, steps=2, out=None)
    trainer = trainer_of(tmp_path, looking, callback, max_epochs=2)
    trainer.fit(Lit(clock), loader, ckpt_path=tmp_path / "last.ckpt")
    assert looking.bare == [True] * 2 + [False] * 3 + [True]
    assert callback.record is not None
    assert phases(callback.record) == PHASES


@pytest.mark.parametrize("raising_at", [None, 6])
def test_lightning_has_nothing_to_call_within_an_epoch(raising_at, clock, tmp_path) -> None:
    """It comes back to its place; one of a derived class may have hooks of its own."""

    class Derived(layerbench.Callback):
        pass

    class Listed(pl.Callback):
        """Notes where the two stand in the trainer's list as each batch and epoch begins."""

        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            there = trainer.callbacks
            places.append([there.index(one) if one in there else None for one in both])

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.on_train_epoch_start(trainer)
            if trainer.global_step == raising_at:
                raise ValueError("in a callback")

    ours, derived = both = [
        kind(start=1, steps=2, out=None, memory=False) for kind in (layerbench.Callback, Derived)
    ]
    for _ in range(2):
        places: list[list[int | None]] = []
        trainer = trainer_of(tmp_path, ours, Listed(), derived, max_epochs=2)
        there = list(trainer.callbacks)
        before = [set(vars(loop)) for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop)]
        with nullcontext() if raising_at is None else pytest.raises(ValueError, match="in a"):
            trainer.fit(Lit(clock), DataLoader(Batches(clock, 4)))
        assert trainer.callbacks == there
        left = [set(vars(loop)) for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop)]
        assert left == before
        number = 4 if raising_at is None else 3
        assert places == [[0, 2], *[[None, 1]] * 4, [0, 2], *[[None, 1]] * number]
        assert [one.record is not None for one in both] == [True, True]


def test_a_step_that_is_decorated_takes_what_it_takes(clock, tmp_path) -> None:
    class Decorated(Lit):
        @torch.autocast("cpu", enabled=False)
        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            return super().training_step(batch)

    callback = layerbench.Callback(start=1, steps=2, out=None)
    trainer_of(tmp_path, callback).fit(Decorated(clock), DataLoader(Batches(clock, 6)))
    assert callback.record is not None
    assert phases(callback.record) == PHASES


class Adversaries(Lit):
    """Two optimizers, which the module steps itself."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.automatic_optimization = False
        self.other = net(clock)

    def training_step(self, batch: torch.Tensor) -> None:
        for optimizer, model in zip(self.optimizers(), (self.net, self.other), strict=True):
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [slow(model, self.clock) for model in (self.net, self.other)]


def test_a_module_that_optimizes_by_itself(clock, tmp_path) -> None:
    callback = layerbench.Callback(start=1, steps=2, out=None)
    trainer_of(tmp_path, callback).fit(Adversaries(clock), DataLoader(Batches(clock, 6)))
    record = callback.record
    assert record is not None
    found = phases(record)
    assert (found["forward"], found["backward"], found["data"]) == (120, 12, 7)
    assert rows(record)["net.2"] == (1, 20, 2)
    assert rows(record)["other.3"] == (1, 30, 3)


class Twice(Adversaries):
    """One optimizer, which makes two steps in each batch."""

    def training_step(self, batch: torch.Tensor) -> None:
        for _ in range(2):
            loss = self.net(batch).square().mean()
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()

    def configure_optimizers(self) -> Any:
        return slow(self.net, self.clock)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4])
def test_an_optimizer_that_steps_twice_in_a_batch(start: int, clock, tmp_path) -> None:
    looking, callback = Looking(), layerbench.Callback(start=start, steps=2, out=None)
    trainer = trainer_of(tmp_path, looking, callback)
    trainer.fit(Twice(clock), DataLoader(Batches(clock, 9)))
    assert callback.record is not None
    assert looking.bare == [*[True] * start, *[False] * 3, *[True] * (6 - start)]


def test_the_first_process_alone_does_it(clock, tmp_path, monkeypatch) -> None:
    looking, callback = Looking(), layerbench.Callback(start=0, steps=2, out=tmp_path / "reports")
    trainer = trainer_of(tmp_path, looking, callback)
    monkeypatch.setattr(type(trainer.strategy), "is_global_zero", False)
    trainer.fit(Lit(clock), DataLoader(Batches(clock, 5)))
    assert looking.bare == [True] * 5
    assert callback.record is None
    assert not (tmp_path / "reports").exists()


def test_training_is_as_without(clock, tmp_path) -> None:
    made = []
    for callbacks in ([], [layerbench.Callback(start=1, steps=4, out=None)]):
        torch.manual_seed(0)
        model = Lit(clock)
        trainer_of(tmp_path, *callbacks).fit(model, DataLoader(Batches(clock, 9)))
        made.append(model.net[0].weight)
    assert torch.equal(*made)


def test_a_folder_that_cannot_be_written_to_is_told_before_the_training(clock, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    callback = layerbench.Callback(out=tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write"):
        trainer_of(tmp_path, callback).fit(Lit(clock), DataLoader(Batches(clock, 5)))


@pytest.mark.parametrize("wrong", [{"start": -1}, {"steps": 1}, {"steps": 2.5}])
def test_what_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        layerbench.Callback(**wrong)


def test_either_package_is_its_host(monkeypatch) -> None:
    from layerbench.integrations import lightning

    class Other:
        pass

    assert lightning.callbacks_of_hosts() == (pl.Callback,)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", SimpleNamespace(Callback=Other))
    assert lightning.callbacks_of_hosts() == (pl.Callback, Other)
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    assert lightning.callbacks_of_hosts() == (Other,)


def test_without_lightning_it_says_how_to_install_it(monkeypatch) -> None:
    from layerbench.integrations import lightning

    for name in lightning.HOSTS:
        monkeypatch.setitem(sys.modules, name, None)
    says = r"layerbench.Callback needs Lightning: pip install 'layerbench\[lightning\]'"
    with pytest.raises(UsageError, match=says):
        lightning.callbacks_of_hosts()
