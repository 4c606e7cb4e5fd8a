"""Trainings and estimates in each format that a model can be converted to."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, reporters
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.workload import FORMATS
from layerbench.service.protocol.questions import Question
from layerbench.service.worker import estimate as service
from layerbench.store import reading
from layerbench.training import checkpoints, run_folder
from layerbench.training.classification import trainer
from layerbench.training.detection import estimate, models
from layerbench.training.detection.config import RunOptions
from layerbench.training.detection.options import STILL, EstimateOptions, Learning
from layerbench.training.detection.run import run_detection
from tests.models import Calls
from tests.support.paths import ROOT
from tests.support.small_detectors import built_small

READER = "tests/models.py:digit_reader"
QUICK = {"data": "digits", "size": (8, 8), "device": "cpu", "threads": 1}
ONE_STAGE = "retinanet_resnet50_fpn"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(models, "build_detector", built_small)


def verb(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["layerbench", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, capsys.readouterr().err


# --- classifiers ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_and_the_optimizers_states_have_the_format(tmp_path, precision):
    """And are numbers: PyTorch's own AdamW divides by 0 in float16."""
    layerbench.train(
        READER, **QUICK, batch=32, epochs=1, limit=2, precision=precision, points=False,
        output_dir=tmp_path,
    )  # fmt: skip
    (folder,) = tmp_path.iterdir()
    dtype = getattr(torch, FORMATS[precision])
    weights = torch.load(folder / "model.pth", weights_only=True)
    states = checkpoints.read(folder / run_folder.CHECKPOINT, "").states["optimizer"]["state"]
    moments = [state[name] for state in states.values() for name in ("exp_avg", "exp_avg_sq")]
    for tensors in (list(weights.values()), moments):
        assert {tensor.dtype for tensor in tensors} == {dtype}
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    record = reading.read(folder / "run.json")
    assert record.recipe.precision == precision
    text = reporters.render("txt", record)
    assert f"batch 32, {FORMATS[precision]}, 1 process" in text
    assert ("eps 0.0001, as 1e-08 is 0 in float16" in text) == (precision == "fp16")


def test_an_estimate_begins_with_weights_that_are_no_numbers(monkeypatch):
    original = trainer.classification_loss
    monkeypatch.setattr(
        trainer, "classification_loss", lambda *given: original(*given) * float("nan")
    )
    given = {**QUICK, "batch": 32, "steps": 2, "warmup": 0, "seconds": 0, "precision": "bf16"}
    found = layerbench.estimate_training_time(READER, **given)
    assert found.step.n == 2
    line = reporters.render("txt", found).splitlines()[2]
    assert line.startswith("10 of the model's parameters were no longer finite after the steps")


def test_a_training_step_tells_of_weights_that_are_no_numbers():
    model = Calls(lambda m, x: m.a(x) * float("nan"), a=nn.Linear(4, 4))
    told = layerbench.profile_training(model, torch.rand(2, 4), iterations=2, warmup=0)
    assert any("2 of the model's parameters were no longer finite" in note for note in told.notes)


def test_what_a_model_cannot_compute_in_a_format_is_one_line(tmp_path, monkeypatch, capsys):
    file = tmp_path / "inverted.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "class Inverted(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x.flatten(1)[:, :4])\n"
        "        return y @ torch.linalg.inv(self[0].weight)\n"
        "def model():\n    return Inverted(nn.Linear(4, 4))\n"
    )
    words = ["--model", f"{file}:model", "--data", "synthetic", "--size", 8, "--batch", 4]
    status, said = verb(
        monkeypatch, capsys, "estimate", "training-time", *words, "--precision", "bf16", "-q"
    )
    assert status == 2
    assert len(said.splitlines()) == 1
    assert "BFloat16" in said


# --- detectors -----------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_a_detectors_memory_and_steps_in_bfloat16():
    def row(precision):
        asked = EstimateOptions(
            batch=1, size=(40, 56), warmup=0, steps=2, seconds=0, content=False, samples=4,
            learning=Learning(lr=STILL, precision=precision),
        )  # fmt: skip
        found = estimate.estimate_detectors([ONE_STAGE], asked, device="cpu")
        assert not any("float32 step" in line for line in found.assumptions)
        return found.rows[0].memory

    whole, half, cast = row("fp32"), row("bf16"), row("amp-bf16")
    for kind in ("parameters", "gradients", "optimizer"):
        assert getattr(half, kind) * 2 == getattr(whole, kind) == getattr(cast, kind)
    assert half.activations < whole.activations
    assert cast.activations != whole.activations


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("verb_and_precision", ["detect bf16", "estimate-detection fp16"])
def test_a_detector_without_a_suppression_in_the_format(
    monkeypatch, capsys, tmp_path, verb_and_precision
):
    name, _, precision = verb_and_precision.partition(" ")
    words: dict[str, list[object]] = {
        "detect": [
            "--data",
            "synthetic",
            "--samples",
            4,
            "--no-save-weights",
            "--output_dir",
            tmp_path,
        ],
        "estimate-detection": ["--no-memory", "--samples", 8],
    }
    status, said = verb(
        monkeypatch, capsys, *name.split("-"), "--model", "fasterrcnn_resnet50_fpn", *words[name],
        "--size", "40x56", "--precision", precision, "--device", "cpu", "-q",
    )  # fmt: skip
    assert status == 2
    assert "nms_kernel" in said
    assert f"in {FORMATS[precision]} failed" in said


@pytest.mark.usefixtures("small")
def test_a_detector_is_trained_in_bfloat16(tmp_path):
    recipe = DetectionRecipe(
        model=ONE_STAGE, data="synthetic", samples=3, size=(40, 56), batch=1, precision="bf16",
        profile_steps=0, warmup=0,
    )  # fmt: skip
    done = run_detection(recipe, RunOptions(output_dir=tmp_path, device="cpu"))
    assert {tensor.dtype for tensor in done.model.parameters()} == {torch.bfloat16}
    assert done.record.epochs[0].steps == 3
    assert "; bfloat16; " in reporters.render("txt", done.record)


# --- the service ---------------------------------------------------------------------------


def test_the_services_memory_is_that_of_its_precision(monkeypatch):
    predicted = []
    original = service.predict

    def predict(*given: Any, **more: Any) -> Any:
        predicted.append(original(*given, **more))
        return predicted[0]

    monkeypatch.setattr(service, "predict", predict)
    question = Question(
        task_type="classification", architecture="timm:test_resnet", batch_size=2,
        image_size=(32, 32), precision="amp-bf16",
    )  # fmt: skip
    assert question.depends_on()["precision"] == "amp-bf16"
    found = service.measure(question, "cpu", 0.0)
    (estimate_of_it,) = predicted
    assert estimate_of_it.workload.precision == "amp-bf16"
    assert found.gpu_memory_peak.value == estimate_of_it.reserved_bytes


def test_a_question_from_before_there_was_a_precision_has_its_key():
    question = Question(
        task_type="classification", architecture="resnet18", batch_size=2, image_size=(64, 64)
    )
    assert "precision" not in question.depends_on()
    assert "precision" not in question.model_dump()
