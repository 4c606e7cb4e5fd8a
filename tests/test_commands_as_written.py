"""The first commands of the pages on training, word for word, on small data.

The data lie where the commands look, in ``./data``. What a command leaves open is said by the
environment, which is how its work is kept small: fewer steps, smaller images. The models are those
that the commands name, with all their layers; the twelve detectors look at fewer regions of each
image (`with_less_to_do`).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection.ssd import SSD

from layerbench import cli, zoo
from layerbench.instruments.detector_parts import ITSELF, POSTPROCESSING
from layerbench.profilers import sweep
from layerbench.records.detection_estimate import DetectionEstimates, DetectorEstimate
from layerbench.records.detection_run import DetectionRun
from layerbench.records.sweep import Sweep
from layerbench.records.training_estimate import TrainingEstimate
from layerbench.records.training_run import TrainingRun
from layerbench.records.training_step import TrainingProfile
from layerbench.store import reading
from layerbench.training.detection import estimate, inference, models
from layerbench.training.detection.step import Stepper
from layerbench.zoo.family import weights_left_out
from layerbench.zoo.torchvision import build_detector
from tests.support.paths import ROOT
from tests.support.pictures import draw_unrendered
from tests.support.small_data import pets, publish_on_hub, write_cifar100, write_image_folder

# What a command finds in the folder that it is started in.
NEEDED = ("train.py", "detect.sh", "setup.sh", ".config", "layerbench")
RESNET = "python train.py --model resnet --phase 2 --download"
VIT = "python train.py --model vit --phase 1 --batch_size 128 --lr 0.001 --epochs 50"
PAIR = "torchrun --nproc-per-node 2 train.py --model resnet --phase 2"
TRAINING_TIME = (
    "python -m layerbench estimate training-time --model resnet50 --samples 50000 --epochs 3 "
    "--batch 8"
)
SWEEP = (
    "python -m layerbench sweep --models vit,deit,swin,resnet --batches 1,2,4,...,256 "
    "--sizes 160,224,288 --out sweeps"
)
TRAIN_PROFILE = (
    "python -m layerbench train-profile --model resnet50 --input 8x3x224x224 --optimizer sgd"
)
DETECTORS = (
    "python -m layerbench estimate detection --models all --batch 8 --epochs 3 --samples 50000"
)
DETECT = "python -m layerbench detect --device cpu --data synthetic --limit 50"
DETECT_SCRIPT = "sh detect.sh --device auto --download --tune"
LIGHT = "fasterrcnn_mobilenet_v3_large_320_fpn"
# Half the seconds of convolutions and matrix products, where the processor has instructions for it.
FASTEST = "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
SWIN = "timm:swin_tiny_patch4_window7_224"
# Its class, and a number of parameters that no smaller model of the family has.
REAL = {
    "vit": ("VisionTransformer", 85_000_000),
    SWIN: ("SwinTransformer", 27_400_000),
    "resnet": ("ResNet", 23_500_000),
}


def commands(page: str) -> list[str]:
    """Those of a page's first block, without their comments."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [shlex.join(shlex.split(line, comments=True)) for line in block.splitlines()]


def test_these_are_all():
    """A line that a page gains must be run here too."""
    assert commands("train.md") == [RESNET, VIT, PAIR]
    assert commands("estimate.md") == [TRAINING_TIME, DETECTORS]
    assert commands("sweep.md") == [SWEEP]
    assert commands("train-profile.md") == [TRAIN_PROFILE]
    assert commands("detect.md") == [DETECT, DETECT_SCRIPT]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder like a clone of the project, on a machine without a GPU or a network."""
    for name in NEEDED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.fixture
def published(here, monkeypatch):
    """ResNet-50's weights, as if timm had fetched them before."""
    model = timm.create_model("resnet50")
    publish_on_hub(here / "hub", model.pretrained_cfg["hf_hub_id"], model)
    # For this process, whose client read its environment when it was imported, and for others.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return model


@pytest.fixture
def told(monkeypatch):
    """``told("train", limit=1)``: say to a verb what its command line leaves open."""

    def tell(verb: str, **options: object) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"LAYERBENCH_{verb}_{name}".upper(), str(value))

    return tell


@pytest.fixture
def quickly_filled(monkeypatch):
    """New weights repeat a few thousand random numbers, for tests that read no weight.

    To draw a number for each of a real model takes longer than what is done with it.
    """
    few = 4096

    def fill(drawn: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def filled(tensor: torch.Tensor, *limits: float, **options: object) -> torch.Tensor:
            if tensor.numel() <= few:
                return drawn(tensor, *limits, **options)
            block = drawn(tensor.new_empty(few), *limits, **options)
            times = -(-tensor.numel() // few)
            return tensor.copy_(block.repeat(times)[: tensor.numel()].view(tensor.shape))

        return filled

    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, fill(getattr(torch.Tensor, name)))


class Zeros(torch.autograd.Function):
    """Zeros in the place of a product, and for the gradients of its factors."""

    @staticmethod
    def forward(ctx, shape, *factors):
        ctx.factors = [(factor.shape, factor.dtype) for factor in factors]
        return factors[0].new_zeros(shape)

    @staticmethod
    def backward(ctx, gradient):
        return None, *(gradient.new_zeros(shape, dtype=dtype) for shape, dtype in ctx.factors)


@pytest.fixture
def multiplied_by_zero(monkeypatch):
    """What layers compute of real numbers is 0 or their bias, for tests that read no value.

    Convolutions and linear layers of real models at real sizes are most of a forward's time, and
    of a backward's.
    """
    linear, conv2d = functional.linear, functional.conv2d

    @cache
    def convolved(shape: torch.Size, weight: torch.Size, *settings: object) -> torch.Size:
        x, factor = torch.empty(shape, device="meta"), torch.empty(weight, device="meta")
        return conv2d(x, factor, None, *settings).shape

    def quick_linear(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if not is_real(x):
            return linear(x, weight, bias)
        product = Zeros.apply((*x.shape[:-1], len(weight)), x, weight)
        return product if bias is None else product + bias

    def quick_conv2d(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *settings: object,
    ) -> torch.Tensor:
        if not is_real(x):
            return conv2d(x, weight, bias, *settings)
        product = Zeros.apply(convolved(x.shape, weight.shape, *settings), x, weight)
        return product if bias is None else product + bias.reshape(-1, 1, 1)

    def is_real(x: torch.Tensor) -> bool:
        return type(x) is torch.Tensor and x.device.type == "cpu"

    monkeypatch.setattr(functional, "linear", quick_linear)
    monkeypatch.setattr(functional, "conv2d", quick_conv2d)


@pytest.fixture(autouse=True)
def _unrendered(monkeypatch):
    draw_unrendered(monkeypatch)


@pytest.fixture
def typed(monkeypatch, capsys):
    """``typed(line)``: run a command line in this process; what it printed."""

    def run(line: str) -> str:
        words = shlex.split(line)[1:]
        script = words[0] == "train.py"
        monkeypatch.setattr(sys, "argv", words if script else ["layerbench", *words[2:]])
        with pytest.raises(SystemExit) as left:
            cli.run("train") if script else cli.main()
        shown = capsys.readouterr()
        assert left.value.code == 0, shown.err
        return shown.out

    return run


def started(line: str) -> str:
    """Run a command line as a shell does, in processes of its own; what it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "CDPATH"}
    scripts = sysconfig.get_path("scripts")
    environment = {
        **kept,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "LAYERBENCH_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_record(pattern: str) -> object:
    (path,) = Path().glob(pattern)
    return reading.read(path)


# --- training ------------------------------------------------------------------------------


def trained(model: str, phase: int) -> TrainingRun:
    """What the only run has recorded, of the real model."""
    record = only_record("outputs/*/run.json")
    assert isinstance(record, TrainingRun)
    assert (record.recipe.model, record.recipe.phase) == (zoo.SHORTHANDS.get(model, model), phase)
    kind, parameters = REAL[model]
    assert record.model_type == kind
    assert parameters < record.parameters < 1.1 * parameters
    assert record.outcome != "running"
    return record


@pytest.mark.slow
def test_fine_tuning_on_cifar_100(here, told, typed, monkeypatch, published):
    write_cifar100(here / "data", monkeypatch, train=4, test=2)
    told("train", epochs=1, batch_size=2, limit=1, lr=1e-9, size=64)
    typed(RESNET)
    assert trained("resnet", 2).recipe.data == "cifar100"
    (folder,) = Path("outputs").iterdir()
    assert (folder / "memory_vs_batch.png").is_file()
    # It began with the published weights: at this rate it has not gone far from them.
    found = torch.load(folder / "model.pth", weights_only=True)["conv1.weight"]
    torch.testing.assert_close(found, published.conv1.weight.detach(), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_another_model_on_cifar_100(here, told, typed, monkeypatch):
    write_cifar100(here / "data", monkeypatch, train=4, test=2)
    told("train", epochs=1, batch_size=2, size=32, points=False, pretrained=False)
    typed(RESNET.replace("resnet", SWIN) + " --lr 0.001 --device cpu --output_dir outputs")
    assert trained(SWIN, 2).epochs[0].steps == 2


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_filled")
def test_imagenet_from_scratch(here, told, typed):
    write_image_folder(here / "data", classes=2, train=64, val=1)
    # Fifty epochs are its most: it stops where the accuracy does not get better.
    told("train", size=16, patience=1, points=False)
    typed(VIT)
    record = trained("vit", 1)
    recipe = record.recipe
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.weight_decay) == (50, 128, 0.001, 0.1)
    assert record.outcome == "stopped early"
    assert all(epoch.steps == 1 for epoch in record.epochs)


@pytest.mark.slow
@pytest.mark.usefixtures("here", "published")
def test_two_processes(told):
    told("train", data="synthetic", size=32, epochs=1, batch_size=4, limit=1)
    told("train", points=False, threads=1)
    assert "finished" in started(PAIR)
    assert [times.rank for times in trained("resnet", 2).ranks] == [0, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_how_long_it_will_take(told, typed):
    told("estimate_training_time", size=32, warmup=1, steps=3, seconds=0, out="told")
    typed(TRAINING_TIME)
    record = only_record("told/*/training-time_resnet50_synthetic_32x32_b8.json")
    assert isinstance(record, TrainingEstimate)
    assert (record.steps, record.recipe.epochs) == (6250, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("here", "quickly_filled", "multiplied_by_zero")
def test_a_sweep(told, typed, monkeypatch):
    told("sweep", seconds=0.01, dtype=FASTEST)
    monkeypatch.setattr(sweep, "REPEATS", replace(sweep.REPEATS, slow_fewest=1))
    assert "latency_vs_batch.png" in typed(SWEEP)
    record = reading.read(Path("sweeps/sweep.json"))
    assert isinstance(record, Sweep)
    climbs = {
        (model, (side, side)) for model in zoo.SHORTHANDS.values() for side in (160, 224, 288)
    }
    assert {(point.model, point.size) for point in record.points} == climbs
    assert {(end.model, end.size) for end in record.ends} == climbs
    assert all(point.allocated and point.flops for point in record.points)


@pytest.mark.slow
@pytest.mark.usefixtures("here", "quickly_filled")
def test_a_step_taken_apart(told, typed):
    told("train_profile", warmup=0, iterations=1, out="told", dtype=FASTEST)
    typed(TRAIN_PROFILE)
    record = only_record("told/*/resnet50_8x3x224x224*_train_sgd.json")
    assert isinstance(record, TrainingProfile)
    assert record.memory is not None
    assert all(row.backward is not None for row in record.rows if row.calls)


# --- detection -----------------------------------------------------------------------------


TWO_STAGE = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
# Without what the heads of the others need.
LOSSES = {
    "fcos": {"classification", "bbox_regression", "bbox_ctrness"},
    "keypointrcnn": TWO_STAGE | {"loss_keypoint"},
    "maskrcnn": TWO_STAGE | {"loss_mask"},
    "fasterrcnn": TWO_STAGE,
}
ONE_STAGE = {"classification", "bbox_regression"}


@pytest.fixture
def learned(monkeypatch):
    """The names of the losses of every step that a detector was trained with, by its name."""
    heard: dict[str, list[set[str]]] = {}

    class Heard(Stepper):
        def __init__(self, name, *others):
            super().__init__(name, *others)
            self._heard = heard.setdefault(name, [])

        def step(self, fetch):
            stepped = super().step(fetch)
            self._heard.append(set(stepped.losses))
            return stepped

    monkeypatch.setattr(estimate, "Stepper", Heard)
    return heard


REGIONS, DETECTIONS = 8, 2
SSD_SIDE = 64


def with_less_to_do(*wanted: object) -> nn.Module:
    """torchvision's detector, which looks at few regions of an image, and SSD at smaller images.

    Of a thousand proposals, 512 regions and 100 objects an image, and of 300 pixels, come most of
    the minutes that all of them take.
    """
    model = build_detector(*wanted)
    if hasattr(model, "rpn"):
        # What it proposes, of which the heads look at as many as there are.
        model.rpn._post_nms_top_n = {"training": REGIONS, "testing": REGIONS}
        model.roi_heads.fg_bg_sampler.batch_size_per_image = REGIONS
        model.roi_heads.detections_per_img = DETECTIONS
    elif isinstance(model, SSD) and model.transform.fixed_size == (300, 300):
        model.transform.fixed_size = (SSD_SIDE, SSD_SIDE)
        # Without a border its last convolutions would have no input left of such an image.
        for block in model.backbone.extra[3:]:
            block[-2].padding = (1, 1)
    return model


@pytest.mark.slow
@pytest.mark.usefixtures("here", "quickly_filled", "multiplied_by_zero")
def test_every_detector(told, typed, learned, monkeypatch):
    monkeypatch.setattr(models, "build_detector", with_less_to_do)
    # Each forward is run as few times as one that takes long.
    few = replace(inference.REPEATS, slow_s=0.0, slow_fewest=1)
    monkeypatch.setattr(inference, "REPEATS", few)
    told("estimate_detection", min_size=32, size=32, warmup=0, steps=2, seconds=0)
    told("estimate_detection", content=False, memory=False, out="told", precision=FASTEST)
    typed(DETECTORS)
    record = only_record("told/*/detection_*_b8*_min32.json")
    assert isinstance(record, DetectionEstimates)
    assert (record.batch, record.epochs, record.samples) == (8, 3, 50_000)
    assert tuple(row.model for row in record.rows) == models.names()
    assert record.failures == ()
    for row in record.rows:
        check_detector(row, learned[row.model])


def check_detector(row: DetectorEstimate, losses: list[set[str]]) -> None:
    """A step and a forward of it gave all that they should."""
    name = row.model
    expected = LOSSES.get(name.partition("_")[0], ONE_STAGE)
    assert losses == [expected, expected], name
    assert row.step.n == 2
    two = expected >= TWO_STAGE
    names = [ITSELF, "transform", "backbone"]
    names += ["RPN", "heads"] if two else ["anchors", "heads", "losses"]
    parts = {part.name: part for part in row.parts}
    assert set(parts) == {*names, POSTPROCESSING}, name
    assert all(parts[part].forward is not None for part in names), name
    backward = ("backbone", "heads", "RPN") if two else ("backbone", "heads")
    assert all(parts[part].backward is not None for part in backward), name
    assert parts[POSTPROCESSING].backward is None
    # No loss is made in inference.
    assert {part for part, found in parts.items() if found.inference is None} <= {"losses"}, name
    assert row.parts_ratio == pytest.approx(1, abs=0.02), name
    with torch.device("meta"), weights_left_out():
        real = build_detector(name, None, None)
    assert row.model_type == type(real).__name__
    assert row.parameters == sum(parameter.numel() for parameter in real.parameters()), name
    assert row.boxes >= 1
    assert row.inferred.proposals is not None
    assert not two or row.inferred.detections <= DETECTIONS
    assert not two or row.trained.proposals <= REGIONS
    assert (row.trained.proposals is not None) == two, name
    fixed = "it takes images of one size, whatever --min_size says" in row.notes
    assert fixed == name.startswith("ssd"), name


def detected(model: str = "fasterrcnn_resnet50_fpn", data: str = "pets") -> DetectionRun:
    record = only_record("outputs/detect_*/detection.json")
    assert isinstance(record, DetectionRun)
    assert (record.recipe.model, record.model_type) == (model, "FasterRCNN")
    assert (record.recipe.data, record.recipe.batch) == (data, 2)
    return record


@pytest.mark.slow
def test_a_detectors_training(here, told, typed):
    told("detect", min_size=64, workers=0, samples=6, size=64)
    assert "the bottleneck is" in typed(DETECT)
    record = detected(data="synthetic")
    assert record.recipe.limit == 50
    assert record.epochs[0].steps == 3


@pytest.mark.slow
def test_a_detectors_training_by_the_script(here, told):
    pets(here / "data", train=24)
    # The loader is tuned over many steps, in which the lightest detector has less to do.
    told(
        "detect",
        min_size=32,
        workers=0,
        limit=3,
        warmup=0,
        profile_steps=1,
        model=LIGHT,
        tune_steps=1,
    )
    # A machine with one core, so that few numbers of processes are tried.
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert "the bottleneck is" in started(DETECT_SCRIPT)
    finally:
        os.sched_setaffinity(0, cores)
    tuning = detected(LIGHT).tuning
    assert tuning is not None
    assert len(tuning.points) > 1
