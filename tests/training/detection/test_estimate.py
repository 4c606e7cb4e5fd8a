"""What training and inference will take: durations, memory, and what a latency depends on."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, detection
from layerbench.environment import devices
from layerbench.errors import LayerbenchError, OutputError, UsageError
from layerbench.profilers.progress import Silent
from layerbench.records.detection_estimate import (
    DetectionEstimates,
)
from layerbench.records.training_step import STEP_PHASES
from layerbench.store import reading, writing
from layerbench.training import estimate as training_estimate
from layerbench.training.detection import content, estimate, inference, models, options
from tests.support.estimates import KINDS
from tests.support.paths import ROOT
from tests.support.small_data import pets
from tests.support.small_detectors import (
    built_small,
    fingerprint,
    two_stage,
)

INPUT = (3, 40, 56)
LITE = "ssdlite320_mobilenet_v3_large"
QUICK = ["--device", "cpu", "--threads", 1, "--size", "40x56"]
QUICK += ["--warmup", 0, "--steps", 2, "--seconds", 0]


@pytest.fixture
def quick(monkeypatch):
    """As few steps and forwards as make a figure."""
    few = functools.partial(options.EstimateOptions, warmup=1, steps=3, seconds=0)
    monkeypatch.setattr(estimate, "EstimateOptions", few)


@pytest.fixture
def small(monkeypatch):
    """Small detectors by the names of large ones."""
    monkeypatch.setattr(models, "build_detector", built_small)


# --- how long ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_durations_of_a_detector_that_was_handed_over(make, quick):
    """Also with two classes, where the made-up images have eight and the background."""
    model = make(2)
    model.eval()
    model.backbone.train()
    before = fingerprint(model)
    found = detection.estimate_time("cpu", 2, 3, model, 51, INPUT)
    assert fingerprint(model) == before
    assert found.model == found.model_type == type(model).__name__
    assert (found.warmup, found.step.n) == (1, 3)
    phases = {phase.name: phase.time.mean for phase in found.phases}
    assert list(phases) == list(STEP_PHASES)
    assert sum(phases.values()) == pytest.approx(found.step.mean, rel=1e-6)
    assert (found.forward_s, found.backward_s) == (phases["forward"], phases["backward"])
    epoch = found.start_s + 25 * (found.step.mean + found.between_s)
    assert found.epoch.value == pytest.approx(epoch, rel=1e-6)
    assert found.training.value == pytest.approx(3 * epoch + found.once_s, rel=1e-6)
    # All images once, also those that fill no batch.
    assert found.inference.value == pytest.approx(51 / 2 * found.one_batch.mean, rel=1e-6)
    for time in (found.epoch, found.training, found.inference):
        assert 0 < time.low < time.value < time.high
    assert found.parts_ratio == pytest.approx(1, abs=0.02)
    assert found.one_image.n >= 3
    assert found.memory is not None
    assert found.memory.parameters == 4 * found.parameters
    assert found.fit is not None
    assert len(found.points) == len(content.LIMITS)


def test_the_callers_random_numbers_are_left_alone(quick):
    model = two_stage()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    detection.estimate_time("cpu", 2, 1, model, 8, INPUT)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_name_in_place_of_a_model(quick, small):
    found = detection.estimate_time("cpu", 2, 1, "retinanet_resnet50_fpn", 8, INPUT)
    assert (found.model, found.model_type) == ("retinanet_resnet50_fpn", "RetinaNet")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 0}, "the batch must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"total_samples": 3}, "3 images are fewer than one batch of 4"),
        ({"input_size": (1, 32, 32)}, r"such as \(3, 224, 224\), got \(1, 32, 32\)"),
        ({"input_size": (3, 32, 0)}, r"such as \(3, 224, 224\), got \(3, 32, 0\)"),
        ({"input_size": (3, 32)}, r"such as \(3, 224, 224\), got \(3, 32\)"),
        ({"device": "cuda:99"}, "--device cpu always works"),
    ],
)
def test_what_cannot_be_meant(changed, says):
    given = {
        "device": "cpu",
        "batch_size": 4,
        "epochs": 1,
        "model": two_stage(),
        "total_samples": 8,
        "input_size": INPUT,
    }
    with pytest.raises(UsageError, match=says):
        detection.estimate_time(**{**given, **changed})


# --- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", KINDS)
def test_memory_of_parameters_and_activations(make):
    model = make(3)
    model.eval()
    before = fingerprint(model)
    one, four = (detection.get_model_memory_usage(batch, model, INPUT) for batch in (1, 4))
    assert fingerprint(model) == before
    count = sum(parameter.numel() for parameter in model.parameters())
    for found, batch in ((one, 1), (four, 4)):
        assert found.parameters == 4 * count
        assert found.total == found.parameters + found.activations
        assert (found.batch, found.input_size) == (batch, INPUT)
        assert found.model_type == type(model).__name__
        training = found.training
        assert training.parameters == training.gradients == training.optimizer == 4 * count
        least = training.parameters + training.optimizer + training.activations
        assert training.peak >= least
    assert four.activations > 2 * one.activations > 0
    assert one.device.kind == "cpu"
    assert 0 < one.device_free <= one.device_bytes
    assert 0 <= one.cpu_percent <= 100
    assert 0 < one.ram_percent < 100
    assert one.ram_bytes > one.parameters


def test_frozen_parameters_have_no_gradient():
    model = two_stage()
    model.backbone.requires_grad_(False)
    found = detection.get_model_memory_usage(1, model, INPUT)
    frozen = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert found.training.gradients == found.parameters - 4 * frozen


@pytest.mark.slow
def test_memory_by_name():
    found = detection.get_model_memory_usage(2, LITE, (3, 64, 64))
    # torchvision's published count for 91 classes.
    assert found.parameters == 4 * 3_440_060
    assert found.activations > found.parameters


def test_what_memory_cannot_be_asked_for():
    with pytest.raises(UsageError, match="the batch must be at least 1"):
        detection.get_model_memory_usage(0, two_stage())
    with pytest.raises(UsageError, match="channels, height and width"):
        detection.get_model_memory_usage(1, two_stage(), (3, -1, 32))


# --- several of them, and the verb ---------------------------------------------------------


def asked(**changes: object) -> options.EstimateOptions:
    given = {"batch": 2, "samples": 8, "size": (40, 56), "warmup": 0, "steps": 2, "seconds": 0.0}
    return options.EstimateOptions(**{**given, "content": False, "memory": False, **changes})


def test_few_steps_do_where_each_takes_long(monkeypatch):
    monkeypatch.setattr(training_estimate, "SLOW_S", 0.0)
    monkeypatch.setattr(inference, "REPEATS", replace(inference.REPEATS, slow_s=0.0))
    asking = asked(warmup=2, steps=9)
    found = estimate._Subject(two_stage(), asking, devices.get("cpu"), Silent()).estimated()
    assert (found.warmup, found.step.n) == (1, 2)
    assert (found.one_image.n, found.one_batch.n) == (2, 2)
    inferred = [row.inference for row in found.parts if row.inference]
    assert {part.n for part in inferred} == {2}
    # They are of the very forwards that were timed as a whole.
    assert sum(part.mean for part in inferred) == pytest.approx(found.one_batch.mean, rel=1e-9)
    # What was asked for at least in time is still given.
    asking = asked(warmup=2, steps=3, seconds=0.3)
    longer = estimate._Subject(two_stage(), asking, devices.get("cpu"), Silent()).estimated()
    assert longer.step.n * longer.step.mean > 0.1


def test_a_chosen_size_for_all(verb, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "REPEATS", replace(inference.REPEATS, slow_s=0.0))
    status, _, err = verb(
        "--models", f"fasterrcnn_mobilenet_v3_large_320_fpn,{LITE}", "--batch", 2, "--no-content",
        "--no-memory", *QUICK, "--min_size", 48, "--out", tmp_path, "--format", "json,txt",
    )  # fmt: skip
    assert (status, err) == (0, "")
    (path,) = tmp_path.glob("*/detection_*_40x56_b2_min48.json")
    record = reading.read(path)
    assert (record.min_size, record.failures) == (48, ())
    chosen, fixed = record.rows
    assert [row.model for row in record.rows] == ["fasterrcnn_mobilenet_v3_large_320_fpn", LITE]
    note = "it takes images of one size, whatever --min_size says"
    assert note in fixed.notes
    assert note not in chosen.notes
    assert "to 48 pixels at the shorter side" in " ".join(
        path.with_suffix(".txt").read_text().split()
    )


def test_one_that_fails_is_named_and_the_others_are_measured(small, monkeypatch):
    def broken(model, classes, weights, min_size):
        made = built_small(model, classes, weights, min_size)
        if model.startswith("mask"):
            made.roi_heads.mask_head = None
            made.backbone.out_channels = 5
            made.rpn.head.conv = torch.nn.Conv2d(5, 8, 1)
        return made

    monkeypatch.setattr(models, "build_detector", broken)
    names = ["retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"]
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = detection.estimate_detectors(names, asked(), device="cpu", threads=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [row.model for row in found.rows] == [names[0], names[2]]
    (failure,) = found.failures
    assert failure.model == names[1]
    assert failure.why.startswith("inference failed: ")
    assert "\n" not in failure.why
    assert found.environment.machine.threads == 1
    assert any(line.startswith("All epochs are alike: 4 steps of 2") for line in found.assumptions)
    with pytest.raises(
        layerbench.errors.ModelRunError, match="maskrcnn_resnet50_fpn: inference failed: "
    ):
        detection.estimate_detectors(names[1:2], asked(), device="cpu")


def test_all_of_them_are_measured_where_none_is_named(small, monkeypatch):
    four = ("retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn")
    monkeypatch.setattr(models, "names", lambda: four)
    found = detection.estimate_detectors([], asked(), device="cpu")
    assert tuple(row.model for row in found.rows) == four


@pytest.fixture
def verb(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)

    def call(*arguments: object):
        command = ["layerbench", "estimate", "detection", *map(str, arguments), "--quiet"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_verb(verb, small, tmp_path):
    names = "fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn"
    status, out, err = verb("--models", names, "--batch", 2, "--samples", 50, *QUICK)
    assert (status, err) == (0, "")
    assert "Detection: what 3 epochs of 50 images will take" in out
    for column in ("weights MiB", "activations MiB", "forward", "backward", "training", "1 image"):
        assert column in out
    for part in ("backbone", "RPN", "heads", "anchors", "losses", "post-processing"):
        assert part in out
    status, out, _ = verb(
        "--models", "maskrcnn_resnet50_fpn", "--batch", 2, "--samples", 8, "--no-content",
        "--no-memory", *QUICK, "--out", tmp_path, "--format", "json,csv",
    )  # fmt: skip
    assert status == 0
    (path,) = tmp_path.glob("*/detection_maskrcnn_resnet50_fpn_synthetic_40x56_b2.json")
    record = reading.read(path)
    assert isinstance(record, DetectionEstimates)
    (row,) = record.rows
    assert (row.memory, row.points, row.fit) == (None, (), None)
    assert path.with_suffix(".csv").is_file()


def test_the_verb_on_pets(verb, small, tmp_path):
    pets(tmp_path / "data")
    status, out, err = verb(
        "--models", "maskrcnn_resnet50_fpn", "--data", "pets", "--data_dir", tmp_path / "data",
        "--classes", "species", "--batch", 2, "--no-content", "--no-memory", *QUICK,
    )  # fmt: skip
    assert (status, err) == (0, "")
    # As many as the set has.
    assert "Detection: what 3 epochs of 6 images will take" in out
    assert "The images are made up" not in out


@pytest.mark.parametrize("samples", [(), ("--samples", 8)], ids=["all", "some"])
@pytest.mark.parametrize("models", [LITE, f"{LITE},retinanet_resnet50_fpn"], ids=["one", "two"])
def test_pets_that_are_not_there(verb, small, models, samples, tmp_path):
    status, out, err = verb(
        "--models", models, "--data", "pets", "--data_dir", tmp_path, "--batch", 2, *QUICK, *samples
    )
    assert (status, out) == (2, "")
    assert "must hold the folders images and annotations" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--steps", "1"), "--steps must be at least 2"),
        (("--warmup", "-1"), "--warmup must be at least 0"),
        (("--batch", "0"), "--batch_size must be at least 1"),
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--workers", "-1"), "--workers must be at least 0"),
        (("--samples", "4"), "4 images are fewer than one batch of 8"),
        (("--samples", "0"), "--samples must be at least 1"),
        (("--models", " , "), "--models takes names with commas"),
        (("--models", "fasterrcnn_resnet50_fnp"), "did you mean fasterrcnn_resnet50_fpn"),
        (("--data", "mnist"), "no data set with boxes 'mnist'"),
        (("--boxes", "mask"), "--boxes takes trimap, xml, got 'mask'"),
        (("--classes", "dogs"), "--classes takes breed, species, got 'dogs'"),
        (
            ("--precision", "int8"),
            "--precision takes fp32, tf32, fp16, bf16, fp64, amp, amp-bf16, got 'int8'",
        ),
        (("--size", "0"), "--size takes a number"),
        (("--format", "speedscope"), "time profiles only"),
        (("--device", "cuda:99"), "--device cpu always works"),
    ],
)
def test_what_the_verb_does_not_take(verb, arguments, says):
    status, out, err = verb(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def several(verb, small, tmp_path):
    """``several(names)``: those, as little as they can be measured, written as JSON and text."""
    few = ("--batch", 2, *QUICK, "--no-memory", "--no-content")
    kept = ("--out", tmp_path, "--format", "json,txt")
    return lambda names: verb("--models", ",".join(names), *few, *kept)


def test_what_is_ended_early_has_what_was_measured(several, tmp_path, monkeypatch):
    names = ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"]

    def ended(name: str, *others: object) -> nn.Module:
        if name == names[2]:
            raise KeyboardInterrupt
        return built_small(name, *others)

    monkeypatch.setattr(models, "build_detector", ended)
    status, out, _ = several(names)
    assert (status, out) == (130, "")
    (path,) = tmp_path.rglob("*.json")
    record = reading.read(path)
    assert [row.model for row in record.rows] == names[:2]
    assert [(row.model, row.why) for row in record.failures] == [(names[2], estimate.TO_COME)]
    assert f"{names[2]}: {estimate.TO_COME}" in path.with_suffix(".txt").read_text()


def test_no_part_is_left_under_another_name(several, tmp_path, monkeypatch):
    """A record is named after the first detector that was measured, which is not yet known."""
    names = ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"]
    seen = []

    def broken(name: str, *others: object) -> nn.Module:
        if name == names[0]:
            raise LayerbenchError("it cannot be built")
        seen.extend(path.name for path in tmp_path.rglob("*.json"))
        return built_small(name, *others)

    monkeypatch.setattr(models, "build_detector", broken)
    status, out, _ = several(names)
    assert status == 0
    assert [name.partition("_synthetic")[0] for name in seen] == [
        f"detection_{names[0]}-and-1-more"
    ]
    (path,) = tmp_path.rglob("*.json")
    assert out.splitlines() == [str(path), str(path.with_suffix(".txt"))]
    assert path.name.startswith(f"detection_{names[1]}-and-1-more")


def test_what_cannot_be_kept_meanwhile_costs_no_measurement(several, tmp_path, monkeypatch):
    names = ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"]
    full = iter([True])
    usual = writing.write_text

    def write(path: Path, text: str) -> None:
        if next(full, False):
            raise OutputError(f"cannot write {path}: No space left on device")
        usual(path, text)

    monkeypatch.setattr(writing, "write_text", write)
    status, out, err = several(names)
    assert status == 0
    assert err.startswith("what was measured so far is not kept: cannot write")
    (path,) = tmp_path.rglob("*.json")
    assert out.splitlines() == [str(path), str(path.with_suffix(".txt"))]
    assert reading.read(path).failures == ()
