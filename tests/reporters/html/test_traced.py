"""The page of a trace: its data, and what a browser shows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbench.records.trace_profile import TraceProfile
from layerbench.records.view import USUAL
from layerbench.reporters.html.traced import of
from tests.support.page_rows import cell, names
from tests.support.sample_traces import cuda_step, cuda_trace, event, profiled


@pytest.fixture
def cuda(tmp_path: Path) -> TraceProfile:
    return profiled(tmp_path, cuda_trace())


def test_the_device_comes_first_and_areas_add_up_to_all_kernels(cuda: TraceProfile) -> None:
    data = of(cuda, USUAL)
    assert [(one.key, one.label) for one in data.metrics] == [
        *(("time", "Device time"), ("host", "Host time"), ("backward", "Backward, host")),
        ("kernels", "Device kernels"),
    ]
    assert sum(data.metrics[0].area) == pytest.approx(695e-6)
    assert data.metrics[0].values == pytest.approx((695e-6, 660e-6, 510e-6, 150e-6, 20e-6))
    assert data.rows.kind == ("range", "module", "module", "module", "range")
    assert data.kernels is not None
    entries = {
        (data.kernels.names[name], row, part) for row, name, part, *_ in data.kernels.entries
    }
    assert {
        ("conv_kernel", 2, ""),
        ("dgrad_kernel", 2, "backward"),
        ("mse_kernel", 0, ""),
    } <= entries


def test_a_trace_of_the_host_alone_has_no_device(tmp_path: Path) -> None:
    host = [one for one in cuda_trace() if one.get("pid") != 0]
    data = of(profiled(tmp_path, host), USUAL)
    assert [one.key for one in data.metrics] == ["time", "backward"]
    assert data.kernels is None
    assert {spread.key for spread in data.spreads} == {
        *("time", "own time", "backward", "own backward")
    }


def test_one_step_has_no_distribution(tmp_path: Path) -> None:
    data = of(profiled(tmp_path, cuda_step(3, 1000)), USUAL)
    assert data.spreads == ()
    assert any("one profiler step" in text for text in data.warnings)


def test_the_tree_in_a_browser(opened, cuda: TraceProfile) -> None:
    page = opened(cuda)
    assert page.locator(".title").inner_text() == "Trace t.json"
    page.keyboard.press("e")
    assert names(page) == ["step", "Net_0", "Conv2d_0", "Linear_0", "Optimizer·step#SGD·step"]
    assert cell(page, "Conv2d_0", "Device time") == "510 µs"


def test_a_name_of_a_range_is_text(opened, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    page = opened(profiled(tmp_path, [event("user_annotation", name, 0, 10)]))
    assert names(page) == ["trace", name]
    assert page.locator(".viewer img").count() == 0
