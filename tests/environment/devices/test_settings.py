"""PyTorch's switches: the precisions of float32, and versions without them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from layerbench.environment import devices
from layerbench.environment.devices import settings


@pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="this PyTorch has no such switch"
)
def test_precisions_of_float32_are_recorded_where_they_are_set():
    matmul, mkldnn = torch.backends.cuda.matmul, torch.backends.mkldnn.conv
    before = matmul.fp32_precision, mkldnn.fp32_precision
    try:
        matmul.fp32_precision, mkldnn.fp32_precision = "tf32", "bf16"
        found = devices.torch_settings()
    finally:
        matmul.fp32_precision, mkldnn.fp32_precision = before
    assert found["cuda.matmul.fp32_precision"] == "tf32"
    assert found["mkldnn.conv.fp32_precision"] == "bf16"
    assert "none" not in found.values()


def test_a_version_without_a_switch_records_the_others(monkeypatch):
    older = SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True)),
        cudnn=SimpleNamespace(benchmark=False, rnn=SimpleNamespace()),
        mkldnn=SimpleNamespace(is_available=lambda: True, enabled=True),
    )
    monkeypatch.setattr(settings, "backends", older)
    found = settings.torch_settings()
    assert found["cuda.matmul.allow_tf32"] == "True"
    assert not [name for name in found if name.endswith("fp32_precision")]


def test_settings_say_how_the_switches_stand():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        found = devices.torch_settings()
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]
    assert found["float32_matmul_precision"] == "high"
    assert found["cudnn.benchmark"] == "True"
    assert found["deterministic_algorithms"] == "False"
    assert all(isinstance(value, str) for value in found.values())


def test_a_setting_that_cannot_be_read_is_left_out(monkeypatch):
    def refuse():
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setitem(settings._SWITCHES, "cudnn.allow_tf32", refuse)
    found = settings.torch_settings()
    assert "cudnn.allow_tf32" not in found
    assert "cudnn.benchmark" in found
