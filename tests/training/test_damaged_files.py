"""Files of a training that are damaged, hostile, or in use: one line each, nothing half-read."""

from __future__ import annotations

import os
import random
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin, Image, features
from torch import nn

from layerbench.errors import ModelRunError, RecordError, UsageError
from layerbench.records.defaults import MOST_PIXELS
from layerbench.training import checkpoints, run_folder
from layerbench.training.batches import Samples
from layerbench.training.checkpoints import Checkpoint
from layerbench.training.detection import config
from tests.support import sample_runs


def checkpoint() -> Checkpoint:
    """Of a small model in training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {}}
    sums = {"loss": 1.5, "correct": 2.0, "images": 3.0, "unreadable": 0.0}
    epochs = sample_runs.run().epochs
    return Checkpoint(sample_runs.recipe(), 2, 3, states, sums, epochs, (1,), ("a",), 5)


@pytest.fixture
def kept(tmp_path) -> Path:
    path = tmp_path / "checkpoint.pth"
    checkpoints.write(path, checkpoint())
    return path


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def refusal(path: Path) -> str:
    with pytest.raises(RecordError) as error:
        checkpoints.read(path)
    text = str(error.value)
    assert text.startswith((f"{path} is not a checkpoint", f"{path} is not a readable checkpoint"))
    assert text.isprintable()
    assert len(text) < 600
    return text


def test_a_checkpoint_comes_back_as_it_was(kept):
    assert same(vars(checkpoints.read(kept)), vars(checkpoint()))


def test_every_flipped_bit_is_refused_or_changes_nothing(kept):
    data, whole = kept.read_bytes(), vars(checkpoints.read(kept))
    draw = random.Random(0)
    refused = 0
    for at in draw.sample(range(len(data)), 400):
        kept.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        try:
            assert same(vars(checkpoints.read(kept)), whole)
        except RecordError:
            refused += 1
    assert refused > 200


def test_every_truncation_of_a_checkpoint_is_refused(kept):
    data = kept.read_bytes()
    for length in range(0, len(data), 199):
        kept.write_bytes(data[:length])
        refusal(kept)


def test_an_empty_checkpoint_says_so(kept):
    kept.write_bytes(b"")
    assert "it is empty" in refusal(kept)


def test_a_flipped_bit_of_the_weights_is_told_by_its_checksum(kept):
    data = bytearray(kept.read_bytes())
    weight = checkpoint().states["model"]["0.weight"].numpy().tobytes()
    data[data.index(weight)] ^= 1
    kept.write_bytes(data)
    assert "is not as it was written" in refusal(kept)


def test_a_packed_checkpoint_is_not_unpacked(kept):
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert "it is packed" in refusal(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", 0), ("epoch", "x"), ("epoch", None), ("step", -1), ("step", 2**70)),
        *(("recipe", "{"), ("recipe", 5), ("recipe", "{}"), ("rows", ["{}"]), ("rows", 5)),
        *(("rows", [5]), ("sums", {"loss": "x"}), ("sums", {"other": 1.0}), ("sums", [])),
        *(("states", []), ("images", -1), ("unreadable", [1]), ("resumed_after", ["x"])),
        *(("more", 1), ("\x1b[2J", 1)),
    ],
)
def test_a_checkpoint_with_other_values_names_the_place(kept, name, value):
    content = torch.load(kept, weights_only=True)
    content[name] = value
    torch.save(content, kept)
    text = refusal(kept)
    assert "is not a readable checkpoint" in text
    for lacking in ("epoch", "states", "rows"):
        less = {key: content[key] for key in content if key != lacking}
        torch.save(less, kept)
        refusal(kept)


@pytest.mark.parametrize("content", [[], 5, {}, {"layerbench checkpoint": 2}, torch.zeros(3)])
def test_another_file_of_torch_is_no_checkpoint(kept, content):
    torch.save(content, kept)
    assert "is not a checkpoint of this version" in refusal(kept)


class Evil:
    """Calls something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_in_a_checkpoint_runs(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"layerbench checkpoint": 1, "states": Evil()}, kept)
    refusal(kept)
    assert not (tmp_path / "pwned").exists()


def test_states_of_another_kind_are_one_line():
    from layerbench.environment import devices
    from layerbench.profilers.progress import Silent
    from layerbench.training.classification.distributed import joined
    from layerbench.training.classification.trainer import Trainer

    recipe = sample_runs.recipe()
    with joined("cpu") as ranks:
        trainer = Trainer(nn.Linear(2, 2), recipe, devices.get("cpu"), ranks, 1, Silent())
        for states in ({}, {"model": 5}, {"model": {}}, {"model": {"weight": "x", "bias": None}}):
            with pytest.raises(ModelRunError) as error:
                trainer.load(states, epoch=1, step=0)
            assert str(error.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 9_999, b"\xff", b'{"model": "\\ud800"}'])
def test_a_recipe_that_is_none(tmp_path, content):
    (tmp_path / run_folder.RECIPE).write_bytes(content)
    with pytest.raises(RecordError, match="holds no recipe") as error:
        run_folder.begun_recipe(tmp_path)
    assert str(error.value).isprintable()


# --- in use ------------------------------------------------------------------------------------


def test_a_run_is_for_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_WAIT_S", 0.01)
    (tmp_path / run_folder.RECIPE).write_text("{}")
    second = run_folder.alone(tmp_path)
    with run_folder.alone(tmp_path), pytest.raises(UsageError, match="another process trains in"):
        second.__enter__()
    with run_folder.alone(tmp_path):
        assert os.listdir(tmp_path) == [run_folder.RECIPE]


@pytest.mark.skipif(os.name != "posix", reason="the permissions of POSIX")
def test_weights_have_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        run_folder.write_weights(nn.Linear(2, 2), tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"model.pth": 0o640, "model.safetensors": 0o640}


# --- images ------------------------------------------------------------------------------------


class Files:
    """Images of a folder, as a data set reads them."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int):
        with Image.open(self._paths[index]) as image:
            return image.convert("RGB").size, 0


@pytest.mark.parametrize("size", [(40, 26), (40, 50), (400, 500)])
def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, size):
    Image.new("1", size).save(tmp_path / "a.png")
    before = Image.MAX_IMAGE_PIXELS
    found = Samples(Files(tmp_path / "a.png"), str, 0, most_pixels=1_000)[0, 0]
    pixels = size[0] * size[1]
    said = f"0 ({pixels:,} pixels, more than 1,000: --most_pixels lets larger images be read)"
    assert found == said
    assert before == Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Samples(Files(tmp_path / "a.png"), str, 0)[0, 0] == (size, 0)
    assert Samples(Files(tmp_path / "a.png"), str, 0, most_pixels=pixels)[0, 0] == (size, 0)


def test_a_small_file_of_many_pixels_is_refused_before_it_fills_memory(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 50_000
    assert f"169,000,000 pixels, more than {MOST_PIXELS:,}" in Samples(Files(path), str, 0)[0, 0]


# By what decoders of the kinds fail with: RuntimeError, NotImplementedError, AttributeError.
DAMAGED = {"AVIF": slice(60, 90), "DDS": slice(76, 92), "SPIDER": slice(84, 120)}


@pytest.mark.parametrize("kind", DAMAGED)
def test_whatever_a_decoder_fails_with_the_image_is_named(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this PIL reads no AVIF")
    path = tmp_path / "a.jpg"
    # Only a compressed DDS names its format in the bytes that are damaged here.
    options = {"pixel_format": "DXT1"} if kind == "DDS" else {}
    Image.new("F" if kind == "SPIDER" else "RGB", (40, 50)).save(path, kind, **options)
    for number in range(*DAMAGED[kind].indices(1000)):
        content = bytearray(path.read_bytes())
        content[number] ^= 0x7F
        (tmp_path / "b.jpg").write_bytes(content)
        found = Samples(Files(tmp_path / "b.jpg"), str, 0)[0, 0]
        assert found == ((40, 50), 0) or str(found).startswith(("0 (", "((")), found


def test_an_error_of_ours_is_no_unreadable_image():
    class Broken(Files):
        def __getitem__(self, index: int):
            raise RuntimeError("of the transform")

    with pytest.raises(RuntimeError, match="of the transform"):
        Samples(Broken(), str, 0)[0, 0]


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin.subprocess, "check_call", started)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", "EPS")
    assert "Ghostscript" in Samples(Files(tmp_path / "a.jpg"), str, 0)[0, 0]
    assert EpsImagePlugin.gs_binary == "gs"


# --- configurations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *("epochs = " + "[" * 5_000, "[training]\nepochs = " + "[" * 5_000 + "]" * 5_000),
        *("[training]\nepochs = " + "9" * 5_000, "[training]\nlr = 1e999", "[training]\nlr = nan"),
        *("[training]\nepochs = " + "{a = " * 5_000, "[[training]]", "training = 1", "a" * 2**21),
        *('[training]\nmodel = "\x1b[2J"', "[training]\n\x1b = 1", '[training]\nmodel = "\\ud800"'),
        *('[training]\n"\\u001b[2J" = 1', '["\\u001b[2J"]\na = 1', "[training]\nepochs = 1e400"),
        *("[training]\nsize = [1, 2, 3]", "[training]\nepochs = " + str(2**70), "\0"),
        *(f"[training]\n{'a' * 5_000} = 1", '[training]\nepochs = "' + "x" * 5_000 + '"'),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_one_line(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        config.settled({}, path)
    text = str(error.value)
    assert text.isprintable()
    assert len(text) < 7_000
