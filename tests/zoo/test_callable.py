"""Models that a user's callable makes, by name, and modules handed over."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections import UserDict

import pytest
import torch
from torch import nn

from layerbench import zoo
from layerbench.errors import (
    BadInput,
    ModelImportError,
    UsageError,
)
from layerbench.zoo.callable import MAY_RETURN
from layerbench.zoo.family import call_arguments
from tests.support.paths import ROOT
from tests.support.zoo import run

TINY = "tiny_net.py"


TINY_SOURCE = """
import collections
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def forward(self, x, scale=1.0):
        return self.norm(self.conv(x)) * scale

def make():
    return Net(8)

def with_tensor():
    return Net(), torch.rand(2, 3, 8, 8)

def with_tuple():
    return Net(), (torch.rand(5, 3, 8, 8), 2.0)

def with_dict():
    return Net(), {"scale": 2.0, "x": torch.rand(3, 3, 8, 8)}

def with_images():
    return Net(), [torch.rand(3, 8, 8), torch.rand(3, 6, 6)]

def with_no_tensor():
    return Net(), (1, "two")

def returns_text():
    return "a model"

def returns_nothing():
    pass

def returns_three():
    return Net(), 1, 2

def raises():
    raise RuntimeError("first line\\nsecond line")

def leaves():
    raise SystemExit(3)

def needs_arguments(width):
    return Net(width)

class Holder:
    make = staticmethod(make)

ready = Net()
number = 3
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder of the user's own with a model file in it, as the working directory."""
    (tmp_path / TINY).write_text(TINY_SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("tiny_net")]:
        del sys.modules[name]


@pytest.mark.parametrize("place", [TINY, "./tiny_net.py", "tiny_net"])
@pytest.mark.parametrize("name", ["make", "Net", "Holder.make", "ready"])
def test_a_callable_from_a_file_or_a_module_in_the_working_directory(tiny, place, name):
    workload = zoo.resolve(f"{place}:{name}", "2x3x8x8")
    assert workload.shape == (2, 3, 8, 8)
    built = zoo.build(workload)
    assert type(built.module).__name__ == "Net"
    assert run(built).shape[0] == 2


def test_a_dotted_module(tiny):
    (tiny / "tiny_net_package").mkdir()
    (tiny / "tiny_net_package" / "__init__.py").write_text("")
    (tiny / "tiny_net_package" / "nets.py").write_text(TINY_SOURCE)
    built = zoo.build(zoo.resolve("tiny_net_package.nets:make", "3x8x8"))
    assert built.module.conv.out_channels == 8


def test_a_file_imports_its_neighbours_and_the_path_stays_as_it_was(tiny):
    folder = tiny / "elsewhere"
    folder.mkdir()
    (folder / "tiny_net_neighbour.py").write_text("WIDTH = 5\n")
    (folder / "net.py").write_text(
        textwrap.dedent(
            """
            from torch import nn
            def make():
                from tiny_net_neighbour import WIDTH
                return nn.Conv2d(3, WIDTH, 1)
            """
        )
    )
    before = list(sys.path)
    built = zoo.build(zoo.resolve("elsewhere/net.py:make", "3x8x8"))
    assert built.module.out_channels == 5
    assert sys.path == before


def test_a_changed_file_is_read_again(tiny):
    assert zoo.build(zoo.resolve(f"{TINY}:make", "3x8x8")).module.conv.out_channels == 8
    (tiny / TINY).write_text(TINY_SOURCE.replace("Net(8)", "Net(16)") + "\n# longer\n")
    assert zoo.build(zoo.resolve(f"{TINY}:make", "3x8x8")).module.conv.out_channels == 16


def test_an_instance_in_the_users_file_is_not_changed(tiny):
    workload = zoo.resolve(f"{TINY}:ready", "3x8x8", dtype="float64")
    built = zoo.build(workload)
    assert built.module.conv.weight.dtype == torch.float64
    assert zoo.build(workload.model_copy(update={"dtype": "float32"})).module is not built.module
    module = next(m for n, m in sys.modules.items() if n.startswith("tiny_net_"))
    assert module.ready.conv.weight.dtype == torch.float32
    assert module.ready.training


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("with_tensor", (2, 3, 8, 8)),
        ("with_tuple", (5, 3, 8, 8)),
        ("with_dict", (3, 3, 8, 8)),
        ("with_images", (2, 3, 8, 8)),
    ],
)
def test_inputs_that_the_callable_returns_are_used(tiny, name, shape):
    workload = zoo.resolve(f"{TINY}:{name}", dtype="float64")
    assert (workload.input, workload.shape, workload.batch) == ("own", shape, shape[0])
    again = zoo.resolve(f"{TINY}:{name}", workload.input, batch=shape[0], dtype="float64")
    assert again == workload
    built = zoo.build(workload)
    if name == "with_images":
        assert [image.dtype for image in built.args[0]] == [torch.float64] * 2
    else:
        assert run(built).shape[0] == shape[0]
        assert run(built).dtype == torch.float64
    assert built.kwargs.get("scale", 2.0) == 2.0


def test_a_named_input_replaces_the_callables_own(tiny):
    built = zoo.build(zoo.resolve(f"{TINY}:with_tuple", "4x3x9x9"))
    assert [tuple(arg.shape) for arg in built.args] == [(4, 3, 9, 9)]


@pytest.mark.parametrize(
    ("spec", "arguments", "says"),
    [
        (f"{TINY}:make", {}, "--input"),
        (f"{TINY}:with_no_tensor", {"batch": 2}, "a batch of nothing"),
        (f"{TINY}:with_tensor", {"batch": 3}, "a batch of 2"),
    ],
)
def test_inputs_that_are_missing_or_contradict(tiny, spec, arguments, says):
    with pytest.raises(BadInput, match=says):
        zoo.resolve(spec, **arguments)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("absent.py:make", "no file absent.py"),
        ("no_such_package.nets:make", "No module named"),
        (f"{TINY}:mak", "did you mean make"),
        (f"{TINY}:zzz", "has no 'zzz'; it has Net, make, with_tensor"),
        (f"{TINY}:number", "cannot be called: name a function that returns the model"),
        (f"{TINY}:", "package.module:callable"),
        (":make", "package.module:callable"),
        (f"{TINY}:raises", "RuntimeError: first line"),
        (f"{TINY}:leaves", "SystemExit: 3"),
        (f"{TINY}:needs_arguments", "name a function that needs none"),
        (f"{TINY}:returns_text", "an object of type str"),
        (f"{TINY}:returns_nothing", "returned None"),
        (f"{TINY}:returns_three", "returned a tuple of 3; it must return a torch.nn.Module, or"),
        ("broken.py:make", "SyntaxError"),
        ("missing_data.py:make", "absent.txt"),
        (".:make", "cannot import"),
    ],
)
def test_a_callable_that_cannot_be_had_is_one_clear_line(tiny, spec, says):
    (tiny / "broken.py").write_text("def make(:\n")
    (tiny / "missing_data.py").write_text("open('absent.txt')\n")
    with pytest.raises(ModelImportError) as caught:
        zoo.build(zoo.resolve(spec, "3x8x8"))
    message = str(caught.value)
    assert says in message
    assert spec.partition(":")[0] in message
    assert "\n" not in message


def test_what_may_be_returned_stands_in_the_error_and_in_the_documentation():
    page = (ROOT / "docs" / "timer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\(?model.*)` \| `(model\(.*\))`", page, re.MULTILINE)
    assert len(rows) == 6
    for returned, call in rows:
        names = {"model": lambda *args, **kwargs: (args, kwargs), "x": 1, "y": 2}
        result = eval(returned, names)
        _, own = result if isinstance(result, tuple) else (result, 1)
        assert call_arguments(own) == eval(call, names)
    for pair in re.findall(r"\(module, .*?\)(?= for|, \(module|$)", MAY_RETURN):
        assert isinstance(ast.parse(pair.replace("...", "'x': 1"), mode="eval").body, ast.Tuple)


def test_users_models_bring_their_own_weights(tiny):
    with pytest.raises(UsageError, match="its own weights"):
        zoo.resolve(f"{TINY}:make", "3x8x8", weights="DEFAULT")


def test_users_models_are_seeded_too(tiny):
    workload = zoo.resolve(f"{TINY}:with_tensor", seed=5)
    one, two = zoo.build(workload), zoo.build(workload)
    assert torch.equal(one.module.conv.weight, two.module.conv.weight)
    assert torch.equal(one.args[0], two.args[0])


def test_a_module_with_an_input_spec():
    module = nn.Conv2d(3, 4, 1).double()
    built = zoo.with_inputs(module, "3x8x8", batch=2, seed=1, memory_format="channels_last")
    assert built.module is module
    assert built.args[0].dtype == torch.float64
    assert built.args[0].is_contiguous(memory_format=torch.channels_last)
    workload = zoo.describe(built, mode="train", seed=1)
    assert (workload.model, workload.input, workload.shape) == ("Conv2d", "2x3x8x8", (2, 3, 8, 8))
    assert (workload.dtype, workload.mode, workload.batch) == ("float64", "train", 2)


def test_a_module_with_ready_inputs():
    x = torch.rand(2, 3)
    assert zoo.with_inputs(nn.ReLU(), x).args[0] is x
    assert zoo.with_inputs(nn.Bilinear(3, 3, 1), (x, x)).args == (x, x)
    assert zoo.with_inputs(nn.ReLU(), {"input": x}).kwargs == {"input": x}
    assert zoo.with_inputs(nn.ReLU(), UserDict(input=x)).kwargs == {"input": x}
    assert zoo.with_inputs(nn.Bilinear(3, 3, 1), (2, 3)).args == (2, 3)
    half = zoo.describe(zoo.with_inputs(nn.ReLU(), x.half()))
    assert (half.dtype, half.shape) == ("float16", (2, 3))


@pytest.mark.parametrize("size", [(1, 3, 8, 8), torch.Size([1, 3, 8, 8])])
def test_sizes_where_inputs_belong(size):
    with pytest.raises(BadInput, match=r"^\(1, 3, 8, 8\) are .* write a shape as '1x3x8x8'$"):
        zoo.with_inputs(nn.ReLU(), size)


@pytest.mark.parametrize(
    ("given", "batch", "error"),
    [
        (None, None, BadInput),
        ("nonsense", None, BadInput),
        (torch.rand(2, 3), 4, BadInput),
        (torch.rand(2, 3), 0, UsageError),
        ((1, 2), 1, BadInput),
    ],
)
def test_inputs_for_a_module_that_cannot_be_meant(given, batch, error):
    with pytest.raises(error):
        zoo.with_inputs(nn.ReLU(), given, batch=batch)


def test_seeded_inputs_leave_the_generator_alone():
    torch.manual_seed(2)
    expected = torch.rand(2)
    torch.manual_seed(2)
    x = zoo.inputs_for((2, 3, 4, 4), "float16", "channels_last", seed=9)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(x, zoo.inputs_for((2, 3, 4, 4), "float16", seed=9))
    assert x.dtype == torch.float16
    assert x.is_contiguous(memory_format=torch.channels_last)
