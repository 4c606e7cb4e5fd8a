"""Input specs, and that reading them needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from layerbench.cli._options import WorkloadOptions
from layerbench.errors import BadInput, UsageError
from layerbench.zoo.inputs import NAMED, InputSpec, parse


@pytest.mark.parametrize(
    ("spec", "batch", "name", "shape"),
    [
        ("cityscapes", None, "cityscapes", (1, 3, 1024, 2048)),
        ("pascal", None, "pascal", (1, 3, 500, 334)),
        ("imagenet", 8, "imagenet", (8, 3, 224, 224)),
        ("coco", 1, "coco", (1, 3, 480, 640)),
        ("CIFAR100", None, "cifar100", (1, 3, 32, 32)),
        ("8x3x224x224", None, "8x3x224x224", (8, 3, 224, 224)),
        ("8X3x224x224", 8, "8x3x224x224", (8, 3, 224, 224)),
        ("3x224x192", None, "1x3x224x192", (1, 3, 224, 192)),
        ("3x224x192", 4, "4x3x224x192", (4, 3, 224, 192)),
        ("2x3x16x112x112", None, "2x3x16x112x112", (2, 3, 16, 112, 112)),
        (" 01x3x8x8 ", None, "1x3x8x8", (1, 3, 8, 8)),
    ],
)
def test_specs_that_can_be_read(spec, batch, name, shape):
    assert parse(spec, batch) == InputSpec(name, shape)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "224",
        "3x224",
        "1x3x0x224",
        "0x3x224x224",
        "-1x3x224x224",
        "1x3x224x",
        "1x3x2.5x4",
        "1,3,224,224",
        "1x3xHxW",
        "1\N{MULTIPLICATION SIGN}3\N{MULTIPLICATION SIGN}8",
        "\N{ARABIC-INDIC DIGIT ONE}x3x224x224",
        "nonsense",
    ],
)
def test_specs_that_cannot_be_read_say_what_can(spec):
    with pytest.raises(BadInput) as caught:
        parse(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in NAMED)
    assert "NxCxHxW" in message
    assert "are tensors, beside a module object, or come with it" in message
    assert "as (module, inputs)" in message


def test_a_misspelt_name_is_suggested():
    with pytest.raises(BadInput, match="did you mean cityscapes"):
        parse("cityscape")


def test_a_batch_that_contradicts_the_shape():
    with pytest.raises(BadInput, match=r"8 image.* batch is 4"):
        parse("8x3x224x224", 4)


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_that_is_not_positive(batch):
    with pytest.raises(UsageError, match="at least 1"):
        parse("imagenet", batch)


def test_more_elements_than_a_tensor_can_hold():
    with pytest.raises(BadInput, match="more elements"):
        parse(f"1x3x{10**10}x{10**10}")


def test_reading_inputs_loads_no_torch():
    code = (
        "import sys, layerbench.zoo as zoo; zoo.inputs.parse('pascal'); zoo.families();"
        "assert not {'torch', 'torchvision', 'timm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_that_is_shared_out_among_processes_says_what_to_do() -> None:
    import torch

    import layerbench

    model = torch.nn.Linear(2, 2)
    model.weight.device_mesh = "as a DTensor has one"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="time_layers in a loop of your own"):
        layerbench.structure(model, torch.rand(1, 2))


def test_the_help_of_input_names_every_named_input() -> None:
    """The help is a text of its own, so that ``--help`` does not load the zoo."""
    help = WorkloadOptions.model_fields["input"].description
    assert help is not None
    assert all(name in help for name in NAMED)
