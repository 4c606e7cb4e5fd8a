"""Self time of modules that compute nothing is told as what it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.records.timing import LayerRow, Profile
from layerbench.reporters.freeing import freeing, in_all
from tests.support.sample_profiles import layered, on_gpu, summary

LARGE, SMALL = (1, 64, 128, 128), (1, 8, 8, 8)


def row(path: str, inclusive: float, own: float, output: tuple[int, ...], **more: object):
    kind = "function" if path.endswith("()") else "module"
    return LayerRow(
        path=path, type="Some", kind=kind, depth=path.count(".") + 1 if path else 0, calls=1,
        output_shapes=(output,), inclusive=summary(inclusive, spread=0),
        self_=summary(own, spread=0), **more,
    )  # fmt: skip


def record(*rows: LayerRow, **changes: object) -> Profile:
    """A model of 10 ms whose only child is ``a``."""
    top = row("", 10.0, 0.01, SMALL)
    return layered().model_copy(update={"layers": (top, *rows), **changes})


def test_a_container_without_functions_is_freeing_what_it_lets_go_of():
    profile = record(row("a", 9.9, 3.0, SMALL), row("a.0", 6.9, 6.9, LARGE))
    assert freeing(profile) == {"a": pytest.approx(3e-3)}
    text = reporters.render("txt", profile)
    page = reporters.render("html", profile)
    assert "freeing memory: 3.000 ms of self time" in text
    assert "freeing memory: 3.000 ms of self time" in page
    for report in (text, page, reporters.render("md", profile)):
        assert report.count("freeing memory: 3.000 ms of self time in all") == 1


def test_functions_are_told_from_what_they_leave():
    own = row("a", 9.9, 3.0, SMALL)
    inner = row("a.0", 6.9, 6.9, LARGE)
    assert freeing(record(own, inner, row("a.add()", 1.0, 1.0, SMALL))) == {
        "a": pytest.approx(2e-3)
    }
    assert freeing(record(own, inner, row("a.add()", 2.5, 2.5, SMALL))) == {}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row("a", 9.9, 3.0, SMALL), row("a.0", 6.9, 6.9, SMALL)], "nothing large"),
        ([row("a", 9.9, 0.15, SMALL), row("a.0", 9.7, 9.7, LARGE)], "what Python takes"),
        ([row("a", 9.9, 9.9, LARGE)], "a layer"),
        ([row("a", 9.9, 9.9, LARGE), row("a.add()", 1.0, 1.0, LARGE)], "holds no module"),
    ],
)
def test_other_self_time_is_not(rows: list[LayerRow], why: str):
    assert freeing(record(*rows)) == {}, why
    assert in_all(record(*rows)) == ""


def test_nothing_is_said_where_functions_were_not_timed_or_a_device_keeps_its_memory():
    rows = (row("a", 9.9, 3.0, SMALL), row("a.0", 6.9, 6.9, LARGE))
    plan = layered().plan
    for changes in (
        {"absent": {"functions": "the forward failed"}},
        {"plan": plan.model_copy(update={"function_iterations": 0})},
        {"plan": plan.model_copy(update={"granularity": "blocks"})},
        {"environment": on_gpu().environment},
    ):
        assert freeing(record(*rows, **changes)) == {}


def test_modules_in_a_list_are_called_by_whoever_holds_it():
    listed = LayerRow(path="a", type="ModuleList", kind="module", depth=1, calls=0)
    profile = record(listed, row("a.0", 9.9, 9.9, LARGE))
    top = row("", 10.0, 4.0, SMALL)
    assert freeing(profile.model_copy(update={"layers": (top, *profile.layers[1:])})) == {
        "": pytest.approx(4e-3)
    }


@pytest.mark.slow
def test_a_real_container_lets_go_of_a_real_tensor():
    """64 MiB, which no C library keeps: it computes nothing, and is not free."""
    inner = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1))
    model = nn.Sequential(inner, nn.ReLU())
    few = {"warmup": 1, "iterations": 3, "function_iterations": 1, "threads": 1}
    profile = layerbench.profile(model, torch.rand(1, 1, 1024, 1024), **few)
    assert "0" in freeing(profile)
