"""Training times of models that no loader of labelled images is for, and files for any model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, reporters
from layerbench.cli.compare import _task
from layerbench.errors import NotAClassifier, UsageError
from layerbench.profilers.loss import CROSS_ENTROPY, RETURNED, SQUARE, described_loss
from layerbench.records.training_step import STEP_PHASES
from layerbench.records.workload import Plan
from layerbench.store.reading import read
from layerbench.training.classification.models import build_classifier
from layerbench.training.classification.recipes import recipe_for
from layerbench.training.classification.setup import check
from layerbench.training.own_inputs import NO_SIZE
from tests.models import small
from tests.support.paths import ROOT

SEGMENTER = "tests/models.py:segmenter_with_inputs"
SMALL = "tests/models.py:small"
QUICK = {"device": "cpu", "threads": 1, "warmup": 1, "steps": 3, "seconds": 0.0}


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Those of `small`, each of them 0.5."""
    path = tmp_path / "half.pth"
    state = small().state_dict()
    torch.save({name: torch.full_like(tensor, 0.5) for name, tensor in state.items()}, path)
    return path


def test_a_model_on_inputs_of_its_own():
    found = layerbench.estimate_training_time(SEGMENTER, epochs=2, **QUICK)
    assert (found.batches, found.loss) == ("own inputs", CROSS_ENTROPY)
    assert (found.workload.input, found.workload.shape) == ("own", (2, 1, 8, 6))
    assert (found.recipe.batch, found.recipe.size) == (2, (8, 6))
    assert (found.samples, found.steps, found.val_samples) == (1024, 512, 0)
    assert (found.warmup, found.step.n) == (1, 3)
    assert [phase.name for phase in found.phases] == list(STEP_PHASES)
    epoch = found.start_s + 512 * (found.step.mean + found.between_s)
    assert found.epoch.value == pytest.approx(epoch, rel=1e-6)
    assert found.total.value == pytest.approx(2 * epoch + found.once_s, rel=1e-6)
    assert "Nothing is validated." in found.assumptions
    text = reporters.render("txt", found)
    assert f"How long training {SEGMENTER} on inputs of its own will take" in text
    assert "one batch that waits in memory; no loading is counted" in text
    assert f"of the output alone: {CROSS_ENTROPY}" in text


def test_a_segmenter_of_torchvision_and_its_validation():
    found = layerbench.estimate_training_time(
        "lraspp_mobilenet_v3_large", batch=2, size=(32, 32), samples=9, val_samples=3, **QUICK
    )
    assert found.workload.shape == (2, 3, 32, 32)
    assert (found.steps, found.val_steps) == (4, 2)
    assert found.loss == CROSS_ENTROPY
    whole = found.start_s + 4 * (found.step.mean + found.between_s) + 2 * found.validation_step_s
    assert found.epoch.value == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("makes", "says"),
    [
        (lambda x: x, CROSS_ENTROPY),
        (lambda x: x[None], SQUARE),
        (lambda x: x[None, None], SQUARE),
        (lambda x: {"out": x[None, None]}, CROSS_ENTROPY),
        (lambda x: {"loss": x.sum(), "logits": x}, RETURNED),
        (lambda x: {"boxes": x.sum(), "classes": x.mean()}, f"{RETURNED}, 2 outputs"),
        (lambda x: (x, x[None], x.detach()), f"{CROSS_ENTROPY}, 1 output + {SQUARE}, 1 output"),
    ],
)
def test_which_loss_an_output_allows(makes, says):
    assert described_loss(makes(torch.ones(2, 3, requires_grad=True))) == says


def test_inputs_of_a_file_and_its_name(tmp_path, monkeypatch, capsys):
    given = tmp_path / "four.pt"
    torch.save(torch.rand(4, 3, 8, 8), given)
    command = ["layerbench", "estimate", "training-time", "--model", SMALL, "--inputs", given]
    command += ["--device", "cpu", "--warmup", 0, "--steps", 2, "--seconds", 0, "--quiet"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in [*command, "--out", tmp_path]])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    (path,) = tmp_path.glob("*/training-time_tests-models-small_four-pt-b4_train_*.json")
    found = read(path)
    assert (found.recipe.batch, found.workload.inputs.name) == (4, "four.pt")
    assert found.batches == "own inputs"
    assert str(path) in capsys.readouterr().out
    with pytest.raises(UsageError, match="size of the images, or name the file"):
        layerbench.estimate_training_time(SMALL, inputs=given, size=(8, 8), **QUICK)


def test_inputs_that_are_no_images(tmp_path):
    given = tmp_path / "features.pt"
    torch.save(torch.rand(3, 7), given)
    model = tmp_path / "line.py"
    model.write_text("from torch import nn\n\nmake = lambda: nn.Linear(7, 2)\n")
    found = layerbench.estimate_training_time(f"{model}:make", inputs=given, **QUICK)
    assert (found.recipe.size, found.workload.shape) == (NO_SIZE, (3, 7))


def test_a_classifier_with_weights_of_a_file(weights):
    found = layerbench.estimate_training_time(
        SMALL, size=(8, 8), batch=2, samples=8, checkpoint=weights, **QUICK
    )
    assert found.batches == "data set"
    assert found.workload.checkpoint.name == "half.pth"
    assert "checkpoint half.pth" in reporters.render("txt", found)
    recipe = recipe_for(SMALL, size=(8, 8), data="synthetic")
    stem = build_classifier(check(recipe, weights), 10).stem
    assert torch.equal(stem.weight, torch.full_like(stem.weight, 0.5))
    torch.save(nn.Linear(2, 2).state_dict(), weights)
    with pytest.raises(UsageError, match=r"half\.pth"):
        layerbench.estimate_training_time(SMALL, size=(8, 8), checkpoint=weights, **QUICK)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"data": "digits"}, "without --data its steps are estimated on inputs of its own"),
        ({"workers": 2}, "leave --workers out"),
        ({"samples": 1}, "1 images are fewer than one batch of 2"),
        ({"batch": 3}, "inputs with a batch of 2, not of 3"),
    ],
)
def test_what_cannot_be_meant_without_a_data_set(said, why):
    with pytest.raises((UsageError, NotAClassifier), match=why):
        layerbench.estimate_training_time(SEGMENTER, **{**QUICK, **said})


def test_weights_and_inputs_of_both_sides_of_a_live_comparison(weights, tmp_path):
    given = tmp_path / "two.pt"
    torch.save(torch.rand(2, 3, 8, 8), given)
    found = layerbench.compare_live(
        SMALL, SMALL, checkpoints=(weights, None), inputs=given, device="cpu", warmup=0,
        iterations=10,
    )  # fmt: skip
    sides = (found.baseline.workload, found.contender.workload)
    assert [side.checkpoint and side.checkpoint.name for side in sides] == ["half.pth", None]
    assert [side.inputs.name for side in sides] == ["two.pt"] * 2
    said = _task(f"{SMALL} --checkpoint {weights} --inputs {given} --device cpu", Plan()).workload
    assert said == sides[0]
