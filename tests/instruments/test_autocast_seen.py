"""What autocast does within inference mode, where PyTorch hands whole operators to a mode."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench.instruments.autocast_seen import autocast_noted, autocast_type


class Products(nn.Module):
    """A layer whose output goes into an operator made of others, with a weight in float32."""

    def __init__(self, cast: bool = False) -> None:
        super().__init__()
        self.layer, self.weight = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 4))
        self.cast = cast

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with _bfloat16() if self.cast else nullcontext():
            y = self.layer(x)
            with torch.autocast("cpu", enabled=False):
                exact = torch.einsum("bi,ij->bj", y.float(), self.weight)
            return torch.einsum("bi,ij->bj", y, self.weight), exact


def _bfloat16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("within", [False, True])
def test_a_loop_in_inference_mode_and_autocast(within: bool) -> None:
    model, x, put = Products(within).eval(), torch.randn(2, 8), torch.set_autocast_enabled
    with torch.inference_mode(), nullcontext() if within else _bfloat16():
        expected = model(x)
        with layerbench.time_layers(model) as timing:
            outputs = [model(x) for _ in range(3)]
    assert [one.dtype for one in expected] == [torch.bfloat16, torch.float32]
    for output in outputs:
        for one, other in zip(output, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    # 2 * 2 * 8 * 8 of the layer, and twice 2 * 2 * 8 * 4.
    assert [timing.rows[0].flops, timing.rows[1].flops] == [512, 256]
    assert torch.set_autocast_enabled is put


def test_memory_in_inference_mode_and_autocast() -> None:
    with torch.inference_mode(), _bfloat16():
        report = layerbench.memory(Products().eval(), torch.randn(2, 8))
    assert {row.path for row in report.rows} >= {"", "layer"}


def test_what_somebody_has_put_in_the_place_of_pytorchs_function_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    put = torch.set_autocast_enabled

    def watched(*args: Any) -> None:
        calls.append(args)
        put(*args)

    monkeypatch.setattr(torch, "set_autocast_enabled", watched)
    with autocast_noted(), autocast_noted(), _bfloat16():
        assert calls == [("cpu", True)]
    assert torch.set_autocast_enabled is watched


def test_devices_without_autocast_have_it_off() -> None:
    """As Apple's GPUs in torch 2.4: PyTorch itself raises an error there."""
    with _bfloat16():
        assert [autocast_type(kind) for kind in ("cpu", "cuda", "meta")] == [
            torch.bfloat16,
            None,
            None,
        ]
    assert autocast_type("cpu") is None
