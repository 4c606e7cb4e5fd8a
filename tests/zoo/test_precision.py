"""One name for what is computed in: said, recorded, and in the names of files."""

import pytest
import torch

from layerbench import zoo
from layerbench.errors import UsageError
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.workload import AUTOCAST, FORMATS, Workload, real_format
from layerbench.store.paths import work_name


@pytest.mark.parametrize("precision", FORMATS)
def test_a_workload_says_only_what_its_formats_do_not(precision):
    workload = zoo.resolve("resnet18", "1x3x32x32", precision=precision)
    assert workload.dtype == FORMATS[precision]
    told = precision in ("fp32", "fp16", "bf16", "fp64")
    assert workload.precision == (None if told else precision)
    assert ("precision" in workload.model_dump()) is not told
    assert real_format(workload) == AUTOCAST.get(precision, FORMATS[precision])
    word = {"fp32": "", "fp16": "_float16", "bf16": "_bfloat16", "fp64": "_float64"}
    assert work_name(workload) == "resnet18_1x3x32x32" + word.get(precision, f"_{precision}")
    assert Workload.model_validate_json(workload.model_dump_json()) == workload


def test_the_older_name_means_the_same():
    for dtype, precision in (("float32", "fp32"), ("bfloat16", "bf16"), ("float64", "fp64")):
        assert zoo.resolve("resnet18", dtype=dtype) == zoo.resolve("resnet18", precision=precision)
    with pytest.raises(UsageError, match="say the precision once: amp, or dtype float16"):
        zoo.resolve("resnet18", precision="amp", dtype="float16")
    with pytest.raises(UsageError, match=r"precision takes fp32, tf32, .*, not 'bfloat16'"):
        zoo.resolve("resnet18", precision="bfloat16")


def test_a_module_handed_over_is_converted_to_nothing():
    subject = zoo.with_inputs(torch.nn.Linear(3, 3).bfloat16(), torch.ones(1, 3).bfloat16())
    assert zoo.describe(subject, precision="bf16").precision is None
    within = zoo.describe(subject, precision="amp")
    assert (within.dtype, within.precision, within.arithmetic) == (
        "bfloat16",
        "amp",
        "amp bfloat16",
    )
    for precision in ("fp16", "fp32", "tf32"):
        with pytest.raises(UsageError, match=r"are bfloat16: convert them to float\d\d first"):
            zoo.describe(subject, precision=precision)


def test_what_a_training_was_once_called_is_read():
    for older, newer in (("float32", "fp32"), ("bfloat16", "amp-bf16"), ("float16", "amp")):
        assert DetectionRecipe(precision=older).precision == newer
