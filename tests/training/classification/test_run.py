"""Trainings from the command to what they leave on disk: real data, real processes, real kills."""

from __future__ import annotations

import csv
import itertools
import math
import re
import signal
import socket
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import layerbench
from layerbench.errors import DataError, OutputError, TrainingStopped, UsageError
from layerbench.records.training_run import TrainingRun
from layerbench.records.training_step import STEP_PHASES
from layerbench.store import reading
from layerbench.training import run_folder
from tests.support.prepared import start_script
from tests.support.small_data import cut_short, write_cifar100, write_image_folder
from tests.support.trainings import QUICK, READER, WRITTEN, assert_equal, last_weights, weights

# --- a whole run ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
def test_it_learns_to_read_digits(train, tmp_path):
    status, out, err = train(
        "--model", READER, "--data", "digits", "--size", 8, "--batch_size", 32, "--epochs", 12,
        "--lr", 0.02, "--threads", 1, "--device", "cpu", "--output_dir", tmp_path,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "epoch 12/12: loss" in out
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("tests-models-digit_reader_phase2_")
    names = {path.name for path in folder.iterdir()}
    assert names == WRITTEN | {"latency_vs_batch.png", "memory_vs_batch.png"}
    record = reading.read(folder / "run.json")
    assert isinstance(record, TrainingRun)
    assert record.outcome == "finished"
    assert record.best is not None
    assert record.best.val_accuracy > 0.9
    assert (record.train_images, record.val_images, record.classes) == (1438, 359, 10)
    assert [row.epoch for row in record.epochs] == list(range(1, 13))
    assert record.epochs[-1].steps == 1438 // 32
    assert record.step is not None
    assert record.step.n == 44
    (alone,) = record.ranks
    assert alone.all_reduce is None
    assert [phase.name for phase in record.phases] == list(STEP_PHASES)
    assert [point.batch for point in record.points] == [1, 2, 4, 8, 16, 32]
    assert {point.memory for point in record.points} == {"predicted"}
    assert record.points[-1].flops == 32 * record.points[0].flops == 32 * record.flops

    # The phases of an epoch are most of it, and never more.
    for row in record.epochs:
        assert set(row.phases_s) == set(STEP_PHASES)
        assert 0 < sum(row.phases_s.values()) <= row.train_s

    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [float(row["val_accuracy"]) for row in rows] == [
        row.val_accuracy for row in record.epochs
    ]
    assert float(rows[0]["backward_s"]) == record.epochs[0].phases_s["backward"]
    assert "best validation accuracy" in (folder / "stats.log").read_text()
    assert "epoch 12/12" in (folder / "train.log").read_text()
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")

    # What was kept is the best epoch's, in both formats, and gives that accuracy again.
    kept = torch.load(folder / "model.pth", weights_only=True)
    assert_equal(kept, weights(folder))
    assert accuracy_of(kept) == pytest.approx(record.best.val_accuracy)


def accuracy_of(state: dict[str, torch.Tensor]) -> float:
    from layerbench import datasets
    from layerbench.datasets import DatasetOptions
    from tests.models import digit_reader

    model = digit_reader().eval()
    model.load_state_dict(state)
    val = datasets.get("digits").open(DatasetOptions(Path(), (8, 8))).val
    images, labels = zip(*(val[index] for index in range(len(val))), strict=True)
    with torch.no_grad():
        found = model(torch.stack(images)).argmax(dim=1)
    return float((found == torch.tensor(labels)).float().mean())


def test_fine_tuning_on_cifar100(train, tmp_path, monkeypatch):
    write_cifar100(tmp_path / "data", monkeypatch, train=200, test=100)
    status, out, err = train(
        "--model", READER, "--phase", 2, "--no-pretrained", "--data_dir", tmp_path / "data",
        "--size", 32, "--batch_size", 64, "--epochs", 2, "--limit", 2, "--precision", "bfloat16",
        "--no-points", "--output_dir", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "2 steps of 64 images an epoch" in out
    (folder,) = (tmp_path / "out").iterdir()
    record = reading.read(folder / "run.json")
    assert (record.classes, record.recipe.data, record.recipe.precision) == (
        100,
        "cifar100",
        "amp-bf16",
    )
    # A new head for 100 classes, float32 although the arithmetic was not.
    assert weights(folder)["8.weight"].shape == (100, 128)
    assert weights(folder)["8.weight"].dtype == torch.float32


def test_from_scratch_on_a_folder_of_images(train, tmp_path):
    write_image_folder(tmp_path / "data", classes=3, train=6, val=2)
    status, _, err = train(
        "--model", READER, "--phase", 1, "--data_dir", tmp_path / "data", "--size", "32x40",
        "--batch_size", 4, "--epochs", 1, "--workers", 2, "--no-points",
        "--output_dir", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert (status, err) == (0, "")
    (folder,) = (tmp_path / "out").iterdir()
    record = reading.read(folder / "run.json")
    assert (record.recipe.size, record.classes, record.epochs[0].steps) == ((32, 40), 3, 4)
    assert record.epochs[0].val_top5 is None  # of three classes


def test_early_stopping(tmp_path):
    # A learning rate that changes nothing: no epoch is better than the first.
    trained = layerbench.train(
        READER, **QUICK, batch=400, epochs=6, lr=1e-12, patience=2, output_dir=tmp_path
    )
    assert trained.record.outcome == "stopped early"
    assert (len(trained.record.epochs), trained.record.best_epoch) == (3, 1)


def test_plots_are_drawn_after_the_first_epoch_and_at_the_end_of_a_short_run(tmp_path, monkeypatch):
    written, calls = run_folder.write_reports, []

    def noting(record, folder, *, pictures=True):
        calls.append((record.outcome, len(record.epochs), pictures))
        written(record, folder, pictures=pictures)

    monkeypatch.setattr(run_folder, "write_reports", noting)
    for every, second in ((math.inf, False), (0.0, True)):
        monkeypatch.setattr("layerbench.training.classification.run.DRAWN_EVERY_S", every)
        layerbench.train(READER, **QUICK, batch=500, epochs=2, output_dir=tmp_path / str(every))
        assert calls == [("running", 1, True), ("running", 2, second), ("finished", 2, True)]
        calls.clear()


def test_weights_that_find_no_room_leave_the_old_ones(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    model = nn.Linear(256, 256)
    run_folder.write_weights(model, tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    # The other format, which is written first, would complain too.
    monkeypatch.setattr(run_folder.checkpoints, "save", lambda *_: None)
    nn.init.zeros_(model.weight)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(
            OutputError, match=r"cannot write .*model\.safetensors: .*(too large|27)"
        ):
            run_folder.write_weights(model, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal(load_file(tmp_path / "model.safetensors"), before)
    assert {path.name for path in tmp_path.iterdir()} == {"model.pth", "model.safetensors"}


# --- what goes wrong -----------------------------------------------------------------------


def test_a_loss_that_is_no_number_keeps_the_last_good_state(tmp_path, monkeypatch):
    from layerbench.training.classification import trainer

    original, calls = trainer.classification_loss, itertools.count()

    def breaks(output, labels):
        found = original(output, labels)
        # Three steps and one validation batch an epoch: in the second epoch's second step.
        return found * float("nan") if next(calls) >= 5 else found

    monkeypatch.setattr(trainer, "classification_loss", breaks)
    with pytest.raises(TrainingStopped, match=r"step 2 of epoch 2 is nan.* last good state is in"):
        layerbench.train(READER, **QUICK, batch=400, epochs=3, output_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(folder).values())
    assert "the loss of step 2 of epoch 2 is nan" in (folder / "train.log").read_text()


def test_weights_that_are_no_numbers_are_never_kept(tmp_path, monkeypatch):
    """The loss of a step is a number, but its gradient is none: the weights after it are lost."""
    from layerbench.training.classification import trainer

    original, calls = trainer.classification_loss, itertools.count()

    def breaks(output, labels):
        found = original(output, labels)
        if next(calls) == 2:
            output.register_hook(lambda gradient: gradient * float("nan"))
        return found

    monkeypatch.setattr(trainer, "classification_loss", breaks)
    with pytest.raises(TrainingStopped, match=r"weights are no longer finite.*last good state"):
        layerbench.train(
            READER, **QUICK, batch=200, epochs=1, checkpoint_minutes=0, output_dir=tmp_path
        )
    (folder,) = tmp_path.iterdir()
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(folder).values())


def test_a_batch_of_which_nothing_can_be_read_is_left_out(tmp_path):
    top = write_image_folder(tmp_path, classes=2, train=3, val=1)
    cut_short(top / "train" / "n00000001" / "n00000001_0.JPEG")
    trained = layerbench.train(
        READER, 1, data_dir=tmp_path, size=(16, 16), device="cpu", points=False, batch=1,
        epochs=1, unreadable="skip", output_dir=tmp_path / "out",
    )  # fmt: skip
    assert trained.record.epochs[0].unreadable == 1
    assert trained.record.step.n == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_fatal_or_skipped(tmp_path, workers):
    top = write_image_folder(tmp_path, classes=2, train=6, val=4)
    broken = [
        top / "train" / "n00000001" / "n00000001_2.JPEG",
        top / "val" / "n00000000" / "n00000000_1.JPEG",
    ]
    for path in broken:
        cut_short(path)
    settings = {"data_dir": tmp_path, "size": (16, 16), "device": "cpu", "points": False}
    settings |= {"batch": 4, "epochs": 2, "workers": workers, "output_dir": tmp_path / "out"}
    with pytest.raises(DataError, match=r"cannot read .*\.JPEG \(OSError.*--unreadable skip"):
        layerbench.train(READER, 1, **settings)
    settings["output_dir"] = tmp_path / "again"
    trained = layerbench.train(READER, 1, **settings, unreadable="skip")
    assert [row.unreadable for row in trained.record.epochs] == [2, 2]
    assert {name.partition(" ")[0] for name in trained.record.unreadable} == set(map(str, broken))


def test_no_data_says_what_to_put_where(train, tmp_path):
    common = ("--model", READER, "--size", 32, "--data_dir", tmp_path, "--output_dir", tmp_path)
    for phase, says in ((1, "imagenet/train/<class>/"), (2, "--download fetches them")):
        status, _, err = train(*common, "--phase", phase)
        assert status == 2
        assert says in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())  # no folder for a run that never was


def test_too_little_memory_says_what_would_fit(tmp_path, monkeypatch):
    from layerbench.environment.devices import MemoryInfo
    from layerbench.environment.devices.cpu import Cpu

    few = MemoryInfo(total_bytes=60 * 2**20, free_bytes=60 * 2**20)
    monkeypatch.setattr(Cpu, "memory", lambda self: few)
    with pytest.raises(layerbench.errors.NotEnoughMemory) as raised:
        layerbench.train(
            READER, data="synthetic", size=(64, 64), batch=512, device="cpu", output_dir=tmp_path
        )
    text = str(raised.value)
    assert "for a batch of 512 (512x3x64x64)" in text
    assert "60.0 MiB are free" in text
    fits = re.search(r"about (\d+) images would fit", text)
    assert fits is not None
    assert 0 < int(fits[1]) < 512


def test_bad_options_are_one_line(train, tmp_path):
    for arguments, says in (
        (("--size", "big"), "--size takes a number"),
        (("--precision", "int8"), "--precision takes fp32"),
        (("--unreadable", "maybe"), "--unreadable takes fatal, skip"),
        (("--model", "resnet19"), "did you mean"),
        (("--data", "mnist"), "choose from cifar100"),
        (("--checkpoint_minutes", "-1"), "--checkpoint_minutes must be a number from 0 on"),
        (("--workers", "-1"), "--workers must be at least 0"),
        (("--resume_from", str(tmp_path), "--size", "8", "--data", "digits"), "holds no run"),
    ):
        status, out, err = train("--model", READER, *arguments)
        assert (status, out) == (2, "")
        assert says in err
        assert err.count("\n") == 1


# --- several processes ---------------------------------------------------------------------


def two_ranks(folder: Path, *arguments: str) -> list[ForkServerProcess]:
    """Start them by hand, as two machines would: torchrun ends a survivor before it has said all.

    What they print lies in the folder: ``out0``, ``err0``, ``out1`` and ``err1``.
    """
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        start_script(
            "train.py",
            *arguments,
            out=folder / f"out{rank}",
            err=folder / f"err{rank}",
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in (0, 1)
    ]


PAIR = (
    "--model", READER, "--data", "digits", "--size", "8", "--epochs", "2", "--lr", "0.02",
    "--threads", "1", "--device", "cpu", "--no-points", "--quiet",
)  # fmt: skip


@pytest.mark.slow
def test_two_processes_learn_what_one_with_twice_the_batch_learns_though_one_dies(tmp_path):
    arguments = (
        *PAIR, "--batch_size", "30", "--checkpoint_minutes", "0", "--resume", "--time_all_reduce",
        "--output_dir", str(tmp_path / "pair"),
    )  # fmt: skip
    pair = two_ranks(tmp_path / "first", *arguments)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("pair/*/checkpoint.pth")):
        assert time.monotonic() < deadline
        assert [process.exitcode for process in pair] == [None, None]
        time.sleep(0.01)
    pair[1].kill()
    for process in pair:
        process.join(120)
    assert [process.exitcode for process in pair] == [2, -signal.SIGKILL]
    said = (tmp_path / "first" / "err0").read_text()
    assert f"rank 1 (process {pair[1].pid}) ended while rank 0 waited for it" in said
    assert "start it again with --resume" in said
    again = two_ranks(tmp_path / "again", *arguments)
    for process in again:
        process.join(120)
    assert [process.exitcode for process in again] == [0, 0]
    assert "resuming after epoch" in (tmp_path / "again" / "out0").read_text()
    layerbench.train(READER, **QUICK, batch=60, epochs=2, lr=0.02, output_dir=tmp_path / "alone")
    (pair,), (alone,) = (list((tmp_path / name).iterdir()) for name in ("pair", "alone"))
    theirs = last_weights(alone)
    for name, tensor in last_weights(pair).items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)
    mine, other = (reading.read(place / "run.json") for place in (pair, alone))
    assert mine.outcome == "finished"
    assert len(mine.epochs) == 2
    assert [times.rank for times in mine.ranks] == [0, 1]
    assert all(times.all_reduce is not None for times in mine.ranks)
    assert all(0 < times.all_reduce.mean < times.step.mean for times in mine.ranks)
    assert mine.epochs[1].val_accuracy == pytest.approx(other.epochs[1].val_accuracy, abs=0.01)
    assert mine.epochs[1].train_loss == pytest.approx(other.epochs[1].train_loss, rel=1e-3)


def test_a_process_that_torchrun_did_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match=r"MASTER_ADDR.* is not set: start with torchrun"):
        layerbench.train(READER, **QUICK, batch=32, epochs=1, output_dir=tmp_path)
