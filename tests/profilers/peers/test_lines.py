"""memlab's line profile: its own code, with a stand-in for CUDA's allocator."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.errors import UsageError
from layerbench.profilers.peers.lines import functions_named, line_profile
from layerbench.zoo import Built
from tests.models import Small

GPU = SimpleNamespace(torch_device=torch.device("cuda", 0))


class Doubling(nn.Module):
    def forward(self, x):
        y = x + x
        if y is None:
            return x
        return y * 2


@pytest.fixture
def allocator(monkeypatch):
    """One that holds a KiB more each time it is asked."""
    asked = []

    def stats():
        asked.append(None)
        held = 1024 * len(asked)
        names = ("active_bytes.all.peak", "reserved_bytes.all.peak", "active.all.freed")
        return dict(zip(names, (held, 2 * held, 0), strict=True)) | {
            "num_alloc_retries": 0,
            "num_ooms": 0,
        }

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_stats", stats)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    for name in ("empty_cache", "reset_peak_memory_stats", "reset_accumulated_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)


def test_each_line_that_ran_has_what_the_allocator_held(allocator):
    model = nn.Sequential(Doubling())
    functions = functions_named(["0"], model)
    tracing = sys.gettrace()
    (made,) = line_profile(functions, Built(model, (torch.ones(2),)), GPU, gradients=False)
    assert sys.gettrace() is tracing
    assert made.name == "Doubling.forward"
    code = {line.code.strip(): line for line in made.lines}
    assert [line.line - made.lines[0].line for line in made.lines] == [0, 1, 2, 3, 4]
    ran = ("y = x + x", "if y is None:", "return y * 2")
    active = [code[line].active_bytes for line in ran]
    assert active == sorted(active)
    assert len(set(active)) == 3
    assert all(code[line].reserved_bytes == 2 * code[line].active_bytes for line in ran)
    assert code["return x"].active_bytes is None


def test_the_section_has_a_row_a_line(allocator, monkeypatch):
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)
    record = layerbench.memory(nn.Linear(2, 2), torch.zeros(1, 2), memlab=True)
    model = Doubling()
    made = line_profile(
        functions_named([""], model), Built(model, (torch.ones(2),)), GPU, gradients=True
    )
    memlab = record.memlab.model_copy(update={"functions": made})
    text = reporters.render("txt", record.model_copy(update={"memlab": memlab}))
    assert "pytorch-memlab, lines of Doubling.forward" in text
    assert "        return y * 2" in text.partition("lines of")[2]


def test_a_function_has_many_names():
    model = Small()
    by_path = functions_named(["stem", ""], model)
    assert by_path == (nn.Conv2d.forward, Small.forward)
    assert functions_named(["torch.nn:Conv2d", "torch.nn:Conv2d.forward"], model) == (
        nn.Conv2d.forward,
        nn.Conv2d.forward,
    )
    for name, says in (
        ("nowhere", "no such module"),
        ("torch.nn:Konv2d", "Conv2d"),
        ("builtins:print", "no lines in Python"),
    ):
        with pytest.raises(UsageError, match=says):
            functions_named([name], model)


def test_a_cpu_has_nothing_to_read():
    with pytest.raises(UsageError, match="--lines needs a GPU"):
        layerbench.memory(Small(), torch.zeros(1, 3, 8, 8), lines=["stem"])
