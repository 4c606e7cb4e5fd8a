"""Which models need no second forward to be known not to vary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import layerbench
from layerbench.instruments import chance
from layerbench.instruments.chance import runs_alike


def own(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class OwnLinear(nn.Linear):
    """A user's layer may keep anything."""


def with_hook() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda _module, _args, output: output * 2)
    return nn.Sequential(layer)


def with_hook_before() -> nn.Module:
    return torch.nn.utils.weight_norm(nn.Linear(4, 4))


def with_own_forward() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = MethodType(lambda _self, x: x, layer)  # type: ignore[method-assign]
    return nn.Sequential(layer)


def encoder(activation: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, activation=activation)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_models_of_the_libraries_run_alike(name: str) -> None:
    no_weights = dict.fromkeys(("weights", "weights_backbone") if "rcnn" in name else ("weights",))
    with torch.device("meta"):
        assert runs_alike(torchvision.models.get_model(name, **no_weights))


def test_an_encoder_with_a_librarys_activation_runs_alike() -> None:
    assert runs_alike(encoder(nn.functional.relu))
    assert runs_alike(encoder(partial(nn.functional.leaky_relu, negative_slope=0.1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OwnLinear(4, 4),
        lambda: nn.Sequential(OwnLinear(4, 4)),
        with_hook,
        with_hook_before,
        with_own_forward,
        lambda: encoder(own),
        lambda: encoder(partial(own)),
        lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4))),
    ],
)
def test_code_that_may_be_anybodys_is_run_again(make: Callable[[], nn.Module]) -> None:
    assert not runs_alike(make())


@pytest.fixture
def a_hook_everywhere() -> Iterator[None]:
    handle = register_module_forward_hook(lambda _module, _args, _output: None)
    yield
    handle.remove()


@pytest.mark.usefixtures("a_hook_everywhere")
def test_a_hook_on_every_module_may_be_anybodys() -> None:
    assert not runs_alike(nn.Linear(4, 4))


def test_a_layer_that_draws_in_a_real_run_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    observer = chance.CallObserver
    monkeypatch.setattr(chance, "CallObserver", lambda *a: seen.append(1) or observer(*a))
    counts = []
    for model in (nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout())):
        seen.clear()
        layerbench.memory(model, torch.rand(2, 4), training=True)
        counts.append(len(seen))
    assert counts[0] == 0 < counts[1]
