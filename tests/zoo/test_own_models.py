"""The user's own models by name: as they were built, with what their files import."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

import layerbench
from layerbench import reporters, zoo
from layerbench.errors import BadInput, DeviceUnavailable
from tests.support.paths import ROOT

FORMATS = ROOT / "tests/faulty" / "formats.py"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- number formats -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "parameter_bytes"),
    [
        ("spectral", "complex64+float32", 64),
        ("complex_linear", "complex64", 160),
        ("bfloat16", "bfloat16", 8320),
        ("fine_head", "float32+float64", 8 * 9 * 4 + 4 * 9 * 8),
        ("quantized", "float16+float32", 16),
        ("rates", "float32", 80),
    ],
)
def test_a_model_keeps_its_number_formats(name, dtype, parameter_bytes):
    spec = f"{FORMATS}:{name}"
    made = layerbench.structure(spec)
    assert (made.workload.dtype, made.parameter_bytes) == (dtype, parameter_bytes)
    held = layerbench.memory(spec)
    assert held.workload.dtype == dtype
    assert sum(row.bytes for row in held.tensors if row.role == "parameter") == parameter_bytes
    timed = layerbench.profile(spec, warmup=0, iterations=2, function_iterations=0)
    assert timed.workload.dtype == dtype


def test_a_format_that_is_asked_for_is_taken():
    spec = f"{FORMATS}:fine_head"
    assert layerbench.structure(spec, dtype="float64").parameter_bytes == 108 * 8
    built = zoo.build(zoo.resolve(f"{FORMATS}:spectral", dtype="float64"))
    assert built.module.w.dtype == torch.complex128
    assert built.args[0].dtype == torch.float64


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", "bfloat16"), ("fine_head", "float32")])
def test_a_made_input_has_the_format_of_the_first_weights(name, dtype):
    workload = zoo.resolve(f"{FORMATS}:{name}", "1x1x1x8")
    assert str(zoo.build(workload).args[0].dtype) == f"torch.{dtype}"
    assert zoo.build_shapes(workload).args[0].device.type == "meta"


def test_the_report_says_the_format():
    record = layerbench.structure(f"{FORMATS}:fine_head")
    assert "float32+float64" in reporters.render("txt", record)


def test_complex_outputs_can_be_trained():
    assert layerbench.memory(f"{FORMATS}:complex_linear", training=True).optimizer == "sgd"


# --- constructors that read values ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["rates", "positions", "kept", "image", "dynamic"])
def test_a_constructor_that_reads_values_is_run_for_real(name):
    spec = f"{FORMATS}:{name}"
    module, x = getattr(__import__("tests.faulty.formats", fromlist=[name]), name)()
    handed = layerbench.structure(module, (x,))
    made = layerbench.structure(spec)
    assert (made.how, made.flops, made.parameters) == ("cpu", handed.flops, handed.parameters)
    estimate = layerbench.estimate_memory(spec, gpu_memory="1GiB")
    assert estimate.how == "replayed"
    assert estimate.fit is not None


def test_what_the_callable_raises_is_said_as_before(tmp_path):
    (tmp_path / "net.py").write_text("def build():\n    raise ValueError('no such width')\n")
    with pytest.raises(layerbench.errors.ModelImportError, match="no such width"):
        layerbench.structure(f"{tmp_path}/net.py:build", "1x3x4x4")


# --- methods that return nothing ------------------------------------------------------------------


def test_train_that_returns_nothing():
    made = layerbench.structure(f"{FORMATS}:returns_nothing")
    assert (made.parameters, made.flops) == (30, 96)
    trained = zoo.build(zoo.resolve(f"{FORMATS}:returns_nothing", mode="train")).module
    assert (trained.head.training, trained.body.training) == (True, False)
    record = layerbench.memory(f"{FORMATS}:returns_nothing", dtype="float64")
    assert record.parameters.bytes == 240


# --- imports --------------------------------------------------------------------------------------

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        nn.init.ones_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        from helper import factor
        return self.fc(x) * factor

class Hooked(Net):
    def __init__(self):
        super().__init__()
        def hook(module, args, output):
            import helper
            return output * helper.factor
        self.fc.register_forward_hook(hook)

    def forward(self, x):
        return self.fc(x)

class Threaded(Net):
    def forward(self, x):
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().forward, x).result()

class ByFunction(Net):
    def forward(self, x):
        import importlib
        return self.fc(x) * importlib.import_module("helper").factor

def plain(): return Net(), torch.ones(1, 2)
def hooked(): return Hooked(), torch.ones(1, 2)
def threaded(): return Threaded(), torch.ones(1, 2)
def by_function(): return ByFunction(), torch.ones(1, 2)
"""


@pytest.fixture
def two_folders(tmp_path):
    """Two files of one name, each with a ``helper`` beside it."""
    for folder, factor in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(NET)
        (tmp_path / folder / "helper.py").write_text(f"factor = {factor}\n")
    return tmp_path


def value(built) -> float:
    with torch.no_grad():
        return built.module(*built.args).mean().item()


@pytest.mark.parametrize("name", ["plain", "hooked", "threaded"])
def test_imports_in_forward_find_what_lies_beside_their_own_file(two_folders, name):
    before = list(sys.path)
    specs = [f"{two_folders}/{folder}/net.py:{name}" for folder in ("one", "two")]
    built = [zoo.build(zoo.resolve(spec)) for spec in specs]
    assert [value(one) for one in (*built, *built)] == [2, 4, 2, 4]
    assert sys.path == before


def test_every_command_runs_an_import_in_forward(two_folders):
    spec = f"{two_folders}/two/net.py:by_function"
    assert layerbench.structure(spec).flops == 8
    assert layerbench.memory(spec, training=True).peak.bytes > 0
    assert layerbench.estimate_memory(spec).peak_bytes > 0
    assert layerbench.profile(spec, warmup=0, iterations=2).layers
    assert layerbench.profile_training(spec, warmup=0, iterations=2).rows


def test_the_process_keeps_its_own_module_of_that_name(two_folders, monkeypatch):
    from types import ModuleType

    ours = ModuleType("helper")
    monkeypatch.setitem(sys.modules, "helper", ours)
    assert value(zoo.build(zoo.resolve(f"{two_folders}/two/net.py:plain"))) == 4
    assert sys.modules["helper"] is ours


def test_a_changed_file_is_imported_anew(two_folders):
    spec = f"{two_folders}/one/net.py:plain"
    assert value(zoo.build(zoo.resolve(spec))) == 2
    (two_folders / "one" / "helper.py").write_text("factor = 5\n")
    assert value(zoo.build(zoo.resolve(spec))) == 10


def test_a_model_without_values_is_told_what_to_do(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    with torch.device('meta'):\n"
        "        return torch.nn.Linear(4, 4), torch.rand(2, 4)\n"
    )
    spec = f"{tmp_path}/net.py:build"
    assert layerbench.structure(spec).flops == 64
    for call in (layerbench.memory, layerbench.profile):
        with pytest.raises(DeviceUnavailable, match="to_empty"):
            call(spec)


def test_a_model_that_cannot_be_moved_need_not_be(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def to(self, *wanted):\n"
        "        raise RuntimeError('cannot be moved')\n"
        "def build(): return Net(4, 4), torch.rand(2, 4)\n"
    )
    spec = f"{tmp_path}/net.py:build"
    assert layerbench.memory(spec).peak.bytes == 80 + 32 + 32
    with pytest.raises(RuntimeError, match="cannot be moved"):
        layerbench.memory(spec, dtype="float64")


@pytest.mark.parametrize("made", ["iter(rows)", "(row for row in rows)", "{'rows': iter(rows)}"])
def test_an_iterator_as_input_is_told_what_to_do(tmp_path, made):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "rows = [torch.rand(2, 4)]\n"
        f"def build(): return torch.nn.Linear(4, 4), ({made},)\n"
    )
    with pytest.raises(BadInput, match=r"_iterator|generator"):
        layerbench.structure(f"{tmp_path}/net.py:build")
    rows = iter([torch.rand(2, 4)])
    with pytest.raises(BadInput, match="give a list"):
        layerbench.memory(torch.nn.Linear(4, 4), (rows,))
    assert len(list(rows)) == 1


SOURCES = {
    "pkg/__init__.py": "",
    "pkg/part.py": "width = 4",
    "pkg/inner/__init__.py": "",
    "pkg/inner/late.py": "def plus(x): return x + 1",
    "pkg/inner/net.py": """
        import torch
        from torch import nn
        from ..part import width

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(width, width)
            def forward(self, x):
                from .late import plus
                return plus(self.fc(x))

        def build(): return Net(), torch.rand(1, 4)
        """,
    "ring.py": """
        import torch
        from torch import nn
        import ring_helper

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
            def forward(self, x):
                return ring_helper.checked(self, self.fc(x))

        def build(): return Net(), torch.rand(1, 4)
        if __name__ == "__main__":
            raise SystemExit("this is no script")
        """,
    "ring_helper.py": """
        import ring
        def checked(net, x):
            assert isinstance(net, ring.Net)
            return x
        """,
    "options.py": """
        import argparse
        from dataclasses import dataclass
        import torch

        parser = argparse.ArgumentParser()
        parser.add_argument("--width", type=int, default=4)
        given = parser.parse_args()

        @dataclass
        class Config:
            width: int = given.width

        def build(): return torch.nn.Linear(Config().width, 4), torch.rand(1, 4)
        """,
    "drawn.py": """
        import random
        import numpy as np
        import torch

        def build():
            width = random.randint(1, 1000) + int(np.random.randint(1000))
            return torch.nn.Linear(width, 4), torch.rand(1, width)
        """,
}


@pytest.mark.parametrize("place", ["pkg/inner/net.py", "ring.py", "options.py", "drawn.py"])
def test_a_file_is_imported_as_python_would(place, tmp_path, monkeypatch):
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.setattr(sys, "argv", ["mem.py", "--model", place])
    assert layerbench.memory(f"{tmp_path / place}:build").peak.bytes > 0
    assert sys.argv == ["mem.py", "--model", place]
    assert not list(tmp_path.rglob("*.pyc"))
