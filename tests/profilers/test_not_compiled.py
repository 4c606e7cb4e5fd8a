"""What `--compile` did not compile says so first, and what is written back has a layer."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis.comparison import compare
from layerbench.errors import UsageError
from layerbench.instruments.compilation import Compilation
from layerbench.records.timing import (
    COMPILED_LATE,
    GIVEN_UP,
    NOTHING_COMPILED,
    OWN_COMPILED,
    Profile,
)
from layerbench.records.view import View
from layerbench.records.workload import Granularity

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs g++")

PLAN: dict[str, Any] = {"warmup": 1, "threads": 1, "device": "cpu", "ceilings": False}


RECOMPILED = 4


class Refusing(nn.ReLU):
    """Raises under torch.compile alone, so Dynamo leaves it to Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            raise RuntimeError("not here")
        return super().forward(x)


class Counting(nn.ReLU):
    """Dynamo takes the number for a constant: each forward is compiled anew."""

    number = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return super().forward(x) * self.number


class InPlace(nn.Module):
    """Its input's change is written back behind all that Dynamo traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x).add_(1)


def beginning(profile: Profile) -> str:
    return " ".join(reporters.render("txt", profile, View()).split("\n\n")[0].split())


@pytest.mark.parametrize("granularity", ["layers", "whole"])
def test_a_model_of_which_nothing_is_compiled_says_so_first(granularity: Granularity) -> None:
    x = torch.rand(64)
    profile = layerbench.profile(
        Refusing(), x, compile=True, iterations=2, granularity=granularity, **PLAN
    )
    assert NOTHING_COMPILED in beginning(profile)
    assert "Compiled (default)" not in reporters.render("txt", profile)


def test_a_model_that_its_owner_compiled_says_that_the_option_did_nothing() -> None:
    compiled: Any = torch.compile(nn.ReLU(), backend="eager")
    x = torch.rand(64)
    profile = layerbench.profile(compiled, x, compile="max-autotune", iterations=2, **PLAN)
    assert OWN_COMPILED in beginning(profile)
    plain = layerbench.profile(compiled, x, iterations=2, **PLAN)
    assert OWN_COMPILED not in plain.notes


@pytest.mark.slow
def test_a_model_that_is_compiled_in_each_round_says_so_until_dynamo_gives_up() -> None:
    """Compiled in the first call, in both forwards of the warm-up, and in a measured one."""
    with torch._dynamo.config.patch(recompile_limit=RECOMPILED):
        profile = layerbench.profile(Counting(), torch.rand(64), compile=True, iterations=2, **PLAN)
    assert GIVEN_UP in beginning(profile)
    assert profile.notes == (COMPILED_LATE, GIVEN_UP)


def test_a_comparison_begins_with_what_was_not_compiled() -> None:
    x = torch.rand(64)
    sides = [
        layerbench.profile(Refusing(), x, compile=compiled, iterations=10, **PLAN)
        for compiled in (False, True)
    ]
    text = reporters.render("txt", compare(*sides), View())
    assert f"Of the contender: {NOTHING_COMPILED}" in text.partition("Only in")[0]


def test_what_is_written_back_belongs_to_the_layer_that_wrote() -> None:
    kept = dict(os.environ)
    compilation = Compilation(InPlace(), "default")
    compilation.runs(torch.rand(64))
    assert dict(os.environ) == kept
    (kernel,) = compilation.graphs[0].kernels
    assert all(part.spot.modules for part in kernel.parts)
    assert {(part.spot.module, part.spot.function) for part in kernel.parts} == {
        ("first", "relu"),
        ("", "add_"),
    }


def test_torchscript_is_refused_in_words_of_ours_before_it_runs() -> None:
    script = torch.jit.script(nn.ReLU())
    with pytest.raises(UsageError, match="is TorchScript, which"):
        layerbench.profile(script, torch.rand(8), compile=True, iterations=2, **PLAN)
