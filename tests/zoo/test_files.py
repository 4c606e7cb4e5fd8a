"""Weights, inputs and models from files: what they are, and what is refused before it runs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, zoo
from layerbench.errors import LayerbenchError, UsageError
from layerbench.profilers.structure import profile_structure
from layerbench.records.structure import Structure
from layerbench.records.workload import Workload
from layerbench.store import paths

MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.norm(self.conv(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(), Block())
        self.head = nn.Linear(4, 2)
        self.unused = nn.Sequential(Block(), Block())

    def forward(self, image, scale=None):
        y = self.body(image).mean((2, 3))
        return self.head(y if scale is None else y * scale)

def net():
    return Net()
"""
SHAPE = "2x3x8x8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the formats that PyTorch, safetensors and NumPy write."""
    home: Path = tmp_path_factory.mktemp("files")
    (home / "net.py").write_text(MODEL)
    model = zoo.build(zoo.resolve(f"{home / 'net.py'}:net", SHAPE, seed=7)).module
    state = model.state_dict()
    torch.save(state, home / "plain.pth")
    torch.save({"epoch": 3, "state_dict": state}, home / "nested.pt")
    torch.save({"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}}, home / "ddp.bin")
    from safetensors.torch import save_file

    save_file(state, home / "plain.safetensors")
    model.eval()
    image = torch.rand(2, 3, 8, 8)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (image,), dynamic_shapes=({0: batch},))
    torch.export.save(program, home / "net.pt2")
    torch.jit.trace(model, image).save(home / "script.pt")  # type: ignore[no-untyped-call]
    torch.save(nn.Linear(2, 2), home / "whole.pth")
    return home


@pytest.fixture
def spec(folder: Path) -> str:
    return f"{folder / 'net.py'}:net"


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: nn.Module, second: dict[str, torch.Tensor]) -> bool:
    ours = first.state_dict()
    return ours.keys() == second.keys() and all(torch.equal(ours[k], v) for k, v in second.items())


def refused(**said: object) -> str:
    """The line that a refusal says; it is one."""
    with pytest.raises(UsageError) as error:
        zoo.resolve(**said)  # type: ignore[arg-type]
    line = str(error.value)
    assert "\n" not in line
    assert error.value.exit_status == 2
    return line


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "entry", "prefix"),
    [
        ("plain.pth", "", ""),
        ("nested.pt", "state_dict", ""),
        ("ddp.bin", "model", "_orig_mod.module."),
        ("plain.safetensors", "", ""),
    ],
)
def test_weights_are_loaded_and_the_record_says_from_where(folder, spec, file, entry, prefix):
    workload = zoo.resolve(spec, SHAPE, checkpoint=folder / file)
    loaded = weights(zoo.build(workload).module)
    said = workload.checkpoint
    assert said is not None
    assert (said.name, said.entry, said.prefix) == (file, entry, prefix)
    assert same(zoo.build(zoo.resolve(spec, SHAPE, seed=7)).module, loaded)
    assert not same(zoo.build(zoo.resolve(spec, SHAPE)).module, loaded)
    assert Workload.model_validate_json(workload.model_dump_json()) == workload


def test_the_models_formats_stay_and_weights_left_out_are_not_read(folder, spec):
    workload = zoo.resolve(
        spec,
        SHAPE,
        checkpoint=folder / "plain.pth",
        dtype="bfloat16",
        memory_format="channels_last",
    )
    kernel = zoo.build(workload).module.body[0].weight
    assert kernel.dtype == torch.bfloat16
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert same(zoo.build(workload, load_weights=False).module, weights_of_random(workload))


def weights_of_random(workload: Workload) -> dict[str, torch.Tensor]:
    return weights(zoo.build(workload.model_copy(update={"checkpoint": None})).module)


def test_workloads_with_the_same_weights_are_equal_wherever_the_file_lies(folder, spec, tmp_path):
    copy = tmp_path / "copy.pth"
    copy.write_bytes((folder / "plain.pth").read_bytes())
    ours = zoo.resolve(spec, SHAPE, checkpoint=folder / "plain.pth")
    assert zoo.resolve(spec, SHAPE, checkpoint=copy) == ours
    assert zoo.resolve(spec, SHAPE, checkpoint=folder / "nested.pt") != ours
    assert ours.checkpoint.digest in paths.work_name(ours)
    copy.write_bytes(copy.read_bytes() + b" ")
    changed = ours.model_copy(
        update={"checkpoint": ours.checkpoint.model_copy(update={"path": str(copy)})}
    )
    with pytest.raises(UsageError, match="has changed"):
        zoo.build(changed)


def test_a_checkpoint_of_another_model_is_refused_with_what_does_not_fit(folder, spec, tmp_path):
    state = torch.load(folder / "plain.pth")
    del state["head.bias"]
    state |= {"tail.weight": torch.rand(3), "head.weight": torch.rand(5, 4)}
    torch.save(state, tmp_path / "other.pth")
    line = refused(model=spec, input=SHAPE, checkpoint=tmp_path / "other.pth")
    assert "1 missing (head.bias); 1 unexpected (tail.weight)" in line
    assert "1 of another shape (head.weight 5x4, not 2x4)" in line


class Malicious:
    """Runs a command when it is read as a pickle."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.file}'",)


def archive_with(path: Path, source: Path, part: str, content: bytes) -> None:
    """A copy of a zip archive in which one file is another."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info, content if info.filename.endswith(part) else old.read(info))


@pytest.mark.parametrize("option", ["checkpoint", "inputs", "model"])
def test_nothing_in_a_file_is_run(folder, spec, tmp_path, option):
    ran, file = tmp_path / "ran", tmp_path / "file.pt"
    torch.save({"state_dict": Malicious(ran)}, file)
    said = {"model": spec, "input": SHAPE, option: file}
    if option == "inputs":
        del said["input"]
    if option == "model":
        import io

        pickle = io.BytesIO()
        torch.save(((Malicious(ran),), {}), pickle)
        said["model"] = str(tmp_path / "net.pt2")
        archive_with(
            tmp_path / "net.pt2", folder / "net.pt2", "sample_inputs/model.pt", pickle.getvalue()
        )
        said["input"] = None
    line = refused(**said)
    assert "nothing in it was run" in line
    assert not ran.exists()
    torch.load(file, weights_only=False)  # which is what would have
    assert ran.exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("whole.pth", "more than tensors and plain data"),
        ("cut.pth", "is not a file that torch.save wrote, or is damaged"),
        ("flipped.pth", "its checksum is another"),
        ("cut.safetensors", "is not a safetensors file, or is damaged"),
        ("words.pth", "is not a file that torch.save wrote, or is damaged"),
        ("numbers.pth", "holds no state dict"),
        (".", "is a folder"),
        ("none.pth", "there is no file"),
        ("net.py", "takes .pth, .pt, .bin"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_a_line(folder, spec, name, says):
    whole = bytearray((folder / "plain.pth").read_bytes())
    (folder / "cut.pth").write_bytes(whole[:2000])
    (folder / "cut.safetensors").write_bytes((folder / "plain.safetensors").read_bytes()[:-9])
    with zipfile.ZipFile(folder / "plain.pth") as archive:
        part = next(one for one in archive.infolist() if one.filename.endswith("/data/0"))
    place = whole.index(archive.filename and part.filename.encode()) + len(part.filename) + 80
    whole[place] ^= 255
    (folder / "flipped.pth").write_bytes(whole)
    (folder / "words.pth").write_text("weights")
    torch.save([1, 2], folder / "numbers.pth")
    assert says in refused(model=spec, input=SHAPE, checkpoint=folder / name)


def test_weights_and_inputs_are_said_once(folder, spec):
    assert "say the weights once" in refused(
        model="resnet18", weights="DEFAULT", checkpoint=folder / "plain.pth"
    )
    assert "say the input once" in refused(model=spec, input=SHAPE, inputs=folder / "a.npz")


# --- inputs -------------------------------------------------------------------------------------


def as_pt(path: Path) -> None:
    torch.save({"args": (torch.full((3, 3, 8, 8), 0.5),), "kwargs": {"scale": torch.ones(4)}}, path)


def as_npz(path: Path) -> None:
    np.savez(path, np.full((3, 3, 8, 8), 0.5), scale=np.ones(4))


def as_json(path: Path) -> None:
    image = np.full((3, 3, 8, 8), 0.5).tolist()
    path.write_text(
        json.dumps(
            {"args": [image], "kwargs": {"scale": {"data": [1, 1, 1, 1], "dtype": "float32"}}}
        )
    )


@pytest.mark.parametrize(("kind", "write"), [(".pt", as_pt), (".npz", as_npz), (".json", as_json)])
def test_inputs_of_a_file_are_what_the_model_gets(spec, tmp_path, kind, write):
    file = tmp_path / f"batch{kind}"
    write(file)
    workload = zoo.resolve(spec, inputs=file, dtype="float32")
    assert (workload.input, workload.shape, workload.batch) == (file.name, (3, 3, 8, 8), 3)
    built = zoo.build(workload)
    assert torch.equal(built.args[0], torch.full((3, 3, 8, 8), 0.5))
    assert torch.equal(built.kwargs["scale"], torch.ones(4))
    assert zoo.build_shapes(workload).args[0].is_meta
    assert zoo.resolve(spec, SHAPE, dtype="float32") != workload


def test_json_states_shapes_numbers_and_lists(tmp_path):
    file = tmp_path / "all.json"
    file.write_text(
        json.dumps(
            {
                "ids": {"shape": [2, 5], "dtype": "int64", "high": 7},
                "image": {"shape": [2, 3, 4, 4], "dtype": "float16"},
                "mask": {"shape": [2], "dtype": "bool"},
                "images": [{"shape": [3, 4, 4]}, {"shape": [3, 6, 6]}],
                "rows": [[1, 2], [3, 4]],
                "flag": True,
                "name": "x",
            }
        )
    )
    from layerbench.zoo import _files, _input_files

    read = _files.read(file, _input_files.KINDS, "--inputs")
    _, first = _input_files.read(read, 1)
    _, again = _input_files.read(read, 1)
    assert first["ids"].dtype == torch.int64
    assert int(first["ids"].max()) < 7
    assert torch.equal(first["image"], again["image"])
    assert (first["image"].dtype, first["mask"].dtype) == (torch.float16, torch.bool)
    assert [tuple(one.shape) for one in first["images"]] == [(3, 4, 4), (3, 6, 6)]
    assert torch.equal(first["rows"], torch.tensor([[1, 2], [3, 4]]))
    assert (first["flag"], first["name"]) == (True, "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"picture": {"shape": [1, 3, 8, 8]}}, "forward takes"),
        ({"args": [1, 2, 3, 4]}, "forward takes"),
        ({"image": {"shape": [1, 3, 8, 8], "dtype": "int64"}}, "need high"),
        ({"image": {"shape": [1, -3]}}, "a shape is a list of sizes"),
        ({"image": {"shape": [2**30, 2**30]}}, "more elements"),
        ({"image": {"data": [[1], [1, 2]]}}, "make no tensor"),
        ({"image": {"data": [1], "dtype": "load"}}, "no dtype"),
        ({"image": {"data": [1], "mean": 0}}, "not mean"),
        ({}, "holds no inputs"),
        ("{", "is not JSON, or is damaged"),
        ("[" * 900 + "1" + "]" * 900, "bad.json"),
        ("[" * 90000, "is not JSON, or is damaged"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(spec, tmp_path, content, says):
    file = tmp_path / "bad.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(LayerbenchError) as error:
        zoo.build(zoo.resolve(spec, inputs=file))
    assert says in str(error.value)


def test_arrays_of_objects_are_refused_and_a_batch_must_agree(spec, tmp_path):
    np.savez(tmp_path / "objects.npz", np.array([Malicious(tmp_path / "ran")], dtype=object))
    line = refused(model=spec, inputs=tmp_path / "objects.npz")
    assert "is not a file of NumPy arrays" in line
    (tmp_path / "text.npz").write_text("no archive")
    # NumPy's own advice is to read it as a pickle.
    assert "damaged: ValueError: it is no archive" in refused(
        model=spec, inputs=tmp_path / "text.npz"
    )
    as_npz(tmp_path / "batch.npz")
    assert "batch of 3, not of 2" in refused(model=spec, inputs=tmp_path / "batch.npz", batch=2)


# --- models -------------------------------------------------------------------------------------


def test_an_exported_program_has_the_modules_that_it_was_made_of(folder, spec):
    workload = zoo.resolve(str(folder / "net.pt2"))
    assert (workload.input, workload.shape, workload.weights) == ("own", (2, 3, 8, 8), "own")
    assert not workload.handed_over
    built = zoo.build(workload)
    twin = zoo.build(zoo.resolve(spec, SHAPE, seed=7)).module
    with torch.no_grad():
        assert torch.equal(built.module(*built.args), twin(*built.args))
    program, eager = (profile_structure(zoo.resolve(one, SHAPE)) for one in (workload.model, spec))
    assert program.how == "meta"
    for figure in ("path", "type", "flops", "parameters", "block", "calls", "output_shapes"):
        ours, theirs = (
            [getattr(row, figure) for row in one.rows if row.calls] for one in (program, eager)
        )
        assert ours == theirs
    for figure in ("path", "block", "parameters"):
        ours, theirs = ([getattr(row, figure) for row in one.rows] for one in (program, eager))
        assert ours == theirs
    types = {row.path: row.type for row in program.rows}
    assert [types[path] for path in ("", "body", "body.1")] == ["Net", "Sequential", "Block"]
    assert types["unused"] == "Module"  # nothing in the program says what it was


def test_a_program_says_which_inputs_it_takes(folder):
    net = str(folder / "net.pt2")
    assert zoo.build(zoo.resolve(net, "5x3x8x8", dtype="float32")).args[0].shape[0] == 5
    for input in ("2x3x9x9", "100x3x8x8"):
        with pytest.raises(LayerbenchError, match="does not fit the program"):
            zoo.build(zoo.resolve(net, input, dtype="float32"))


def test_a_checkpoint_is_loaded_onto_a_program_and_onto_torchscript(folder):
    for file in ("net.pt2", "script.pt"):
        workload = zoo.resolve(str(folder / file), SHAPE, checkpoint=folder / "nested.pt")
        assert same(zoo.build(workload).module, torch.load(folder / "plain.pth"))


def test_torchscript_runs_as_a_whole_and_says_so(folder, spec):
    workload = zoo.resolve(str(folder / "script.pt"), SHAPE)
    record = profile_structure(workload)
    eager = profile_structure(zoo.resolve(spec, SHAPE))
    assert record.rows[0].flops == eager.rows[0].flops
    assert any("TorchScript: it runs as a whole" in note for note in record.notes)
    assert "no inputs of its own" in refused(model=workload.model)


@pytest.mark.parametrize("name", ["net.pt2", "script.pt"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "words"])
def test_a_damaged_model_is_refused_in_a_line(folder, tmp_path, capfd, name, damage):
    whole = bytearray((folder / name).read_bytes())
    middle = len(whole) // 3
    whole[middle] ^= 255
    contents = {"cut": whole[:middle], "flipped": whole, "empty": b"", "words": b"a model"}
    (tmp_path / name).write_bytes(contents[damage])
    line = refused(model=str(tmp_path / name), input=SHAPE)
    assert name in line
    assert capfd.readouterr() == ("", "")


def test_a_state_dict_is_no_model(folder):
    line = refused(model=str(folder / "nested.pt"), input=SHAPE)
    assert "--checkpoint" in line


class Counting(nn.Module):
    """Makes a tensor on its input's device, which an exported graph has as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + torch.arange(x.shape[1], device=x.device)


def test_tensors_that_a_program_makes_move_with_it(tmp_path):
    torch.export.save(torch.export.export(Counting(), (torch.ones(2, 3),)), tmp_path / "c.pt2")
    workload = zoo.resolve(str(tmp_path / "c.pt2"))
    shapes = zoo.build_shapes(workload)
    assert shapes.module(*shapes.args).is_meta
    moved = zoo.build(workload).module.to("meta")
    assert moved(torch.ones(2, 3, device="meta")).is_meta
    built = zoo.build(workload)
    assert torch.equal(built.module(*built.args)[0], torch.tensor([1.0, 2.0, 3.0]))


# --- as a user meets it -------------------------------------------------------------------------


@pytest.fixture
def mem(monkeypatch, capsys):
    """``mem(*arguments)``: exit status, what was printed, what was complained about."""

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["mem.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.run("mem")
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_a_report_says_which_files_it_is_of(folder, spec, mem, tmp_path):
    as_npz(tmp_path / "batch.npz")
    said = ("--model", spec, "--inputs", tmp_path / "batch.npz", "--dtype", "float32")
    said += ("--checkpoint", folder / "ddp.bin")
    status, printed, _ = mem(*said, "--struct", "--out", tmp_path / "out")
    assert status == 0
    text, record = map(Path, printed.split())
    read = layerbench.read(record)
    assert isinstance(read, Structure)
    digest = hashlib.sha256((folder / "ddp.bin").read_bytes()).hexdigest()
    assert read.workload.checkpoint is not None
    assert read.workload.checkpoint.sha256 == digest
    assert f"checkpoint-ddp-{digest[:8]}" in text.name
    report = " ".join(text.read_text().split())
    assert f"ddp.bin, SHA-256 {digest}; its entry model; names without _orig_mod.module." in report
    assert "batch.npz, SHA-256" in report


def test_what_does_not_fit_ends_with_status_2_and_writes_nothing(folder, spec, mem, tmp_path):
    said = ("--model", "resnet18", "--checkpoint", folder / "plain.pth", "--out", tmp_path / "out")
    status, printed, complaint = mem(*said, "--struct")
    assert (status, printed, len(complaint.splitlines())) == (2, "", 1)
    assert "plain.pth does not fit resnet18" in complaint
    assert "102 missing" in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_program_is_timed_measured_and_trained_by_layer(folder):
    program = str(folder / "net.pt2")
    made = layerbench.profile(
        program, checkpoint=folder / "plain.pth", warmup=1, iterations=2, ceilings=False
    )
    assert {"body.0", "body.1.conv", "head"} <= {row.path for row in made.layers if row.inclusive}
    memory = layerbench.memory(program)
    assert memory.rows[0].calls == 1
    step = layerbench.profile_training(program, warmup=1, iterations=2)
    assert any(row.backward for row in step.rows if row.path == "body.1.conv")
    assert any("as it was exported" in note for note in step.notes)


def test_files_are_for_models_by_name(folder):
    for said in ({"checkpoint": folder / "plain.pth"}, {"inputs": folder / "batch.npz"}):
        with pytest.raises(UsageError, match="for models by name"):
            layerbench.structure(nn.Linear(2, 2), torch.rand(1, 2), **said)
    with pytest.raises(UsageError, match="of one model"):
        layerbench.sweep(["resnet18", "resnet34"], checkpoint=folder / "plain.pth")
