"""What the suites of the tests of the pytest plugin hold."""

from __future__ import annotations

PLUGIN = "layerbench.integrations.pytest_plugin"
# A layer that works so often; its neighbours stay as they are.
MODELS = """
import torch
from torch import nn

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))

class Work(nn.Module):
    def __init__(self, repeats):
        super().__init__()
        self.repeats = repeats

    def forward(self, x):
        for _ in range(self.repeats):
            x = torch.sin(x)
        return x

class Net(nn.Sequential):
    def __init__(self, repeats=1):
        super().__init__(nn.Conv2d(3, 4, 3), Work(repeats), nn.Conv2d(4, 4, 3))
"""
QUICK = "iterations=10, warmup=1, threads=1, threshold='90%'"
# 112 + 148 parameters; two multiply-adds of 4 * 14 * 14 * 27 and 4 * 12 * 12 * 36 are FLOPs.
PARAMETERS, FLOPS = 260, 2 * (4 * 14 * 14 * 27 + 4 * 12 * 12 * 36)

AGAINST = f"""
def test_speed(layerbench):
    outcome = layerbench.check(Net({{}}), X, against="reports/net.json", {QUICK})
    print("outcome", outcome.verdict, outcome.record is not None)
"""
UPDATE = ("--layerbench", "--layerbench-update")

# Tells without a model, so that no process has to load torch.
TELLS = """
FIGURES = {"Baseline ms": "1", "Contender ms": "2", "Change": "+1 %", "95 % interval": "[0, 2]"}

import pytest

@pytest.mark.parametrize("number", range(4))
def test_speed(layerbench, number):
    layerbench._tell(f"Net{number}", "SAME", beside="a.json", figures=FIGURES, notes=["once"])
"""
