"""Runs that are taken up again."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import torch

import layerbench
from layerbench import cli
from layerbench.errors import OutputError
from layerbench.store import reading
from layerbench.training import run_folder
from tests.support.paths import ROOT
from tests.support.prepared import start_script
from tests.support.trainings import QUICK, READER, WRITTEN, assert_equal, last_weights, weights

DROPPING = "tests/models.py:dropping_reader"


ONCE = (
    "--model", DROPPING, "--data", "digits", "--size", "8", "--batch_size", "150", "--epochs", "4",
    "--lr", "0.02", "--threads", "1", "--device", "cpu", "--no-points", "--quiet",
    "--checkpoint_minutes", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    below = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        patched.setattr(sys, "argv", ["train.py", *ONCE, "--output_dir", str(below)])
        with pytest.raises(SystemExit) as left:
            cli.run("train")
    assert left.value.code == 0
    (folder,) = below.iterdir()
    return folder


def killed(below: Path, checkpoints: int) -> int:
    """Train, and kill -9 once so many checkpoints were written; the exit status."""
    process = start_script("train.py", *ONCE, "--resume", "--output_dir", str(below))
    seen: set[int] = set()
    deadline = time.monotonic() + 120
    while len(seen) < checkpoints and time.monotonic() < deadline and process.exitcode is None:
        for path in below.glob("*/checkpoint.pth"):
            seen.add(path.stat().st_mtime_ns)
        time.sleep(0.002)
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(uninterrupted, train, tmp_path):
    # In the middle of the first epoch, then again further on.
    assert [killed(tmp_path, count) for count in (3, 12)] == [-signal.SIGKILL] * 2
    (folder,) = tmp_path.iterdir()
    before = {path.name for path in folder.iterdir()}
    assert "run.json" in before  # the first epoch had ended when it was killed again
    status, said, _ = train(*ONCE, "--resume", "--output_dir", tmp_path)
    assert status == 0
    assert "resuming after epoch" in said
    assert_equal(last_weights(folder), last_weights(uninterrupted))
    assert_equal(weights(folder), weights(uninterrupted))
    mine, theirs = (reading.read(place / "run.json") for place in (folder, uninterrupted))
    learned = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "steps"}
    for row, other in zip(mine.epochs, theirs.epochs, strict=True):
        assert row.model_dump(include=learned) == pytest.approx(other.model_dump(include=learned))
    assert len(mine.resumed_after) == 2
    # No half-written file is left by the kills but hidden temporary ones.
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == WRITTEN


@pytest.mark.parametrize("calls", [0, 1])
def test_an_interrupted_run_says_what_was_kept_and_how_to_go_on(
    train, tmp_path, monkeypatch, calls
):
    from layerbench.training.classification import trainer

    whole, made = trainer.Trainer.train, []

    def interrupted(self, *args, **kwargs):
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(trainer.Trainer, "train", interrupted)
    status, said, _ = train(*ONCE, "--output_dir", tmp_path)
    assert status == 130
    (folder,) = tmp_path.iterdir()
    kept = "the state before epoch 2, step 0" if calls else "nothing but the recipe"
    assert f"interrupted: kept is {kept}" in said
    assert f"go on with --resume_from {folder}" in said
    assert f"go on with --resume_from {folder}" in (folder / "train.log").read_text()


def test_resuming_says_what_does_not_fit(train, tmp_path, uninterrupted):
    status, _, err = train(*ONCE, "--resume_from", uninterrupted)
    assert status == 2
    assert "has finished: there is nothing to go on with" in err
    status, _, err = train(*ONCE, "--resume_from", tmp_path)
    assert status == 2
    assert "holds no run" in err
    unfinished = tmp_path / "copy"
    shutil.copytree(uninterrupted, unfinished)
    (unfinished / "run.json").unlink()
    status, _, err = train(*ONCE, "--lr", "0.5", "--resume_from", unfinished)
    assert status == 2
    assert "of another training: lr 0.02 there, 0.5 here" in err
    content = torch.load(unfinished / "checkpoint.pth", weights_only=True)
    moments = content["states"]["optimizer"]["state"][0]
    for wrong in ({"exp_avg": 1.5}, {"exp_avg": torch.zeros(1, 1, 1)}):
        content["states"]["optimizer"]["state"][0] = moments | wrong
        torch.save(content, unfinished / "checkpoint.pth")
        status, _, err = train("--resume_from", unfinished)
        assert status == 2
        assert f"{unfinished / 'checkpoint.pth'} is not a readable" in err
        assert "the optimizer's " in err
        assert "without --resume_from a new run begins" in err
    status, _, err = train(*ONCE, "--model", READER, "--resume_from", unfinished)
    assert status == 2
    assert "model tests/models.py:dropping_reader there" in err


def test_an_output_folder_that_exists(tmp_path, monkeypatch):
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    monkeypatch.setattr(run_folder, "utc_now", lambda: moment)
    layerbench.train(READER, **QUICK, batch=500, epochs=1, output_dir=tmp_path)
    with pytest.raises(OutputError, match="20300102-030405 is there already"):
        layerbench.train(READER, **QUICK, batch=500, epochs=1, output_dir=tmp_path)
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    with pytest.raises(OutputError, match="choose another --output_dir"):
        layerbench.train(READER, **QUICK, batch=500, epochs=1, output_dir=nowhere / "below")
