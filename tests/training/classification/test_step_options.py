"""Checkpointed activations and micro-batches in a training: the same weights, steps counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import layerbench
from layerbench.errors import DataError, UsageError
from layerbench.training.classification.trainer import Trainer
from tests.support.trainings import QUICK, READER, assert_equal, last_weights

SHORT = {**QUICK, "epochs": 2, "lr": 0.02, "limit": 8, "patience": 0}
ACCUMULATED = {**SHORT, "batch": 16, "gradient_accumulation": 2}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> layerbench.api.training.Trained:
    return layerbench.train(
        READER, **{**SHORT, "limit": 4}, batch=32, output_dir=tmp_path_factory.mktemp("plain")
    )


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> layerbench.api.training.Trained:
    folder = tmp_path_factory.mktemp("accumulated")
    return layerbench.train(READER, **ACCUMULATED, output_dir=folder)


def test_micro_batches_train_as_one_batch_does(plain, accumulated) -> None:
    found = accumulated
    mine, theirs = (last_weights(run.folder) for run in (found, plain))
    for name, tensor in mine.items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-4, atol=1e-5), name
    assert [row.steps for row in found.record.epochs] == [4, 4]
    assert [row.lr for row in found.record.epochs] == [row.lr for row in plain.record.epochs]
    assert found.record.epochs[-1].train_loss == pytest.approx(
        plain.record.epochs[-1].train_loss, rel=1e-3
    )
    assert found.record.step is not None
    assert found.record.step.n == 4
    assert found.record.recipe.step_images == 32
    row = found.record.epochs[-1]
    assert row.images_per_s == pytest.approx(4 * 32 / row.train_s)
    total = sum(phase.time.mean for phase in found.record.phases)
    assert total == pytest.approx(found.record.step.mean, rel=1e-6)


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_ends_as_it_would_have(
    accumulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def stops(self: Trainer, *args: object) -> object:
        done.append(1)
        if len(done) == 7:
            raise KeyboardInterrupt
        return step(self, *args)

    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        layerbench.train(READER, **ACCUMULATED, output_dir=tmp_path / "cut", checkpoint_minutes=0)
    monkeypatch.undo()
    (folder,) = (tmp_path / "cut").iterdir()
    found = layerbench.train(READER, **ACCUMULATED, resume=folder)
    assert_equal(last_weights(found.folder), last_weights(accumulated.folder))


def test_checkpointed_activations_change_no_weight(plain, tmp_path: Path) -> None:
    found = layerbench.train(
        READER,
        **{**SHORT, "limit": 4},
        batch=32,
        checkpoint_activations=["0"],
        output_dir=tmp_path,
    )
    assert_equal(last_weights(found.folder), last_weights(plain.folder))
    assert found.record.recipe.checkpoint_activations == ("0",)
    assert "activations checkpointed in 0" in (found.folder / "stats.log").read_text()


def test_what_cannot_be_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="take a smaller --gradient-accumulation"):
        layerbench.train(READER, **SHORT, batch=16, gradient_accumulation=9, output_dir=tmp_path)
    with pytest.raises(UsageError, match="has no module 'nine'"):
        layerbench.train(
            READER, **SHORT, batch=16, checkpoint_activations=["nine"], output_dir=tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_an_estimate_counts_steps_of_all_micro_batches() -> None:
    found = layerbench.estimate_training_time(
        READER,
        data="digits",
        size=(8, 8),
        batch=8,
        gradient_accumulation=4,
        checkpoint_activations=["0"],
        samples=100,
        steps=3,
        warmup=1,
        seconds=0.0,
        threads=1,
        device="cpu",
    )
    assert found.steps == 3
    assert "3 steps of 32 images; 4 left over" in found.assumptions[0]
