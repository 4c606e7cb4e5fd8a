"""Calls from several threads give what they give one by one, and leave models as they were."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import layerbench
from layerbench.records.kinds import Record


def _model(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width, 4)
    )


def test_predictions_in_threads_are_those_of_one_thread() -> None:
    input = torch.rand(2, 3, 3, 3)
    models = [_model(width) for width in (4, 8)]
    calls: list[Callable[[nn.Module], Record]] = [
        lambda model: layerbench.estimate_latency(model, input, device="t4"),
        lambda model: layerbench.estimate_latency(model, input, device="t4", mode="train"),
        lambda model: layerbench.estimate_latency(model, input, device="a100", precision="amp"),
        lambda model: layerbench.estimate_memory(model, input, device="t4", largest_batch=False),
        lambda model: layerbench.structure(model, input),
    ]
    work = [(call, model) for call in calls for model in models]
    alone = [call(model) for call, model in work]
    held = [id(tensor) for model in models for tensor in model.state_dict(keep_vars=True).values()]
    with warnings.catch_warnings(), ThreadPoolExecutor(5) as pool:
        warnings.simplefilter("error")
        together = [pool.submit(call, model) for call, model in work]
        assert [one.result() for one in together] == alone
    after = [id(tensor) for model in models for tensor in model.state_dict(keep_vars=True).values()]
    assert after == held
