"""Weights that are given another place."""

from __future__ import annotations

import torch
from torch import nn

from layerbench.instruments.placement import brought_back, can_move, move


def test_weights_move_where_they_are_whatever_the_default_device_is() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    homes = [tensor.data_ptr() for tensor in net.parameters()]
    assert can_move(net)
    with torch.device("meta"), brought_back(net):
        move(net)
        assert not {*homes} & {tensor.data_ptr() for tensor in net.parameters()}
        assert all(torch.equal(before[name], now) for name, now in net.state_dict().items())
    assert homes == [tensor.data_ptr() for tensor in net.parameters()]
