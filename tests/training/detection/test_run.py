"""``layerbench detect`` from the command to what it leaves on disk: real pets, real processes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from layerbench import cli
from layerbench.environment import devices
from layerbench.environment.devices.cpu import CpuType
from layerbench.instruments.utilization import UsageSampler
from layerbench.records.detection_run import BOTTLENECKS, DetectionRun
from layerbench.records.training_step import STEP_PHASES
from layerbench.store import reading
from layerbench.training import run_folder
from layerbench.training.detection import models, run
from layerbench.training.detection.operators import PART, PHASE
from tests.support.paths import ROOT
from tests.support.small_data import cut_short, pet_name, pets
from tests.support.small_detectors import built_small, read_trace

CONFIG = ROOT / ".config" / "config.toml"
LITE = "ssdlite320_mobilenet_v3_large"
WRITTEN = {
    "recipe.json",
    "train.log",
    "report.txt",
    "metrics.csv",
    "detection.json",
    "trace.json.gz",
    "model.pth",
    "model.safetensors",
}
KINDS = {
    "two stages": "fasterrcnn_resnet50_fpn",
    "one stage": "retinanet_resnet50_fpn",
    "masks": "maskrcnn_resnet50_fpn",
    "keypoints": "keypointrcnn_resnet50_fpn",
}


def only_record(below: Path) -> tuple[DetectionRun, Path]:
    (path,) = below.glob("detect_*/detection.json")
    record = reading.read(path)
    assert isinstance(record, DetectionRun)
    return record, path.parent


def environment(**changes: str) -> dict[str, str]:
    """Without a GPU, also where there is one."""
    kept = {name: value for name, value in os.environ.items() if name != "CDPATH"}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **changes}


# --- a whole run, as a user starts it ------------------------------------------------------


@pytest.mark.slow
def test_the_script_from_another_folder(tmp_path):
    """On a real detector; `.config/config.toml` says what the words do not."""
    pets(tmp_path / "data")
    words = (
        f"--device cpu --model {LITE} --data_dir {tmp_path}/data --output_dir {tmp_path}/out "
        "--num_workers 1 --threads 1 --limit 3 --warmup 1 --profile_steps 1"
    )
    done = subprocess.run(
        ["sh", str(ROOT / "detect.sh"), *words.split()],
        cwd=tmp_path,
        env=environment(LAYERBENCH_PYTHON=sys.executable),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    record, folder = only_record(tmp_path / "out")
    assert re.fullmatch(rf"detect_{LITE}_pets_\d{{8}}-\d{{6}}", folder.name)
    # The first look at the machine comes after half a second: a faster one is not drawn.
    looks = {"utilization.png"} if record.usage.samples else set()
    assert {path.name for path in folder.iterdir()} == WRITTEN | looks
    report = (folder / "report.txt").read_text()
    assert done.stdout.endswith(report)
    parts = ("backbone", "anchors", "heads", "losses")
    for word in (*parts, "the bottleneck is", "convolution"):
        assert word in report

    recipe = record.recipe
    assert (recipe.model, recipe.data, recipe.batch, recipe.workers) == (LITE, "pets", 2, 1)
    assert json.loads((folder / "recipe.json").read_text()) == json.loads(recipe.model_dump_json())
    assert recipe.prefetch_factor == 2
    assert (record.images, record.model_type) == (6, "SSD")
    assert record.classes[:2] == ("background", "Abyssinian")
    (epoch,) = record.epochs
    # One step is profiled, and one before it that the profiler throws away.
    assert (epoch.steps, epoch.images, epoch.unreadable) == (3, 6, 0)
    assert (record.profiled, record.measured) == (1, 1)
    assert epoch.loss == pytest.approx(sum(epoch.losses.values()))
    assert set(epoch.losses) == {"classification", "bbox_regression"}
    assert [phase.name for phase in record.phases] == list(STEP_PHASES)
    assert 0 < sum(epoch.phases_s.values()) <= epoch.train_s
    assert record.parts_ratio == pytest.approx(1, abs=0.02)
    assert record.boxes == 1
    rows = {row.name: row for row in record.parts}
    assert all(rows[name].backward is not None for name in ("backbone", "heads", "losses"))
    assert rows["backbone"].kept > 2**20
    operators = {(row.part, row.phase, row.name) for row in record.operators}
    assert ("backbone", "backward", "aten::convolution_backward") in operators
    bottleneck = record.bottleneck
    assert sum(bottleneck.shares.values()) == pytest.approx(1)
    assert bottleneck.kind == max(BOTTLENECKS, key=bottleneck.shares.get)
    assert bottleneck.advice
    assert record.usage.cores >= 1
    assert record.tuning is None

    trace = json.loads(read_trace(folder / "trace.json.gz"))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert names >= {f"{PHASE}forward", f"{PHASE}backward", f"{PART}backbone", f"{PART}losses"}
    (row,) = csv.DictReader((folder / "metrics.csv").open())
    assert float(row["backward_s"]) == epoch.phases_s["backward"]
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in looks)
    log = (folder / "train.log").read_text()
    assert "epoch 1/1: loss" in log
    assert "finished" in log

    weights = torch.load(folder / "model.pth", weights_only=True)
    again = load_file(folder / "model.safetensors")
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.items())
    begins = models.build(LITE, classes=len(record.classes)).state_dict()
    assert begins.keys() == weights.keys()
    moved = [name for name in weights if not torch.equal(weights[name], begins[name])]
    for child in ("backbone", "head"):
        assert any(name.startswith(f"{child}.") and name.endswith("weight") for name in moved)


# --- on small detectors --------------------------------------------------------------------


@pytest.fixture
def detect(monkeypatch, capsys, tmp_path):
    """``detect(*words)`` on small detectors: exit status, what was printed, what was complained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "build_detector", built_small)

    def call(*words: object, device: str | None = "cpu"):
        there = [] if device is None else ["--device", device]
        line = ["layerbench", "detect", *words, *there, "--threads", 1, "--quiet"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in line])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_committed_configuration_asks_for_a_gpu_and_says_what_to_write(
    detect, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "device_types", lambda: [CpuType()])
    pets(tmp_path / "data")
    said = refused(detect("--config", CONFIG, device=None))
    assert said.startswith("error: no device 'cuda:0' on this machine, which has cpu")
    assert "--device cpu" in said
    assert "--device auto" in said
    assert not (tmp_path / "outputs").exists()
    # And with the second of these words it runs.
    assert detect("--config", CONFIG, "--num_workers", 0, device="auto")[0] == 0
    record, _ = only_record(tmp_path / "outputs")
    assert record.environment.device.kind == "cpu"


def refused(outcome: tuple[object, str, str], status: int = 2) -> str:
    """The one line that says what is wrong."""
    assert outcome[0] == status
    (line,) = outcome[2].splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_box_and_of_a_single_pixel_are_learned_from(detect, tmp_path, kind):
    pets(tmp_path / "data", without_box=1, dot=2)
    status, out, err = detect("--model", KINDS[kind], "--epochs", 2, "--profile_steps", 0)
    assert (status, err) == (0, "")
    record, folder = only_record(tmp_path / "outputs")
    assert [epoch.images for epoch in record.epochs] == [6, 6]
    assert record.boxes == pytest.approx(5 / 6)
    assert all(0 < epoch.loss < 100 for epoch in record.epochs)
    assert record.measured == 3
    assert record.parts_ratio == pytest.approx(1, abs=0.02)
    assert ("loss_mask" in record.epochs[0].losses) == (kind == "masks")
    assert ("loss_keypoint" in record.epochs[0].losses) == (kind == "keypoints")
    # Nothing was profiled: no trace, and no word of operators.
    assert not (folder / "trace.json.gz").exists()
    assert (record.profiled, record.operators) == (0, ())
    assert "Operators" not in out
    assert record.bottleneck.shares["launch"] == 0


def test_every_image_alone_of_which_one_has_no_box(detect, tmp_path):
    pets(tmp_path / "data", train=4, without_box=1, dot=2)
    assert detect("--batch_size", 1, "--profile_steps", 0)[0] == 0
    record, _ = only_record(tmp_path / "outputs")
    assert (record.epochs[0].steps, record.epochs[0].images) == (4, 4)


def test_the_same_seed_trains_the_same(detect, tmp_path):
    pets(tmp_path / "data")
    found = []
    for number, seed in enumerate((3, 3, 4)):
        below = tmp_path / str(number)
        words = ("--seed", seed, "--epochs", 2, "--profile_steps", 0, "--output_dir", below)
        assert detect(*words)[0] == 0
        found.append(only_record(below))
    losses = [[epoch.losses for epoch in record.epochs] for record, _ in found]
    assert losses[0] == losses[1] != losses[2]
    first, second = (load_file(folder / "model.safetensors") for _, folder in found[:2])
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.mark.usefixtures("rendered")
def test_how_busy_the_machine_was_is_drawn(detect, tmp_path, monkeypatch):
    pets(tmp_path / "data")
    monkeypatch.setattr(run, "UsageSampler", partial(UsageSampler, interval_s=0.01))
    status, out, _ = detect("--profile_steps", 0, "--epochs", 3, "--no-save_weights")
    assert status == 0
    record, folder = only_record(tmp_path / "outputs")
    assert record.usage.samples
    assert "Utilization" in out
    assert (folder / "utilization.png").read_bytes().startswith(b"\x89PNG")


def test_profiled_steps_train_and_count_for_no_time(detect, tmp_path):
    pets(tmp_path / "data", train=12)
    words = ("--epochs", 2, "--warmup", 1, "--profile_steps", 2, "--no-save_weights")
    assert detect(*words, "--checkpoint-activations", "backbone")[0] == 0
    record, folder = only_record(tmp_path / "outputs")
    assert [(epoch.steps, epoch.images) for epoch in record.epochs] == [(6, 12), (6, 12)]
    # Of the second epoch every step counts.
    assert (record.profiled, record.measured, record.step.n) == (2, 6, 6)
    operators = {(row.part, row.phase, row.name) for row in record.operators}
    for part in ("backbone", "RPN"):
        assert (part, "backward", "aten::convolution_backward") in operators
    again = {row.part for row in record.operators if row.phase == "recomputation"}
    assert again == {row.name for row in record.parts if row.recomputation} == {"backbone"}
    assert record.recomputation.mean == pytest.approx(record.parts[2].recomputation.mean)
    assert record.recipe.checkpoint_activations == ("backbone",)
    report = (folder / "report.txt").read_text()
    assert "activations checkpointed in backbone" in " ".join(report.split())
    assert all(words in report for words in ("recomputed ms", "of it recomputation"))
    assert all(part in report for part in ("backbone", "RPN", "heads", "post-processing"))
    assert record.trained.proposals > 1
    assert (folder / "trace.json.gz").is_file()
    assert not (folder / "model.pth").exists()
    assert not (folder / "model.safetensors").exists()


def test_an_epoch_too_short_to_be_profiled_says_so(detect, tmp_path):
    pets(tmp_path / "data")
    status, out, _ = detect("--profile_steps", 5)
    assert status == 0
    record, folder = only_record(tmp_path / "outputs")
    assert record.epochs[0].steps == 3
    assert any("no step was profiled" in note for note in record.notes)
    assert "no step was profiled" in out
    assert not (folder / "trace.json.gz").exists()


def test_other_boxes_and_classes(detect, tmp_path):
    pets(tmp_path / "data")
    words = ("--boxes", "xml", "--classes", "species", "--profile_steps", 0)
    assert detect(*words)[0] == 0
    record, folder = only_record(tmp_path / "outputs")
    assert record.classes == ("background", "Cat", "Dog")
    assert (record.recipe.boxes, record.recipe.labels) == ("xml", "species")
    head = load_file(folder / "model.safetensors")["roi_heads.box_predictor.cls_score.weight"]
    assert head.shape[0] == 3


def test_made_up_images(detect, tmp_path):
    words = ("--data", "synthetic", "--samples", 6, "--size", "40x56", "--profile_steps", 0)
    assert detect(*words, "--model", KINDS["masks"])[0] == 0
    record, _ = only_record(tmp_path / "outputs")
    assert record.images == 6
    assert record.recipe.size == (40, 56)
    assert record.boxes > 1


@pytest.mark.slow
def test_tuning_from_the_command_line(detect, tmp_path, monkeypatch):
    """Which setting is taken is a matter of the machine; that it is gone on with, is not."""
    pets(tmp_path / "data")
    monkeypatch.setattr(run, "usable_cores", lambda: 1)
    monkeypatch.setattr(run, "TUNE_WARMUP", 1)
    monkeypatch.setattr(run, "TUNE_STEPS", 2)
    status, out, _ = detect("--tune", "--profile_steps", 0)
    assert status == 0
    record, _ = only_record(tmp_path / "outputs")
    assert record.tuning is not None
    tried = [(point.workers, point.prefetch_factor) for point in record.tuning.points]
    assert tried == [(0, 2), (1, 2), (1, 4)]
    assert "take this" in out
    taken = (record.tuning.workers, record.tuning.prefetch_factor)
    assert (record.recipe.workers, record.recipe.prefetch_factor) == taken
    assert taken in tried
    assert record.epochs[0].steps == 3


# --- what is wrong with the data -----------------------------------------------------------


def test_an_image_that_cannot_be_read_is_fatal_unless_it_is_left_out(detect, tmp_path):
    pets(tmp_path / "data", corrupt=1)
    said = refused(detect("--profile_steps", 0))
    assert f"{pet_name(1)}.jpg (OSError: " in said
    assert "--unreadable skip" in said
    below = tmp_path / "again"
    words = ("--unreadable", "skip", "--epochs", 2, "--num_workers", 1, "--profile_steps", 0)
    status, out, err = detect(*words, "--output_dir", below)
    assert (status, err) == (0, "")
    record, _ = only_record(below)
    assert [(epoch.images, epoch.unreadable) for epoch in record.epochs] == [(5, 1), (5, 1)]
    assert f"{pet_name(1)}.jpg" in record.unreadable[0]
    assert "Images that could not be read" in out


def test_an_annotation_that_is_missing(detect, tmp_path):
    pets(tmp_path / "data", without_xml=2)
    words = ("--boxes", "xml", "--profile_steps", 0)
    said = refused(detect(*words))
    assert "missing annotation" in said
    assert f"{pet_name(2)}.xml" in said
    below = tmp_path / "again"
    assert detect(*words, "--unreadable", "skip", "--output_dir", below)[0] == 0
    record, _ = only_record(below)
    assert record.epochs[0].unreadable == 1
    assert "missing annotation" in record.unreadable[0]
    assert any("no XML" in note for note in record.notes)
    # With boxes from trimaps nothing is missing.
    trimaps = tmp_path / "trimaps"
    assert detect("--profile_steps", 0, "--output_dir", trimaps)[0] == 0
    assert only_record(trimaps)[0].epochs[0].unreadable == 0


@pytest.mark.parametrize("profile_steps", [0, 1])
def test_nothing_that_can_be_read(detect, tmp_path, profile_steps):
    top = pets(tmp_path / "data")
    for path in (top / "images").iterdir():
        cut_short(path)
    said = refused(detect("--unreadable", "skip", "--profile_steps", profile_steps))
    assert "could be read" in said


def test_batches_that_end_before_the_profile(detect, tmp_path):
    """Half of the images cannot be read: the epoch is shorter than its steps."""
    top = pets(tmp_path / "data", train=8)
    for number in (0, 1, 2, 3, 4, 5):
        cut_short(top / "images" / f"{pet_name(number)}.jpg")
    words = ("--unreadable", "skip", "--batch_size", 1, "--profile_steps", 3, "--warmup", 0)
    status, _, err = detect(*words)
    assert (status, err) == (0, "")
    record, _ = only_record(tmp_path / "outputs")
    assert record.epochs[0].unreadable == 6
    assert record.epochs[0].images == 2
    assert record.profiled == 0
    assert any("no step was profiled" in note for note in record.notes)


def test_data_that_are_not_there(detect, tmp_path):
    said = refused(detect("--data_dir", tmp_path / "nowhere"))
    assert (
        f"{tmp_path}/nowhere/oxford-iiit-pet must hold the folders images and annotations" in said
    )
    assert "--download" in said
    assert not (tmp_path / "outputs").exists()


def test_masks_that_heads_do_not_have(detect, tmp_path):
    pets(tmp_path / "data")
    said = refused(detect("--model", KINDS["masks"], "--boxes", "xml"))
    assert "have no masks" in said
    assert not (tmp_path / "outputs").exists()


def test_fewer_images_than_a_batch(detect, tmp_path):
    pets(tmp_path / "data")
    said = refused(detect("--batch_size", 7))
    assert "6 images to train on, fewer than one batch of 7" in said
    assert not (tmp_path / "outputs").exists()


# --- what else can go wrong ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_stops(detect, tmp_path, kind):
    pets(tmp_path / "data")
    outcome = detect("--model", KINDS[kind], "--lr", "1e30", "--profile_steps", 0)
    said = refused(outcome, status=1)
    assert re.search(r"\w+ of \w+ is (nan|inf|-inf): the training stops", said)
    assert "a smaller --lr" in said
    (folder,) = (tmp_path / "outputs").iterdir()
    assert not (folder / "detection.json").exists()
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "train.log"}


def test_a_folder_that_cannot_be_made(detect, tmp_path):
    pets(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    said = refused(detect("--output_dir", tmp_path / "file"))
    assert f"cannot make {tmp_path}/file/detect_" in said
    assert "--output_dir" in said


def test_two_runs_in_a_second(detect, tmp_path, monkeypatch):
    pets(tmp_path / "data")
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    monkeypatch.setattr(run_folder, "utc_now", lambda: moment)
    assert detect("--profile_steps", 0, "--no-save_weights")[0] == 0
    record, folder = only_record(tmp_path / "outputs")
    assert folder.name == "detect_fasterrcnn_resnet50_fpn_pets_20260102-030405"
    assert "is there already" in refused(detect("--profile_steps", 0))
    assert only_record(tmp_path / "outputs")[0] == record


def test_the_callers_random_numbers_and_threads_are_left_alone(detect, tmp_path):
    pets(tmp_path / "data")
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert detect("--profile_steps", 0)[0] == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
