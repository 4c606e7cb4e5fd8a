"""The callback in trainings that the Trainer of transformers runs: known times, nothing left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import layerbench
from layerbench.environment.devices.clocks import ManualClock
from layerbench.environment.devices.cpu import Cpu
from layerbench.errors import OutputError, UsageError
from tests.integrations.test_lightning import check_kept, in_net, of_board
from tests.support.timed_training import ROWS, Batches, everywhere, net, phases, rows, slow

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
if not transformers.utils.is_torch_available():
    pytest.skip("this transformers does not take this torch", allow_module_level=True)

# The loss is made in the forward; the trainer clears gradients by the model.
PHASES = {"data": 7, "copy": 0, "forward": 73, "loss": 0, "backward": 6, "optimizer": 17}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)
    # A test before, of a model in a file, may have put this project's folders on the path: the
    # Trainer takes tests/datasets for the package of that name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr(Cpu, "clock", lambda self: clock)
    return clock


class Named(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, clock: ManualClock, number: int) -> None:
        self.batches = Batches(clock, number)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.batches[index]}


class Model(nn.Module):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.net = net(clock)
        self.clock = clock

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        output = self.net(x)
        self.clock.advance(13)
        return {"loss": output.square().mean(), "logits": output}


class Squares(nn.Module):
    """One that can be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        output = self.net(x)
        return {"loss": output.square().mean(), "logits": output}


def attached(model: nn.Module, optimizer: Any) -> list[dict[str, Any]]:
    """All but the mode: after an evaluation the trainer puts the model into training late."""
    every = everywhere(model, optimizer.optimizer)
    return [{name: it for name, it in one.items() if name != "training"} for one in every]


class Looking(transformers.TrainerCallback):
    """Notes as each step begins whether anything lies on the model."""

    def __init__(self, raising_at: int | None = None, raising_epoch: int | None = None) -> None:
        self.bare: list[bool] = []
        self.bare_between: list[bool] = []
        self.raising_at, self.raising_epoch = raising_at, raising_epoch

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = attached(kwargs["model"], kwargs["optimizer"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bare.append(self.is_bare(kwargs))
        if len(self.bare) - 1 == self.raising_at:
            raise ValueError("in a callback")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bare_between.append(self.is_bare(kwargs))
        if len(self.bare_between) - 1 == self.raising_epoch:
            raise ValueError("in a callback")

    def is_bare(self, kwargs: dict[str, Any]) -> bool:
        return attached(kwargs["model"], kwargs["optimizer"]) == self.before


def trainer_of(
    clock: ManualClock,
    tmp_path: Path,
    number: int,
    *callbacks: Any,
    model: nn.Module | None = None,
    **more: Any,
) -> Any:
    usual = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "report_to": []}
    arguments = transformers.TrainingArguments(
        str(tmp_path / "outputs"),
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **{"save_strategy": "no", **usual, **more},
    )
    model = model or Model(clock)
    return transformers.Trainer(
        model,
        arguments,
        train_dataset=Named(clock, number),
        eval_dataset=Named(clock, 2),
        optimizers=(slow(model, clock), None),
        callbacks=list(callbacks),
    )


def test_known_times_with_evaluation_in_the_middle_of_several_epochs(clock, tmp_path) -> None:
    looking = Looking()
    callback = layerbench.TrainerCallback(start=2, steps=4, out=tmp_path / "reports")
    trainer = trainer_of(
        clock,
        tmp_path,
        8,
        looking,
        callback,
        num_train_epochs=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        report_to=["tensorboard"],
    )
    trainer.train()
    record = callback.record
    assert record is not None
    assert phases(record) == PHASES
    assert rows(record) == {"": (1, 73, 6), **in_net(ROWS)}
    assert (record.forward_sum_ratio, record.backward_sum_ratio) == (1, 1)
    # Passed over: 0 and 1; looked at: 2; timed: 3 to 6.
    assert looking.bare == [True] * 2 + [False] * 5 + [True] * 9
    assert looking.bare_between == [True] * 2
    assert attached(trainer.model, trainer.optimizer) == looking.before
    assert "_run_epoch" not in vars(trainer)
    text, data = callback.written
    assert layerbench.read(data) == record
    assert "a training step" in text.read_text()
    (logged,) = [row for row in trainer.state.log_history if "layerbench/step_s" in row]
    assert logged["layerbench/backward_s"] == 6e-9
    assert logged["step"] == 7
    # What the trainer itself logs at that step is logged, too.
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [*range(1, 17)]
    (folder,) = {path.parent for path in tmp_path.glob("**/events.out*")}
    board = type("Board", (), {"log_dir": str(folder)})
    assert of_board(board, "train/layerbench/forward_s") == [(7, pytest.approx(73e-9))]


def test_accumulated_gradients_are_micro_batches(clock, tmp_path) -> None:
    callback = layerbench.TrainerCallback(start=1, steps=2, out=None)
    trainer_of(clock, tmp_path, 18, callback, gradient_accumulation_steps=3).train()
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
    looking = Looking(raising_at=at)
    callback = layerbench.TrainerCallback(start=2, steps=4, out=tmp_path / "reports")
    trainer = trainer_of(clock, tmp_path, 20, looking, callback)
    with pytest.raises(ValueError, match="in a callback"):
        trainer.train()
    assert looking.bare[-1] is (at < 2)
    check_left(trainer, looking)
    check_kept(callback, at)


def test_between_two_epochs_nothing_is_attached(clock, tmp_path) -> None:
    looking = Looking(raising_epoch=1)
    callback = layerbench.TrainerCallback(start=2, steps=4, out=None)
    trainer = trainer_of(clock, tmp_path, 4, looking, callback, num_train_epochs=2)
    with pytest.raises(ValueError, match="in a callback"):
        trainer.train()
    assert attached(trainer.model, trainer.optimizer) == looking.before


def check_left(trainer: Any, looking: Looking) -> None:
    assert attached(trainer.model, trainer.optimizer) == looking.before
    assert "_run_epoch" not in vars(trainer)


class Listed(transformers.TrainerCallback):
    """Notes where callbacks stand in the trainer's list as each step and epoch begins."""

    def __init__(self, *callbacks: Any, raising_at: int | None = None) -> None:
        self.callbacks = callbacks
        self.raising_at = raising_at
        self.places: list[list[int | None]] = []

    def look(self) -> None:
        there = self.trainer.callback_handler.callbacks
        found = [there.index(one) if one in there else None for one in self.callbacks]
        self.places.append(found)

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.look()

    def on_step_begin(self, args: Any, state: Any, *_: Any, **kwargs: Any) -> None:
        self.look()
        if state.global_step == self.raising_at:
            raise ValueError("in a callback")


@pytest.mark.parametrize("raising_at", [None, 6])
def test_the_trainer_has_nothing_to_call_within_an_epoch(raising_at, clock, tmp_path) -> None:
    """It comes back to its place; one of a derived class may have events of its own."""

    class Derived(layerbench.TrainerCallback):
        pass

    ours, derived = (
        kind(start=1, steps=2, out=None, memory=False)
        for kind in (layerbench.TrainerCallback, Derived)
    )
    listed = Listed(ours, derived, raising_at=raising_at)
    last = Listed(ours)
    trainer = trainer_of(clock, tmp_path, 6, ours, listed, derived, last, num_train_epochs=2)
    listed.trainer = last.trainer = trainer
    there = list(trainer.callback_handler.callbacks)
    place = there.index(ours)
    for _ in range(2):
        listed.places.clear()
        if raising_at is None:
            trainer.train()
        else:
            with pytest.raises(ValueError, match="in a callback"):
                trainer.train()
        assert trainer.callback_handler.callbacks == there
        assert "on_step_end" not in vars(trainer.callback_handler)
        between, within = [place, place + 2], [None, place + 1]
        first = [between, *[within] * 6]
        second = [between, *[within] * (6 if raising_at is None else 1)]
        assert listed.places == first + second
    assert ours.record is not None


def test_each_training_is_profiled_anew(clock, tmp_path) -> None:
    """One that is shorter than its steps tells what there is, or that there is nothing."""
    callback = layerbench.TrainerCallback(start=1, steps=6, out=tmp_path)
    for batches, rounds in ((8, 3), (5, 1)):
        trainer_of(clock, tmp_path, batches, callback).train()
        assert callback.record is not None
        assert callback.record.step.n == rounds
        assert layerbench.read(callback.written[1]) == callback.record
    trainer = trainer_of(clock, tmp_path, 2, callback)
    with pytest.warns(UserWarning, match="no training step was profiled: .*at least three steps"):
        trainer.train()
    assert (callback.record, callback.written) == (None, ())


def test_a_training_that_goes_on_counts_its_own_steps(clock, tmp_path) -> None:
    trainer_of(clock, tmp_path, 6, save_strategy="epoch").train()
    looking, callback = Looking(), layerbench.TrainerCallback(start=2, steps=2, out=None)
    trainer = trainer_of(clock, tmp_path, 6, looking, callback, num_train_epochs=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "outputs" / "checkpoint-6"))
    assert looking.bare == [True] * 2 + [False] * 3 + [True]
    assert callback.record is not None
    assert phases(callback.record) == PHASES


def test_the_first_process_alone_does_it(clock, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(transformers.Trainer, "is_world_process_zero", lambda self: False)
    looking = Looking()
    callback = layerbench.TrainerCallback(start=0, steps=2, out=tmp_path / "reports")
    trainer_of(clock, tmp_path, 5, looking, callback).train()
    assert looking.bare == [True] * 5
    assert callback.record is None
    assert not (tmp_path / "reports").exists()


def test_training_is_as_without(clock, tmp_path) -> None:
    made = []
    for callbacks in ([], [layerbench.TrainerCallback(start=1, steps=4, out=None)]):
        torch.manual_seed(0)
        trainer = trainer_of(clock, tmp_path, 9, *callbacks)
        trainer.train()
        made.append(trainer.model.net[0].weight)
    assert torch.equal(*made)


def test_a_model_of_the_library(tmp_path) -> None:
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_labels=2,
    )
    images = [{"pixel_values": torch.rand(3, 8, 8), "labels": at % 2} for at in range(24)]
    callback = layerbench.TrainerCallback(start=1, steps=4, out=tmp_path)
    arguments = transformers.TrainingArguments(
        str(tmp_path / "outputs"),
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=4,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        bf16=True,
    )
    model = transformers.ViTForImageClassification(config)
    transformers.Trainer(model, arguments, train_dataset=images, callbacks=[callback]).train()
    record = callback.record
    assert record is not None
    assert (record.workload.shape, record.workload.precision) == ((4, 3, 8, 8), "amp-bf16")
    assert record.optimizer == "adamw"
    assert all(row.forward and row.backward for row in record.rows if row.type == "Linear")
    assert record.forward_sum_ratio == pytest.approx(1)
    assert record.backward_sum_ratio == pytest.approx(1)


def test_a_model_that_the_trainer_compiles(clock, tmp_path) -> None:
    callback = layerbench.TrainerCallback(start=2, steps=4, out=None, memory=False)
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    trainer = trainer_of(clock, tmp_path, 12, callback, model=Squares(), **options)
    trainer.train()
    record = callback.record
    assert record is not None
    assert (record.model_type, record.workload.model) == ("OptimizedModule", "Squares")
    assert phases(record)["optimizer"] == PHASES["optimizer"]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_training(clock, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    trainer = trainer_of(clock, tmp_path, 5, layerbench.TrainerCallback(out=tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot write"):
        trainer.train()


@pytest.mark.parametrize("wrong", [{"start": -1}, {"steps": 1}])
def test_what_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        layerbench.TrainerCallback(**wrong)


def test_without_transformers_it_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "layerbench.integrations.transformers", raising=False)
    says = r"layerbench.TrainerCallback needs transformers: pip install 'layerbench\[hf\]'"
    with pytest.raises(UsageError, match=says):
        _ = layerbench.TrainerCallback


def test_not_all_names_of_the_package_need_the_programs_they_are_for() -> None:
    for name in ("Callback", "TrainerCallback"):
        assert name in dir(layerbench)
        assert name not in layerbench.__all__
