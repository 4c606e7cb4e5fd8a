"""Structure: hand-computed FLOPs, published figures, and nothing allocated."""

from __future__ import annotations

import copy

import pytest
import torch
import torchinfo
from torch import nn

import layerbench
from layerbench import reporters, zoo
from layerbench.records.structure import Structure
from layerbench.zoo import Built
from tests.models import Calls, Small


def row(record: Structure, path: str):
    return next(row for row in record.rows if row.path == path)


def test_flops_by_hand():
    """Small on 2x3x8x8.

    stem: 4 filters of 3*3*3 at 64 positions, 2 images: 2*64*4*27 multiply-adds = 13,824.
    block: conv 4*3*3*4*64*2 = 18,432; project 4*4*64*2 = 2,048.
    head: 4*5*2 = 40.
    """
    record = layerbench.structure(Small(), torch.zeros(2, 3, 8, 8))
    assert row(record, "stem").flops == 2 * 13_824
    assert row(record, "blocks.0").flops == 2 * (18_432 + 2_048)
    assert row(record, "blocks.0").self_flops == 0
    assert row(record, "blocks").flops == 4 * (18_432 + 2_048)
    assert row(record, "head").flops == 2 * 40
    assert record.flops == 2 * 13_824 + 4 * 20_480 + 80
    assert record.macs * 2 == record.flops
    assert record.uncounted == ()
    assert row(record, "stem").output_shapes == ((2, 4, 8, 8),)
    assert row(record, "stem").output_bytes == 2 * 4 * 8 * 8 * 4
    assert row(record, "stem").parameters == 4 * 27 + 4


def test_a_module_that_does_not_run_has_no_flops_rather_than_none():
    record = layerbench.structure(Small(), torch.zeros(2, 3, 8, 8))
    assert row(record, "unused").calls == 0
    assert row(record, "unused").flops is None


def test_a_shared_module_counts_twice_and_its_parameters_once():
    linear = nn.Linear(8, 8, bias=False)
    record = layerbench.structure(nn.Sequential(linear, nn.ReLU(), linear), torch.zeros(1, 8))
    assert record.parameters == 64
    assert row(record, "0").calls == 2
    assert record.flops == 2 * 2 * 64


def test_attention_is_counted():
    """One head of width 8, 5 tokens: projections 4*5*64 multiply-adds, scores and sum 2*5*5*8."""
    attention = nn.MultiheadAttention(8, 1, batch_first=True)
    model = Calls(lambda self, x: self.inner(x, x, x, need_weights=False)[0], inner=attention)
    record = layerbench.structure(model, torch.zeros(1, 5, 8))
    assert record.flops == 2 * (4 * 5 * 64 + 2 * 5 * 5 * 8)


def test_the_fast_path_on_the_cpu_counts_the_same(monkeypatch):
    """Its operators have formulas of ours; meta tensors never take it."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    wrapped = Calls(lambda self, x: self.inner(x, x, x, need_weights=False)[0], inner=attention)
    from layerbench.profilers.structure import observe

    for model in (layer, wrapped):
        x = torch.zeros(2, 5, 8)
        workload = zoo.describe(Built(model, (x,)))
        real = observe(workload, Built(model, (x,))).counter
        assert sum(real.flops.values()) == layerbench.structure(model, x).flops
        assert not real.uncounted


def test_what_cannot_be_counted_is_named():
    def run(self, x):
        return torch.fft.fft(self.inner(x)).real

    record = layerbench.structure(Calls(run, inner=nn.Linear(8, 8)), torch.zeros(1, 8))
    assert [operator.name for operator in record.uncounted] == ["aten._fft_r2c"]
    assert record.uncounted[0].paths == ("",)
    assert row(record, "").uncounted == ("aten._fft_r2c",)
    assert row(record, "inner").uncounted == ()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "vit_b_32",
        "swin_t",
        "convnext_tiny",
        "regnet_y_400mf",
        "densenet121",
        "googlenet",
        "maxvit_t",
    ],
)
def test_published_figures(name):
    """FLOPs and parameters as torchvision states them, at the size it states them for."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    record = layerbench.structure(name, f"1x3x{side}x{side}", weights="DEFAULT")
    assert record.how == "meta"
    assert record.parameters == weights.meta["num_params"]
    assert record.flops / 2e9 == pytest.approx(weights.meta["_ops"], rel=0.01)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_0"])
def test_agrees_with_torchinfo_where_that_counts(name):
    """Convolutions and linear layers; torchinfo counts a bias's addition, we do not."""
    record = layerbench.structure(name, "1x3x64x64")
    model = zoo.build(zoo.resolve(name)).module
    theirs = torchinfo.summary(model, (1, 3, 64, 64), verbose=0, device="cpu")
    assert record.parameters == theirs.total_params
    assert record.trainable == theirs.trainable_params
    assert record.macs == pytest.approx(theirs.total_mult_adds, rel=0.01)
    ours = {row.path: row for row in record.rows}
    for layer in theirs.summary_list:
        path = ".".join(_names(layer))
        if layer.output_size and not list(layer.module.children()):
            assert list(ours[path].output_shapes[0]) == layer.output_size


def _names(layer) -> list[str]:
    names = []
    while layer is not None and layer.parent_info is not None:
        names.append(layer.var_name)
        layer = layer.parent_info
    return names[::-1]


def test_nothing_is_allocated_for_the_largest_regnet():
    """644,812,894 parameters would take 2.4 GiB."""
    import psutil

    layerbench.structure("resnet18", "imagenet")  # imports and caches
    before = psutil.Process().memory_info().rss
    record = layerbench.structure("regnet_y_128gf", "imagenet")
    assert record.how == "meta"
    assert record.parameters == 644_812_894
    assert psutil.Process().memory_info().rss - before < 2**28


def test_a_model_that_was_handed_over_stays_as_it_was():
    model = Small().train()
    model.head.eval()
    model.stem.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    identities = [id(parameter) for parameter in model.parameters()]
    record = layerbench.structure(model, torch.zeros(2, 3, 8, 8))
    assert record.how == "meta"
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not model.head.training
    assert "forward" not in model.head.__dict__
    assert record.trainable == record.parameters - model.stem.weight.numel()


def test_a_model_that_needs_values_runs_for_real_and_says_so():
    def run(self, x):
        return self.inner(x) if x.sum().item() > -1 else x

    record = layerbench.structure(Calls(run, inner=nn.Linear(8, 8)), torch.zeros(1, 8))
    assert record.how == "cpu"
    assert record.flops == 128
    assert "for real" in record.notes[0]


def test_a_shape_that_the_model_does_not_take_is_explained():
    with pytest.raises(layerbench.errors.ModelRunError, match="Conv2d at stem, given"):
        layerbench.structure(Small(), torch.zeros(2, 5, 8, 8))


def test_the_caller_s_random_state_and_default_device_stay():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    layerbench.structure("resnet18", "imagenet")
    assert torch.equal(torch.rand(2), expected)
    assert torch.empty(1).device.type == "cpu"


def test_golden_structure(golden):
    record = layerbench.structure(Small(), torch.zeros(2, 3, 8, 8))
    fixed = record.model_copy(update={"torch": "2.8.0", "layerbench": "0.1.0"})
    golden(reporters.render("txt", fixed), ".txt")
    golden(reporters.render("md", fixed), ".md")
