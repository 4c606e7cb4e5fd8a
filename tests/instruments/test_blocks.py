"""The block view: known answers, and what must hold for every model.

``python -m tests.instruments.test_blocks`` rewrites the table in docs/blocks.md.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from functools import cache

import pytest
import torch
from torch import nn
from torchvision.models import get_model_builder

from layerbench.instruments.blocks import BlockView, find_blocks
from tests.support.paths import ROOT

DOC = ROOT / "docs" / "blocks.md"

MOBILE = ["mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0", "squeezenet1_1"]
SEARCHED = ["efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf"]
RESIDUAL = ["resnet18", "resnet50", "resnext50_32x4d", "convnext_tiny", "densenet121"]
PLAIN = ["alexnet", "vgg16", "googlenet", "inception_v3"]
ATTENTION = ["vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"]
RCNN = [f"{task}rcnn_resnet50_fpn" for task in ("faster", "mask", "keypoint")]
ONE_STAGE = [f"{name}_resnet50_fpn" for name in ("retinanet", "fcos")]
SSD = ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"]
SEGMENTATION = ["fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large"]
VIDEO = ["r3d_18", "s3d", "mvit_v2_s", "swin3d_t", "raft_small"]
TIMM_ATTENTION = ["vit_base_patch16_224", "deit_base_patch16_224", "swin_base_patch4_window7_224"]
TIMM_MIXED = ["levit_128", "maxvit_tiny_rw_224", "mixer_b16_224", "davit_tiny", "gcvit_tiny"]
TIMM_RESIDUAL = ["resnet50", "convnext_tiny", "regnety_002", "densenet121", "xception41"]
TIMM_SEARCHED = ["efficientnet_b0", "mobilenetv3_large_100", "nasnetalarge"]
TORCHVISION = [*MOBILE, *SEARCHED, *RESIDUAL, *PLAIN, *ATTENTION, *RCNN, *ONE_STAGE, *SSD]
TORCHVISION += [*SEGMENTATION, *VIDEO]
TIMM = [*TIMM_ATTENTION, *TIMM_MIXED, *TIMM_RESIDUAL, *TIMM_SEARCHED]
MODELS = [*TORCHVISION, *(f"timm:{name}" for name in TIMM)]


@cache
def model(name: str) -> nn.Module:
    """A model without storage: only its tree is looked at."""
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm")
        with torch.device("meta"):
            return timm.create_model(name.removeprefix("timm:"))
    builder = get_model_builder(name)
    options = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    # RegNet reads a value while it is built, which a tensor without storage does not have.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return builder(**options)


def rows(net: nn.Module) -> list[tuple[str, str]]:
    """(path, class) of each block in tree order."""
    view = find_blocks(net)
    return [(p, type(m).__name__) for p, m in net.named_modules() if p in view.blocks]


def kinds(name: str) -> Counter[str]:
    return Counter(kind for _, kind in rows(model(name)))


def table() -> str:
    lines = ["| model | rows | blocks |", "|---|---:|---|"]
    for name in MODELS:
        found = rows(model(name))
        runs = (
            (kind, len(list(run))) for kind, run in itertools.groupby(kind for _, kind in found)
        )
        text = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)
        lines.append(f"| {name} | {len(found)} | {text} |")
    return "\n".join(lines)


def with_table(document: str) -> str:
    pattern = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{table()}\n{m[2]}", document)


@pytest.mark.slow
def test_the_documented_table_is_what_the_rule_gives():
    pytest.importorskip("timm")
    document = DOC.read_text()
    assert document == with_table(document), "run: python -m tests.instruments.test_blocks"


def test_mobilenet_v2_has_the_rows_of_the_paper():
    assert rows(model("mobilenet_v2")) == [
        ("features.0", "Conv2dNormActivation"),
        *((f"features.{i}", "InvertedResidual") for i in range(1, 18)),
        ("features.18", "Conv2dNormActivation"),
        ("classifier", "Sequential"),
    ]
    assert find_blocks(model("mobilenet_v2")).opened == {"", "features"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"BasicBlock": 8}),
        ("resnet50", {"Bottleneck": 16}),
        ("vit_b_16", {"EncoderBlock": 12}),
        ("swin_t", {"SwinTransformerBlock": 12, "PatchMerging": 3}),
        ("swin_v2_t", {"SwinTransformerBlockV2": 12, "PatchMergingV2": 3}),
        ("densenet121", {"_DenseBlock": 4, "_Transition": 3}),
        ("efficientnet_b0", {"MBConv": 16, "Conv2dNormActivation": 2}),
        ("efficientnet_v2_s", {"FusedMBConv": 10, "MBConv": 30}),
        ("regnet_y_400mf", {"ResBottleneckBlock": 16, "SimpleStemIN": 1}),
        ("convnext_tiny", {"CNBlock": 18}),
        ("vgg16", {"Conv2d": 13, "ReLU": 13, "MaxPool2d": 5, "Sequential": 1}),
        ("alexnet", {"Conv2d": 5, "Sequential": 1}),
        ("googlenet", {"Inception": 9}),
        ("squeezenet1_1", {"Fire": 8}),
        ("ssdlite320_mobilenet_v3_large", {"InvertedResidual": 14, "SSDLiteHead": 1}),
        ("lraspp_mobilenet_v3_large", {"InvertedResidual": 15, "LRASPPHead": 1}),
        ("deeplabv3_resnet50", {"Bottleneck": 16, "DeepLabHead": 1}),
        ("retinanet_resnet50_fpn", {"Bottleneck": 16, "RetinaNetHead": 1}),
        ("raft_small", {"BottleneckBlock": 12, "UpdateBlock": 1}),
        ("mvit_v2_s", {"MultiscaleBlock": 16}),
        ("timm:vit_base_patch16_224", {"Block": 12}),
        ("timm:swin_base_patch4_window7_224", {"SwinTransformerBlock": 24, "PatchMerging": 3}),
        ("timm:regnety_002", {"Bottleneck": 13}),
        ("timm:efficientnet_b0", {"DepthwiseSeparableConv": 1, "InvertedResidual": 15}),
        ("timm:davit_tiny", {"SpatialBlock": 6, "ChannelBlock": 6}),
        ("timm:nasnetalarge", {"NormalCell": 15}),
        ("timm:xception41", {"XceptionModule": 13}),
    ],
)
def test_blocks_of_known_architectures(name, expected):
    found = kinds(name)
    assert {kind: found[kind] for kind in expected} == expected


def test_faster_rcnn_shows_backbone_blocks_and_detector_parts():
    found = rows(model("fasterrcnn_resnet50_fpn"))
    assert sum(kind == "Bottleneck" for _, kind in found) == 16
    assert {"transform", "backbone.fpn", "rpn", "roi_heads"} <= {path for path, _ in found}
    assert len(found) == 24


@pytest.mark.parametrize("name", MODELS)
def test_every_leaf_lies_in_exactly_one_block(name):
    net = model(name)
    view = find_blocks(net)
    assert_partition(net, view)
    assert len(view.blocks) > 3
    composite = [p for p in view.blocks if any(net.get_submodule(p).children())]
    assert composite, "not one block holds anything"


def assert_partition(net: nn.Module, view: BlockView) -> None:
    paths = [path for path, _ in net.named_modules()]
    assert "" in view.opened
    assert view.blocks.isdisjoint(view.opened)
    assert view.blocks | view.opened <= set(paths)
    for path in paths:
        names = path.split(".") if path else []
        above = ["", *(".".join(names[:i]) for i in range(1, len(names) + 1))]
        owners = [p for p in above if p in view.blocks]
        assert len(owners) == (0 if path in view.opened else 1), path


class Unit(nn.Module):
    def __init__(self, layers: int = 3):
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(layers)))

    def forward(self, x):
        return x + self.convs(x)


class Stage(nn.Module):
    def __init__(self, *units: nn.Module):
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, x):
        for unit in self.units:
            x = unit(x)
        return x


class Wrapper(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


class StageBlock(Stage):
    pass


class DeepBlock(Stage):
    pass


def test_a_stage_of_one_unit_comes_out_like_the_others():
    net = nn.Sequential(Stage(Unit()), Stage(Unit(), Unit()), Head())
    assert find_blocks(net).blocks == {"0.units.0", "1.units.0", "1.units.1", "2"}


def test_a_class_of_two_layers_is_a_unit_unless_a_larger_one_repeats_around_it():
    once = nn.Sequential(Stage(Unit(2), Unit(2)), Head())
    assert find_blocks(once).blocks == {"0.units.0", "0.units.1", "1"}
    repeated = nn.Sequential(Stage(Unit(2), Unit(2)), Stage(Unit(2), Unit(2)))
    assert find_blocks(repeated).blocks == {"0", "1"}


def test_a_class_called_block_stays_closed_and_one_called_stage_does_not():
    closed = nn.Sequential(DeepBlock(Unit(), Unit()), DeepBlock(Unit(), Unit()))
    assert find_blocks(closed).blocks == {"0", "1"}
    opened = nn.Sequential(StageBlock(Unit(), Unit()), Head())
    assert find_blocks(opened).blocks == {"0.units.0", "0.units.1", "1"}


def test_a_container_that_never_runs_is_never_a_row():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.by_name = nn.ModuleDict({"a": nn.Linear(2, 2)})

    assert find_blocks(Net()).blocks == {"heads.0", "heads.1", "by_name.a"}


def test_a_short_plain_chain_is_a_row_and_a_long_one_is_opened():
    def chain(layers: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers)))

    view = find_blocks(nn.Sequential(chain(5), chain(4)))
    assert view.blocks == {"0.0", "0.1", "0.2", "0.3", "0.4", "1"}


def test_a_wrapper_does_not_hide_the_network():
    assert find_blocks(Wrapper(Wrapper(Head()))).blocks == {"net.net.conv", "net.net.fc"}


def test_a_transformer_decoder_layer_is_not_broken_into_its_attentions():
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.TransformerDecoder(layer, 3), nn.Linear(8, 2))
    assert find_blocks(net).blocks == {"0.layers.0", "0.layers.1", "0.layers.2", "1"}


def test_a_module_with_two_names_counts_where_it_is_first():
    shared = Head()
    net = nn.ModuleDict({"a": shared, "b": Unit(), "c": shared})
    assert find_blocks(net).blocks == {"a", "b"}
    unit = Unit()
    inside = nn.Sequential(Stage(unit), unit, Unit())
    view = find_blocks(inside)
    assert view.blocks == {"0.units.0", "2"}
    assert_partition(inside, view)


def test_a_single_layer_is_all_there_is():
    assert find_blocks(nn.Linear(2, 2)) == BlockView(frozenset(), frozenset({""}))


def test_find_blocks_runs_and_changes_nothing():
    class Explosive(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            raise AssertionError("ran")

    net = nn.Sequential(Explosive(), Explosive())
    before = [dict(module.__dict__) for module in net.modules()]
    find_blocks(net)
    assert [dict(module.__dict__) for module in net.modules()] == before


if __name__ == "__main__":
    DOC.write_text(with_table(DOC.read_text()))
