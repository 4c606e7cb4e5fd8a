"""What must hold for every family of models: instruments change nothing, and times add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerbench import zoo
from layerbench.environment.devices.clocks import PerfCounter
from layerbench.environment.precision import autocasting
from layerbench.instruments.attach import mode_set
from layerbench.instruments.blocks import find_blocks
from layerbench.instruments.function_timer import FunctionTimer
from layerbench.instruments.layer_timer import LayerTimer
from layerbench.instruments.modules import Call, module_facts
from layerbench.introspection.nested import tensors_in
from layerbench.zoo import Built
from layerbench.zoo._model_files import ModelFile

SPECS = [
    ("mobilenet_v2", "1x3x64x64"),
    ("mobilenet_v3_small", "1x3x64x64"),
    ("resnet18", "2x3x64x64"),
    ("densenet121", "1x3x64x64"),
    ("efficientnet_b0", "1x3x64x64"),
    ("regnet_y_400mf", "1x3x64x64"),
    ("convnext_tiny", "1x3x64x64"),
    ("googlenet", "1x3x64x64"),
    ("squeezenet1_0", "1x3x64x64"),
    ("vit_b_32", "1x3x224x224"),
    ("swin_t", "1x3x64x64"),
    ("maxvit_t", "1x3x224x224"),
    ("fcn_resnet50", "1x3x64x64"),
    ("lraspp_mobilenet_v3_large", "1x3x64x64"),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "2x3x64x64"),
    ("ssdlite320_mobilenet_v3_large", "1x3x64x64"),
    ("r3d_18", "1x3x4x32x32"),
    ("raft_small", "1x3x128x128"),
    ("quantized_mobilenet_v2", "1x3x64x64"),
    ("timm:vit_tiny_patch16_224", "1x3x224x224"),
    ("timm:swin_tiny_patch4_window7_224", "1x3x224x224"),
    ("timm:resnet18", "1x3x64x64"),
    ("hf:mobilenet_v2", "1x3x64x64"),
    ("smp:Unet/resnet18", "1x3x64x64"),
    ("open_clip:ViT-S-32-alt/visual", "1x3x224x224"),
    ("tests/models.py:small", "1x3x16x16"),
    ("tests.models:small_with_input", None),
]


# Of each family, and of each way of computing, the quickest.
WITHIN_AUTOCAST = [
    ("squeezenet1_0", "1x3x64x64"),
    ("swin_t", "1x3x32x32"),
    ("ssdlite320_mobilenet_v3_large", "1x3x32x32"),
    ("quantized_mobilenet_v2", "1x3x32x32"),
    ("timm:test_vit", "1x3x160x160"),
    ("hf:mobilenet_v2", "1x3x32x32"),
    ("smp:Unet/resnet18", "1x3x32x32"),
    ("open_clip:ViT-S-32-alt/visual", "1x3x224x224"),
    ("tests/models.py:small", "1x3x16x16"),
    ("tests.models:small_with_input", None),
]


class Operators(TorchDispatchMode):
    """Notes every operator that reaches the dispatcher, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def operators(call: Call) -> tuple[list[str], list[torch.Tensor]]:
    torch.manual_seed(0)
    with Operators() as noted:
        output = call()
    return noted.seen, list(tensors_in(output))


@contextmanager
def built(
    spec: str, input: str | None, without: Callable[[], Any] = torch.inference_mode
) -> Iterator[tuple[Built, Call]]:
    """A model in eval mode and without gradients, on one thread, with its call."""
    subject = zoo.build(zoo.resolve(spec, input))
    with mode_set(subject.module, training=False), without():
        yield subject, lambda: subject.module(*subject.args, **subject.kwargs)


def layer_timer(model: nn.Module) -> LayerTimer:
    facts = module_facts(model)
    reachable = frozenset(fact.path for fact in facts if fact.reachable)
    return LayerTimer(model, [fact.path for fact in facts], reachable, PerfCounter())


def attached_timer(model: nn.Module) -> Callable[[Call], Call]:
    def wrap(call: Call) -> Call:
        def run() -> Any:
            with layer_timer(model).attached():
                return call()

        return run

    return wrap


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "input"), SPECS)
def test_family(spec: str, input: str | None) -> None:
    with built(spec, input) as (subject, call):
        model = subject.module
        call()  # detectors cache their anchors in the first forward
        before = {path: dict(module.__dict__) for path, module in model.named_modules()}
        expected, output = operators(call)
        again, _ = operators(call)
        assert expected == again  # or the test below would prove nothing

        # The instrumented forward runs the same operators and gives the same output.
        instrumented, measured_output = operators(attached_timer(model)(call))
        assert instrumented == expected
        assert len(measured_output) == len(output)
        for mine, theirs in zip(measured_output, output, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)

        # So does the functions' pass, fast paths included.
        facts = module_facts(model)
        composite = frozenset(fact.path for fact in facts if fact.composite) | {""}
        functions = FunctionTimer(model, facts, composite, PerfCounter())
        passed, _ = operators(lambda: functions.run(call))
        assert passed == expected

        # Self times add up to the whole, to the nanosecond.
        folded = layer_timer(model).run(call, marks=0).device
        assert int(folded.self_ns.sum()) == int(folded.inclusive_ns[0]) > 0
        assert (folded.self_ns >= 0).all()

        # The block view is a cut through the tree.
        view = find_blocks(model)
        assert "" in view.opened
        assert len(view.blocks) > 1
        assert not view.blocks & view.opened

        after = {path: dict(module.__dict__) for path, module in model.named_modules()}
        assert [*after] == [*before]
        for path, attributes in after.items():
            assert attributes.keys() == before[path].keys(), path


@pytest.mark.parametrize(("spec", "input"), WITHIN_AUTOCAST)
def test_family_within_autocast(spec: str, input: str | None) -> None:
    """The same casts in the same places, and none more: instruments lie within it.

    Not in inference mode: there PyTorch hands einsum whole to what notes operators, with autocast's
    keys left out, so that operands of two formats fail (maxvit_t), whatever is noted.
    """
    with built(spec, input, torch.no_grad) as (subject, plain):
        model = subject.module
        forward = autocasting(model, "amp-bf16", "cpu")

        def call() -> Any:
            return forward(*subject.args, **subject.kwargs)

        plain()  # detectors cache their anchors in the first forward
        expected, output = operators(call)
        instrumented, measured_output = operators(attached_timer(model)(call))
        assert instrumented == expected
        for mine, theirs in zip(measured_output, output, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        facts = module_facts(model)
        composite = frozenset(fact.path for fact in facts if fact.composite) | {""}
        functions = FunctionTimer(model, facts, composite, PerfCounter())
        assert operators(lambda: functions.run(call))[0] == expected
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("specs", [SPECS, WITHIN_AUTOCAST])
def test_every_family_of_the_zoo_is_in_the_list(specs: list[tuple[str, str | None]]) -> None:
    families = {type(zoo._family_of(spec)) for spec, _ in specs}
    # Models that are files have to be written first: tests/zoo/test_files.py.
    listed = {type(one) for one in zoo.families() if not isinstance(one, ModelFile)}
    assert families == listed


def test_transformer_encoder_keeps_its_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(16, 4)).eval()
    x = torch.rand(2, 5, 16)
    with torch.inference_mode():
        expected, _ = operators(lambda: model(x))
        assert any("_transformer_encoder_layer_fwd" in name for name in expected)
        instrumented, _ = operators(attached_timer(model)(lambda: model(x)))
        folded = layer_timer(model).run(lambda: model(x), marks=0).device
    assert instrumented == expected
    calls = dict(zip((f.path for f in module_facts(model)), folded.calls.tolist(), strict=True))
    assert calls["0.layers.0"] == 1
    assert calls["0.layers.0.linear1"] == 0  # skipped by the fast path: not called, not 0 ms
