"""Several cards side by side: each row is what a prediction for its card alone says."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerbench

# Takes any batch but the one that operators are traced with.
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3)

    def forward(self, x):
        if x.shape[0] % 509 == 0:
            raise ValueError("not so many")
        return torch.relu(self.conv(x))
"""


def test_operators_of_one_batch_are_not_those_of_the_largest(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(NET)
    model = f"{file}:Net"
    (row,) = layerbench.estimate_devices(model, "cifar100", devices="t4").rows
    assert row.batch is not None
    assert row.batch > 1000
    alone = layerbench.estimate_latency(model, "cifar100", batch=row.batch, device="t4")
    assert row.seconds == pytest.approx(alone.seconds)
