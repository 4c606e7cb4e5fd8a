"""``mem.py`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerbench import cli
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.structure import Structure
from layerbench.store import reading
from tests.support.paths import ROOT

QUICK = ["--model", "tests/models.py:small", "--i", "2x3x16x16"]
STEM = "tests-models-small_2x3x16x16"


@pytest.fixture
def mem(monkeypatch, capsys):
    """``mem(*arguments)``: exit status, what was printed, what was complained about."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["mem.py", *QUICK, *arguments])
        with pytest.raises(SystemExit) as left:
            cli.run("mem")
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


@pytest.mark.slow
def test_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "mem.py", *QUICK], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "small on 2x3x16x16: memory" in done.stdout
    assert "the peak exactly" in done.stdout
    assert done.stderr == ""


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['mem.py', '--help']\n"
        "from layerbench.cli import run\n"
        "try: run('mem')\n"
        "finally: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "--gpu-memory" in done.stdout


def test_each_question_has_its_report(mem, tmp_path):
    out = ("--out", str(tmp_path), "--format", "txt,json,csv,md")
    for arguments, name, kind in (
        (("--struct",), STEM, Structure),
        (("--train", "--optimizer", "adam"), f"{STEM}_train_adam", MemoryReport),
        (("--predict",), f"{STEM}_cuda", MemoryEstimate),
    ):
        status, printed, complaint = mem(*arguments, *out)
        assert (status, complaint) == (0, "")
        assert [Path(line).name for line in printed.splitlines()] == [
            f"{name}.{suffix}" for suffix in ("txt", "json", "csv", "md")
        ]
        record = reading.read(tmp_path / f"{name}.json")
        assert isinstance(record, kind)
        lines = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert len(lines) == 1 + len(record.rows)


def test_depth_folds_rows_and_keeps_sums(mem, tmp_path):
    _, text, _ = mem("--depth", "1")
    assert "Sequential (blocks)" in text
    assert "ResidualBlock" not in text
    _, whole, _ = mem("--format", "json")
    _, folded, _ = mem("--format", "json", "--depth", "1")
    full, short = json.loads(whole), json.loads(folded)
    assert max(row["depth"] for row in short["rows"]) == 1
    for name in ("self_at_peak", "self_allocated"):
        sums = [sum(row[name] or 0 for row in record["rows"]) for record in (full, short)]
        assert sums[0] == sums[1]
    owners = {point["owner"] for point in short["timeline"]} - {None}
    assert owners <= set(range(len(short["rows"])))


@pytest.mark.parametrize("what", [("--struct",), ()])
def test_a_table_that_a_depth_shortens_says_so(mem, tmp_path, what):
    says = "csv has 5 of 13 rows: --depth leaves out those of deeper modules\n"
    _, table, complaint = mem(*what, "--format", "csv", "--depth", "1")
    assert (len(table.splitlines()), complaint) == (1 + 5, says)
    out = ("--out", str(tmp_path), "--depth", "1", "--format")
    assert mem(*what, *out, "txt,csv,json")[2] == says
    assert mem(*what, *out[:2], "--depth", "9", "--format", "csv")[2] == ""


def test_other_packages_stand_beside_ours_unless_they_are_left_out(mem):
    table, account = "Layer (type:depth-idx)", "Element type"
    _, text, _ = mem("--struct", "--columns", "num_params,mult_adds")
    header = next(line for line in text.splitlines() if table in line)
    assert header.split()[2:] == ["Param", "#", "Mult-Adds"]
    assert table not in mem("--struct", "--without", "torchinfo")[1]
    assert account in mem("--with", "memlab,torchinfo")[1]
    assert account not in mem("--without", "memlab")[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_a_gpu_that_is_not_there_is_predicted_for(mem):
    status, text, _ = mem("--device", "cuda")
    assert status == 0
    assert "memory predicted for cuda" in text
    assert "Terms besides tensors" in text


def test_does_it_fit(mem):
    _, text, _ = mem("--gpu-memory", "2GiB", "--model", "resnet18", "--i", "3x64x64")
    assert "It fits into 2.00 GiB. The largest batch that does is" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--struct", "--train"), "--struct"),
        (("--optimizer", "adam"), "add --train"),
        (("--train", "--optimizer", "adm"), "--optimizer takes sgd"),
        (("--gpu-memory", "lots"), "24GiB"),
        (("--depth", "-1"), "--depth must be at least 0"),
        (("--device", "abacus"), "no GPU 'abacus' is known"),
        (("--struct", "--with", "memlab"), "torchinfo has a section beside a structure"),
        (("--with", "torchinfo"), "for torchinfo add --struct"),
        (("--predict", "--with", "memlab"), "a prediction has no section"),
        (("--with", "deepspeed"), "--with takes memlab, torchinfo"),
        (("--struct", "--columns", "flops"), "--columns takes kernel_size"),
        (("--columns", "num_params"), "add --struct"),
        (("--lines", "stem"), "--lines needs a GPU"),
        (("--struct", "--lines", "stem"), "--lines is memlab's"),
        (("--predict", "--device", "cpu"), "predicted for cuda"),
        (("--format", "docx"), "docx"),
        (("--model", "resnet5o"), "did you mean resnet50"),
        (("--i", "2x5x16x16"), "Conv2d at stem, given [2, 5, 16, 16]"),
        (("--struct", "--i", "2x5x16x16"), "Conv2d at stem, given [2, 5, 16, 16]"),
        (("--predict", "--i", "2x5x16x16"), "Conv2d at stem, given [2, 5, 16, 16]"),
        (("--i", "9999999x3x9999x9999"), "free"),
        (("--model", "resnet50", "--i", "9999x3x224x224"), "the run needs at least"),
        (("--out", "setup.sh/reports"), "setup.sh"),
    ],
)
def test_bad_input_is_one_line_and_status_2(mem, arguments, says, tmp_path):
    out = () if "--out" in arguments else ("--out", str(tmp_path))
    status, printed, complaint = mem(*out, *arguments)
    assert status == 2
    assert says in complaint
    assert len(complaint.strip().splitlines()) == 1
    assert printed == ""
    assert not any(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("ending", ["json", "txt", "md", "csv"])
def test_a_structure_and_a_memory_report_of_one_model_lie_side_by_side(mem, tmp_path, ending):
    ask = ("--out", str(tmp_path), "--format", ending)
    places = [mem(*ask)[1], mem("--struct", *ask)[1], mem(*ask)[1], mem("--struct", *ask)[1]]
    assert [Path(place.strip()).name for place in places] == [
        f"{STEM}.{ending}",
        f"{STEM}_structure.{ending}",
    ] * 2


@pytest.mark.parametrize("size", ["24", "0.5", "1000000"])
def test_a_size_without_its_unit_is_asked_for(mem, size):
    status, _, err = mem("--gpu-memory", size)
    assert (status, f"did you mean {size}GiB?" in err) == (2, True)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("my_model.py", "my_model.py:callable"),
        ("r18.bin", "r18.bin holds weights and no code"),
        ("dir/net.safetensors", "--model resnet50 --checkpoint dir/net.safetensors"),
        ("r18.pt", "there is no file r18.pt"),
        ("r18.onnx", "path/to/file.py:callable"),
        ("package.module", "package.module:callable"),
        ("./dir/net", "path/to/file.py:callable"),
    ],
)
def test_what_to_write_for_a_file(mem, model, says):
    status, _, err = mem("--model", model)
    assert (status, says in err, "torchvision" in err) == (2, True, False)


def test_what_to_write_for_weights_of_ones_own(mem):
    status, _, err = mem("--model", "resnet18", "--weights", "x.pth")
    assert (status, "--checkpoint FILE" in err) == (2, True)


def test_what_pytorch_says_of_sparse_tensors_is_kept_back(mem, tmp_path, recwarn) -> None:
    """PyTorch says it once in a process, so the model says it here; its own warning is heard."""
    file = tmp_path / "sparse.py"
    file.write_text(
        "import warnings, torch\n"
        "def build():\n"
        "    warnings.warn('Sparse CSR tensor support is in beta state. If you miss')\n"
        "    warnings.warn('Sparse invariant checks are implicitly disabled. Memory errors')\n"
        "    warnings.warn('of my own')\n"
        "    return torch.nn.Linear(16, 16)\n"
    )
    assert mem("--struct", "--model", f"{file}:build")[0] == 0
    assert {str(warning.message) for warning in recwarn} == {"of my own"}
