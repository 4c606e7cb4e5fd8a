"""The commands of docs/training.md as written, on little data and for few steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layerbench import cli, store, zoo
from layerbench.records import Sweep, TrainingForecast, TrainingProfile, TrainingRun
from tests.small_data import write_cifar100, write_image_folder

ROOT = Path(__file__).resolve().parent.parent
TIMM = {
    "vit": ("VisionTransformer", 85_875_556),
    "deit": ("VisionTransformer", 85_875_556),
    "swin": ("SwinTransformer", 86_845_724),
    "resnet": ("ResNet", 23_712_932),
}


@pytest.fixture
def command(monkeypatch, capsys):
    """``command("train.py --model vit ...")``: exit status, output, complaints."""
    monkeypatch.chdir(ROOT)

    def call(line: str):
        program, *words = line.split()
        monkeypatch.setattr(sys, "argv", [program, *words, "--device", "cpu", "--quiet"])
        with pytest.raises(SystemExit) as left:
            cli.run("train") if program == "train.py" else cli.main()
        shown = capsys.readouterr()
        assert (left.value.code, shown.err) == (0, "")
        return shown.out

    return call


# DeiT's base model is a vision transformer of the same size: it is built, and not trained as well.
@pytest.mark.parametrize("model", [name for name in TIMM if name != "deit"])
def test_fine_tuning(command, model, tmp_path, monkeypatch):
    write_cifar100(tmp_path / "data", monkeypatch, train=100, test=100)
    command(
        f"train.py --model {model} --phase 2 --batch_size 2 --lr 0.001 --epochs 1 --limit 1 "
        f"--no-pretrained --no-points --data_dir {tmp_path}/data --output_dir {tmp_path}/out"
    )
    (path,) = tmp_path.glob("out/*_phase2_*/run.json")
    record = store.read_record(path)
    assert isinstance(record, TrainingRun)
    # With heads for 100 classes: timm's published counts less 900 outputs of the head.
    assert (record.model_type, record.parameters) == TIMM[model]
    assert record.recipe.size == (224, 224)
    assert record.epochs[0].steps == 1


def test_from_scratch(command, tmp_path):
    write_image_folder(tmp_path / "data", classes=2, train=3, val=1)
    command(
        f"train.py --model resnet --phase 1 --batch_size 3 --lr 0.001 --epochs 1 --size 64 "
        f"--no-points --data_dir {tmp_path}/data --output_dir {tmp_path}/out"
    )
    (path,) = tmp_path.glob("out/timm-resnet50_phase1_*/run.json")
    assert store.read_record(path).recipe.weight_decay == 0.1


def test_a_sweep(command, tmp_path):
    out = command(
        f"layerbench sweep --models vit,resnet --batches 1 --sizes 160 --seconds 0.1 "
        f"--out {tmp_path}"
    )
    assert "latency_vs_batch.png" in out
    record = store.read_record(tmp_path / "sweep.json")
    assert isinstance(record, Sweep)
    models = [zoo.SHORTHANDS[name] for name in ("vit", "resnet")]
    assert [point.model for point in record.points] == models
    assert all(point.allocated and point.flops for point in record.points)


def test_a_step_taken_apart(command, tmp_path):
    command(
        "layerbench train-profile --model resnet50 --input 2x3x64x64 --optimizer sgd --warmup 1 "
        f"--iterations 2 --out {tmp_path}"
    )
    (path,) = tmp_path.glob("*/resnet50_2x3x64x64_train_sgd.json")
    record = store.read_record(path)
    assert isinstance(record, TrainingProfile)
    assert record.memory is not None
    assert all(row.backward is not None for row in record.rows if row.calls)


def test_how_long_it_will_take(command, tmp_path):
    command(
        "layerbench estimate training-time --model resnet18 --samples 50000 --epochs 3 --batch 8 "
        f"--size 32 --warmup 1 --steps 3 --seconds 0 --out {tmp_path}"
    )
    (path,) = tmp_path.glob("*/training-time_resnet18_synthetic_32x32_b8.json")
    record = store.read_record(path)
    assert isinstance(record, TrainingForecast)
    assert (record.steps, record.recipe.epochs) == (6250, 3)
