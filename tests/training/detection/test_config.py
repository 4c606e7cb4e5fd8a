"""``.config/config.toml``: what it says, what goes before it, and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layerbench import cli
from layerbench.errors import UsageError
from layerbench.records.options import option_of
from layerbench.records.recipes import DetectionRecipe
from layerbench.training.detection.config import ALIASES, RunOptions, read, settled
from tests.support.paths import ROOT

COMMITTED = ROOT / ".config" / "config.toml"
ASKED = """\
[training]
num_epochs = 1
batch_size = 2
prefetch_factor = 2
num_workers = 4
device = "cuda:0"
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Where there is no configuration unless a test writes one."""
    monkeypatch.chdir(tmp_path)


def written(text: str, path: Path = Path("own.toml")) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def training(lines: str) -> Path:
    return written(f"[training]\n{lines}\n")


def test_help_says_that_the_file_chooses_the_device():
    shown = option_of(RunOptions.model_fields["device"])
    assert shown.default_text.startswith("the configuration's, else the accelerator")


# --- what it says --------------------------------------------------------------------------


def test_the_keys_that_were_asked_for():
    path = written(ASKED.replace("= 1", "= 3").replace("batch_size = 2", "batch_size = 5"))
    recipe, around = settled({}, path)
    assert (recipe.epochs, recipe.batch, recipe.prefetch_factor, recipe.workers) == (3, 5, 2, 4)
    assert around == RunOptions(device="cuda:0")
    # The rest is as it is without a file.
    said = {"epochs": 3, "batch": 5, "prefetch_factor": 2, "workers": 4}
    assert recipe == DetectionRecipe(**said)


def test_the_text_that_was_asked_for_as_it_stands():
    assert read(written(ASKED)) == {
        "epochs": 1,
        "batch": 2,
        "prefetch_factor": 2,
        "workers": 4,
        "device": "cuda:0",
    }


def test_the_committed_file():
    assert COMMITTED.read_text().index("[training]") > 0
    assert read(COMMITTED).items() >= read(written(ASKED)).items()
    recipe, around = settled({}, COMMITTED)
    assert (recipe.model, recipe.data) == ("fasterrcnn_resnet50_fpn", "pets")
    assert (around.device, around.data_dir) == ("cuda:0", Path("data"))


def test_the_file_at_its_usual_place_is_read_unless_another_is_named():
    assert settled({}) == (DetectionRecipe(), RunOptions())
    written("[training]\nbatch_size = 7", Path(".config/config.toml"))
    assert settled({})[0].batch == 7
    assert settled({}, training("num_epochs = 4"))[0] == DetectionRecipe(epochs=4)


def test_every_key_of_ours_can_be_said():
    path = training(
        'model = "ssd300_vgg16"\ndata = "synthetic"\ndata_dir = "there"\noutput_dir = "here"\n'
        'boxes = "xml"\nclasses = "species"\npretrained = true\nlimit = 9\nlr = 0.1\n'
        "momentum = 0.5\nweight_decay = 0\nwarmup = 1\nsteps_to_profile = 2\nsamples = 30\n"
        'size = [20, 30]\nunreadable = "skip"\nprecision = "bfloat16"\nseed = 6\nthreads = 2\n'
        "download = true\nsave_weights = false"
    )
    recipe, around = settled({}, path)
    assert recipe == DetectionRecipe(
        model="ssd300_vgg16", data="synthetic", boxes="xml", labels="species", pretrained=True,
        limit=9, lr=0.1, momentum=0.5, weight_decay=0, warmup=1, profile_steps=2, samples=30,
        size=(20, 30), unreadable="skip", precision="amp-bf16", seed=6,
    )  # fmt: skip
    assert around == RunOptions(
        data_dir=Path("there"), output_dir=Path("here"), download=True, threads=2,
        save_weights=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "field"), ALIASES.items())
def test_other_names_of_keys(name, field):
    value = '"ssd300"' if field in ("data", "labels") else "3"
    assert read(training(f"{name} = {value}")).keys() == {field}


def test_an_empty_file_says_nothing():
    assert read(written("")) == {}
    assert read(written("[training]\n")) == {}


# --- what goes before it -------------------------------------------------------------------


def test_the_command_line_goes_before_the_file():
    given = {"batch": 9, "device": "cpu", "data_dir": Path("mine")}
    recipe, around = settled(given, written(ASKED))
    assert (recipe.batch, recipe.workers, recipe.epochs) == (9, 4, 1)
    assert (around.device, around.data_dir) == ("cpu", Path("mine"))


def test_options_reach_the_run(monkeypatch, capsys):
    """Each option of the verb with the key that it stands for."""
    import layerbench.training.detection.run as running

    heard = []

    def stop(recipe, around, **more):
        heard.append((recipe, around, (more["tuned"], more["tune_steps"])))
        raise UsageError("stopped here")

    monkeypatch.setattr(running, "run_detection", stop)
    words = (
        "detect --config own.toml --model ssd300_vgg16 --dataset synthetic --data_dir there "
        "--download --boxes xml --classes species --pretrained --samples 30 --size 20x30 "
        "--batch_size 5 --num_epochs 3 --limit 9 --lr 0.1 --precision bfloat16 --unreadable skip "
        "--seed 6 --device cpu --threads 2 --num_workers 1 --prefetch_factor 4 --tune --warmup 1 "
        "--tune_steps 7 --profile_steps 2 --output_dir here --no-save_weights --quiet"
    )
    written(ASKED)
    monkeypatch.setattr(sys, "argv", ["layerbench", *words.split()])
    with pytest.raises(SystemExit):
        cli.main()
    assert "stopped here" in capsys.readouterr().err
    ((recipe, around, tuned),) = heard
    assert tuned == (True, 7)
    assert recipe == DetectionRecipe(
        model="ssd300_vgg16", data="synthetic", boxes="xml", labels="species", pretrained=True,
        samples=30, size=(20, 30), batch=5, epochs=3, limit=9, lr=0.1, precision="amp-bf16",
        unreadable="skip", seed=6, workers=1, prefetch_factor=4, warmup=1, profile_steps=2,
    )  # fmt: skip
    assert around == RunOptions(
        device="cpu", data_dir=Path("there"), output_dir=Path("here"), download=True, threads=2,
        save_weights=False,
    )  # fmt: skip


# --- what is wrong with it -----------------------------------------------------------------


def complaint(path: Path | None, **given: object) -> str:
    with pytest.raises(UsageError) as error:
        settled(given, path)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("bach_size = 2", "did you mean batch_size?"),
        ("num_epoch = 2", "did you mean num_epochs?"),
        ("prefetch = 2", "did you mean prefetch_factor?"),
        ("zzz = 2", "known are "),
    ],
)
def test_an_unknown_key(line, says):
    said = complaint(training(line))
    assert said.startswith(f"own.toml has a key {line.split()[0]!r} in [training] that means")
    assert says in said


@pytest.mark.parametrize("value", ['"two"', "0", "-1", "2.5", "[2]", "{ of = 2 }"])
def test_a_batch_that_is_none_is_named(value):
    assert "batch_size" in complaint(training(f"batch_size = {value}"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("num_epochs = 0", "num_epochs"),
        ("num_workers = -1", "num_workers"),
        ("prefetch_factor = 0", "prefetch_factor"),
        ("limit = 0", "limit"),
        ("lr = 0", "lr"),
        ("momentum = 1", "momentum"),
        ('precision = "int8"', "precision"),
        ('boxes = "mask"', "boxes"),
        ('classes = "dogs"', "classes"),
        ('unreadable = "ignore"', "unreadable"),
        ("size = 20", "size"),
        ("size = [0, 20]", "size"),
        ("samples = 0", "samples"),
        ("seed = -1", "seed"),
        ("model = 3", "model"),
        ("dataset = 3", "dataset"),
        ("threads = 0", "threads"),
        ('threads = "two"', "threads"),
        ("device = 0", "device"),
        ("data_dir = 3", "data_dir"),
        ("output_dir = []", "output_dir"),
        ('download = "maybe"', "download"),
        ("save_weights = 3", "save_weights"),
    ],
)
def test_a_value_of_another_kind_names_its_key(line, named):
    assert named in complaint(training(line))


def test_a_value_of_the_command_line_that_cannot_be_meant():
    assert "epochs" in complaint(None, epochs=0)
    assert complaint(None, threads=0).startswith("threads")


def test_what_is_no_toml():
    assert complaint(written("[training\nbatch_size = 2")).startswith("own.toml is not TOML: ")
    assert "is not TOML" in complaint(written("batch_size: 2"))


def test_a_file_that_cannot_be_read():
    assert complaint(Path("nowhere.toml")).startswith("cannot read nowhere.toml: ")
    assert complaint(Path("."))
    Path("own.toml").write_bytes(b"[training]\nmodel = '\xff'")
    assert complaint(Path("own.toml")).startswith("cannot read own.toml: ")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[trainig]\nbatch_size = 2", "trainig"),
        ("[training]\nbatch_size = 2\n[model]\nname = 'x'", "model"),
        ("batch_size = 2", "batch_size"),
        ("training = 2", "training"),
        ("[[training]]\nbatch_size = 2", "training"),
    ],
)
def test_other_tables(text, named):
    said = complaint(written(text))
    assert said.startswith("own.toml holds one table, [training], not ")
    assert said.endswith(named)


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        (None, ("--config", "nowhere.toml"), "cannot read nowhere.toml"),
        ("bach_size = 2", (), "did you mean batch_size?"),
        ("batch_size = 'two'", (), "batch_size"),
        ("", ("--batch_size", "0"), "batch_size"),
        ("", ("--size", "no"), "--size takes a number"),
        ("", ("--model", "fasterrcnn_resnet50_fnp"), "did you mean fasterrcnn_resnet50_fpn"),
        ("", ("--data", "mnist", "--device", "cpu"), "no data set with boxes 'mnist'"),
    ],
)
def test_the_verb_says_what_is_wrong_in_one_line(text, words, says, monkeypatch, capsys):
    if text is not None:
        written(f"[training]\n{text}", Path(".config/config.toml"))
    monkeypatch.setattr(sys, "argv", ["layerbench", "detect", *words, "--quiet"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    assert (left.value.code, shown.out) == (2, "")
    assert says in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not Path("outputs").exists()


@pytest.mark.parametrize("line", ["epochs = true", "batch_size = false", "lr = true"])
def test_a_truth_is_no_number(line):
    """Python's True is 1."""
    with pytest.raises(UsageError, match=r"own\.toml: .* takes no (true|false)"):
        settled({}, training(line))
