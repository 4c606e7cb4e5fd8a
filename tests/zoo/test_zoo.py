"""Model specs, what they build, and what is said when they cannot be."""

from __future__ import annotations

import sys
import textwrap
import warnings
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import get_model_builder, list_models

from layerbench import zoo
from layerbench.errors import (
    BadInput,
    LayerbenchError,
    ModelImportError,
    UnknownModel,
    UsageError,
)
from layerbench.zoo import Built
from layerbench.zoo import torchvision as torchvision_family

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


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder of the user's own with a model file in it, as the working directory."""
    (tmp_path / TINY).write_text(TINY_SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("tiny_net")]:
        del sys.modules[name]


def run(built: Built):
    with torch.inference_mode():
        return built.module(*built.args, **built.kwargs)


def state(module: nn.Module) -> torch.Tensor:
    """All parameters and buffers, end to end."""
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


# --- resolve ------------------------------------------------------------------------------------


def default_input(name: str) -> tuple[int, ...]:
    package = get_model_builder(name).__module__
    if ".segmentation." in package:
        return (1, 3, 500, 334)
    if ".detection." in package:
        return (1, 3, 480, 640)
    if ".optical_flow." in package:
        return (1, 3, 256, 256)
    if ".video." in package:
        side = 112 if package.endswith("resnet") else 224
        return (1, 3, 16, side, side)
    return (1, 3, 224, 224)


def test_every_torchvision_model_resolves_to_its_tasks_input():
    resolved = {name: zoo.resolve(name).shape for name in list_models()}
    assert resolved == {name: default_input(name) for name in list_models()}
    assert len(resolved) > 100


def test_a_workload_says_all_that_was_asked_for():
    workload = zoo.resolve(
        "resnet18",
        "pascal",
        batch=4,
        dtype="bfloat16",
        memory_format="channels_last",
        mode="train",
        seed=7,
        weights="DEFAULT",
        compile=True,
    )
    assert workload.model_dump() == {
        "model": "resnet18",
        "input": "pascal",
        "shape": (4, 3, 500, 334),
        "batch": 4,
        "dtype": "bfloat16",
        "memory_format": "channels_last",
        "mode": "train",
        "seed": 7,
        "weights": "DEFAULT",
        "compile": True,
    }


def test_an_unknown_model_has_close_matches():
    with pytest.raises(UnknownModel, match=r"'mobilnet_v2'; did you mean mobilenet_v2"):
        zoo.resolve("mobilnet_v2")


@pytest.mark.parametrize("model", ["", "no such model at all", "resnet_", "net.py"])
def test_unknown_models_are_refused_in_one_line(model):
    with pytest.raises(UnknownModel) as caught:
        zoo.resolve(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"batch": 0}, UsageError),
        ({"batch": -1}, UsageError),
        ({"input": "8x3x224x224", "batch": 2}, BadInput),
        ({"input": "own"}, BadInput),
        ({"dtype": "float8"}, UsageError),
        ({"mode": "test"}, UsageError),
        ({"memory_format": "channels_first"}, UsageError),
        ({"seed": -1}, UsageError),
        ({"weights": "IMAGENET99"}, UsageError),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, error):
    with pytest.raises(error) as caught:
        zoo.resolve("resnet18", **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_weights_name_the_known_ones():
    with pytest.raises(UsageError, match="DEFAULT, IMAGENET1K_V1"):
        zoo.resolve("resnet50", weights="V9")
    assert zoo.resolve("resnet50", weights="ResNet50_Weights.IMAGENET1K_V2").weights is not None


def test_model_names_are_those_of_all_families():
    names = zoo.model_names()
    assert {"mobilenet_v2", "fasterrcnn_resnet50_fpn", "raft_small"} <= set(names)
    assert len(names) == len(set(names))


def test_families_are_found_without_a_list():
    found = [family.name for family in zoo.families()]
    assert sorted(found) == ["timm", "torchvision", "user"]
    assert found[-1] == "user"


# --- build --------------------------------------------------------------------------------------


def test_a_classifier_is_built_seeded_and_in_eval_mode():
    workload = zoo.resolve("squeezenet1_1", "cifar100", batch=2, seed=3)
    first, second = zoo.build(workload), zoo.build(workload)
    other = zoo.build(workload.model_copy(update={"seed": 4}))
    assert torch.equal(state(first.module), state(second.module))
    assert torch.equal(first.args[0], second.args[0])
    assert not torch.equal(first.args[0], other.args[0])
    assert not torch.equal(state(first.module), state(other.module))
    assert not any(module.training for module in first.module.modules())
    assert first.args[0].shape == (2, 3, 32, 32)
    assert 0 <= first.args[0].min() <= first.args[0].max() < 1
    assert run(first).shape == (2, 1000)


def test_building_leaves_the_callers_generator_and_default_device_alone():
    workload = zoo.resolve("squeezenet1_1", "cifar100")
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    with torch.device("meta"):
        built = zoo.build(workload)
    assert torch.equal(torch.rand(3), expected)
    assert {p.device.type for p in built.module.parameters()} == {"cpu"}
    assert built.args[0].device.type == "cpu"


def test_dtype_and_memory_format_reach_parameters_and_inputs():
    workload = zoo.resolve(
        "mobilenet_v2", "cifar100", batch=2, dtype="bfloat16", memory_format="channels_last"
    )
    built = zoo.build(workload)
    counter = built.module.features[0][1].num_batches_tracked
    assert {p.dtype for p in built.module.parameters()} == {torch.bfloat16}
    assert counter.dtype == torch.int64
    assert built.args[0].dtype == torch.bfloat16
    assert built.args[0].is_contiguous(memory_format=torch.channels_last)
    assert not built.args[0].is_contiguous()
    assert built.module.features[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_reaches_video_models():
    workload = zoo.resolve("r3d_18", "1x3x4x16x16", memory_format="channels_last")
    built = zoo.build(workload)
    assert built.module.stem[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert built.args[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert run(built).shape == (1, 400)


def test_train_mode():
    built = zoo.build(zoo.resolve("squeezenet1_1", "cifar100", mode="train"))
    assert all(module.training for module in built.module.modules())


def test_building_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = zoo.build(zoo.resolve("googlenet"))
    assert run(built).shape == (1, 1000)


@pytest.mark.parametrize("name", ["quantized_mobilenet_v2", "quantized_shufflenet_v2_x0_5"])
def test_quantizable_models_run_as_float_models(name):
    built = zoo.build(zoo.resolve(name, "3x64x64"))
    assert run(built).shape == (1, 1000)


def test_segmentation_takes_one_tensor():
    built = zoo.build(zoo.resolve("lraspp_mobilenet_v3_large", "2x3x64x64"))
    assert run(built)["out"].shape == (2, 21, 64, 64)


def test_optical_flow_takes_two_different_images():
    built = zoo.build(zoo.resolve("raft_small", "1x3x128x128"))
    one, two = built.args
    assert one.shape == two.shape == (1, 3, 128, 128)
    assert not torch.equal(one, two)


def test_a_detector_takes_a_list_of_images_and_downloads_nothing(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked for a download")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    built = zoo.build(zoo.resolve("ssdlite320_mobilenet_v3_large", "2x3x96x128"))
    (images,) = built.args
    assert [tuple(image.shape) for image in images] == [(3, 96, 128)] * 2
    found = run(built)
    assert [set(one) for one in found] == [{"boxes", "scores", "labels"}] * 2


def test_a_detector_in_training_gets_targets_it_learns_from():
    workload = zoo.resolve("ssdlite320_mobilenet_v3_large", "2x3x96x128", mode="train")
    built = zoo.build(workload)
    losses = built.module(*built.args)
    assert set(losses) == {"bbox_regression", "classification"}
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


@pytest.mark.parametrize(
    ("kind", "extra", "shape"),
    [("MaskRCNN", "masks", (5, 60, 80)), ("KeypointRCNN", "keypoints", (5, 17, 3))],
)
def test_targets_hold_what_the_heads_learn_from(kind, extra, shape):
    from torchvision.models import detection

    module = object.__new__(getattr(detection, kind))
    target = torchvision_family._target(module, torch.rand(3, 60, 80))
    left, top, right, bottom = target["boxes"].unbind(1)
    assert target[extra].shape == shape
    assert ((left >= 0) & (left < right) & (right <= 80)).all()
    assert ((top >= 0) & (top < bottom) & (bottom <= 60)).all()
    assert target["labels"].tolist() == [1] * 5
    if extra == "masks":
        assert (target["masks"].flatten(1).sum(1) > 0).all()
    else:
        points = target["keypoints"]
        assert (points[:, :, 0] > left[:, None]).all()
        assert (points[:, :, 0] < right[:, None]).all()


def test_weights_that_cannot_be_had_are_one_clear_line(monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(LayerbenchError, match=r"no route to host.*check the network") as caught:
        zoo.build(zoo.resolve("squeezenet1_1", "cifar100", weights="DEFAULT"))
    assert "\n" not in str(caught.value)


def test_weights_come_through_torchvisions_loader(monkeypatch):
    module = get_model_builder("squeezenet1_1")(weights=None)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *a, **k: module.state_dict()
    )
    built = zoo.build(zoo.resolve("squeezenet1_1", "cifar100", weights="IMAGENET1K_V1"))
    assert torch.equal(state(built.module), state(module))


# --- timm ---------------------------------------------------------------------------------------


def test_timm_models_take_the_size_timm_records():
    pytest.importorskip("timm")
    assert zoo.resolve("timm:resnet10t").input == "1x3x176x176"
    assert zoo.resolve("timm:vit_base_patch16_384", batch=2).shape == (2, 3, 384, 384)
    assert zoo.resolve("timm:vit_base_patch16_224").input == "imagenet"


def test_a_timm_model_runs():
    pytest.importorskip("timm")
    built = zoo.build(zoo.resolve("timm:test_vit", batch=2))
    assert run(built).shape == (2, 1000)


def test_unknown_timm_models_and_tags():
    pytest.importorskip("timm")
    with pytest.raises(UnknownModel, match="did you mean timm:"):
        zoo.resolve("timm:vit_base_patch16_223")
    with pytest.raises(UsageError, match="nope"):
        zoo.resolve("timm:vit_base_patch16_224", weights="nope")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'layerbench\[timm\]'"):
        zoo.resolve("timm:resnet18")
    assert "resnet18" in zoo.model_names()


# --- the user's own -----------------------------------------------------------------------------


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


def test_users_models_bring_their_own_weights(tiny):
    with pytest.raises(UsageError, match="its own weights"):
        zoo.resolve(f"{TINY}:make", "3x8x8", weights="DEFAULT")


def test_users_models_are_seeded_too(tiny):
    workload = zoo.resolve(f"{TINY}:with_tensor", seed=5)
    one, two = zoo.build(workload), zoo.build(workload)
    assert torch.equal(one.module.conv.weight, two.module.conv.weight)
    assert torch.equal(one.args[0], two.args[0])


# --- modules handed over in Python --------------------------------------------------------------


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
    half = zoo.describe(zoo.with_inputs(nn.ReLU(), x.half()))
    assert (half.dtype, half.shape) == ("float16", (2, 3))


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
