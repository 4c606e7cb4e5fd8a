"""Layers under `torch.compile`: which kernels they are in, and the share that each has of them.

No time is asserted. What is known: which layers a kernel is made of, how a share is worked out,
that all parts add up, and that PyTorch and the model are left as they were.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import nn
from torch._functorch import config as functorch
from torch._inductor import config as inductor
from torch._inductor import debug
from torch._inductor.graph import GraphLowering

import layerbench
from benchmarks.compiled import row
from layerbench import reporters
from layerbench.instruments.compilation import Compilation
from layerbench.instruments.dynamo_log import DynamoLog
from layerbench.instruments.provenance import Part, Spot
from layerbench.profilers.compiled_sharing import _shared
from layerbench.records.timing import Profile
from layerbench.records.view import View
from layerbench.records.workload import Workload
from tests.models import Small

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs g++")

PLAN = {"warmup": 1, "iterations": 3, "threads": 1, "device": "cpu", "ceilings": False}


class Fused(nn.Module):
    """Two layers that become one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ReLU()
        self.second = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Broken(Fused):
    """Python that cannot be compiled lies between layers, twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        x = self.second(x)
        torch._dynamo.graph_break()
        return x + 1


class Turning(Fused):
    """Runs its layers in turn: an attribute of Python says which, and changes in each forward."""

    turn = "first"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.turn == "first":
            self.turn = "second"
            return self.first(x)
        self.turn = "first"
        return self.second(x)


def places() -> list[object]:
    """What is exchanged while a model is compiled."""
    return [
        debug.set_kernel_post_grad_provenance_tracing,
        GraphLowering.compile_to_module,
        settings(inductor),
        settings(functorch),
    ]


def settings(config: Any) -> dict[str, object]:
    """Of objects that are equal only to themselves the class: they come as copies."""
    return {
        name: type(value) if type(value).__eq__ is object.__eq__ else value
        for name, value in config.get_config_copy().items()
    }


@pytest.fixture(scope="module")
def small() -> tuple[Profile, nn.Module, list[Any]]:
    before = places()
    torch.manual_seed(0)
    model = Small().eval()
    profile = layerbench.profile(model, "2x3x16x16", compile=True, **PLAN)
    # At once: other tests may run before the one that looks.
    return profile, model, [before, places()]


@pytest.mark.slow
def test_every_kernel_has_its_layers(small: tuple[Profile, nn.Module, list[Any]]) -> None:
    profile, _, _ = small
    made = profile.compilation
    assert made
    assert (made.mode, made.graphs, made.attributed) == ("default", 1, 1)
    assert made.kernels == len(profile.kernels)
    assert not made.breaks
    assert not made.recompilations
    for kernel in profile.kernels:
        assert sum(part.share for part in kernel.layers) == pytest.approx(1, abs=1e-3)
    modules = {part.module for kernel in profile.kernels for part in kernel.layers}
    blocks = {f"blocks.{at}.{name}" for at in (0, 1) for name in ("conv", "relu", "project")}
    assert {"stem", "head", *blocks} <= modules
    assert "unused" not in modules
    products = {kernel.module for kernel in profile.kernels if "convolution" in kernel.name}
    assert {"stem", "blocks.0.conv", "blocks.1.project"} <= products


def test_the_rows_add_up_to_the_compiled_forward(
    small: tuple[Profile, nn.Module, list[Any]],
) -> None:
    profile, _, _ = small
    rows = {row.path: row for row in profile.layers}
    assert profile.reconciliation
    assert profile.reconciliation.self_sum_ratio == 1
    own = [row.self_.mean for row in profile.layers if row.kind == "module" and row.self_]
    assert sum(own) == pytest.approx(profile.base.mean, rel=1e-6)
    between = rows["between_kernels()"].self_
    kernels = sum(kernel.time.mean for kernel in profile.kernels)
    assert between
    assert kernels + between.mean == pytest.approx(profile.base.mean, rel=1e-6)
    # The residual add is fused with what comes before or behind it.
    add = rows["blocks.0.add()"]
    assert add.calls == 1
    assert add.kernels
    assert add.shared
    assert rows["unused"].inclusive is None
    assert rows["head"].flops == 2 * 2 * 4 * 5
    assert {"kernels", "shared"}.isdisjoint(layerbench.profile(Small(), "2x3x16x16", **PLAN).absent)


def test_reports_say_what_is_shared(small: tuple[Profile, nn.Module, list[Any]]) -> None:
    profile, _, _ = small
    text = reporters.render("txt", profile, View(kernels=True, full=True))
    assert "Compiled (default)" in text
    assert "≈" in text
    assert "No graph break and no recompilation." in text
    assert "between_kernels()" in text
    read = Profile.model_validate_json(reporters.render("json", profile))
    assert read.kernels == profile.kernels
    csv = reporters.render("csv", profile, View(kernels=True))
    assert "blocks.0.conv:convolution=" in csv
    reporters.render("html", profile)


def test_the_benchmark_reads_such_a_record(small: tuple[Profile, nn.Module, list[Any]]) -> None:
    profile, _, _ = small
    assert profile.compilation
    line = row("small", profile).split()
    assert line[:2] == ["small", str(profile.compilation.kernels)]
    assert "100.0%" in line


def test_pytorch_and_the_model_are_left_as_they_were(
    small: tuple[Profile, nn.Module, list[Any]],
) -> None:
    _, model, (before, after) = small
    assert after == before
    assert not any("forward" in vars(module) for module in model.modules())
    assert model._compiled_call_impl is None


def test_compiled_code_is_put_back_even_if_the_forward_fails() -> None:
    compilation = Compilation(Fused(), "default")
    x = torch.rand(8)
    expected = compilation.runs(x)
    (graph,) = compilation.graphs
    codes = [(function, function.__code__) for function, *_ in graph._codes]
    assert codes
    with compilation.attached():
        assert torch.equal(compilation.runs(x), expected)
        assert [calls for calls, _ in compilation.times_ns().values()] == [1]
    with pytest.raises(KeyboardInterrupt), compilation.attached():
        raise KeyboardInterrupt
    assert all(_code(function) is code for function, code in codes)
    assert not any(name.startswith("_layerbench") for name in vars(graph._module))


def _code(function: FunctionType) -> object:
    return function.__code__


def test_the_share_of_a_layer_is_by_what_it_moves_and_computes() -> None:
    """ReLU reads 4000 bytes and computes 1000; Sigmoid writes 4000 and computes 20 for each."""
    compilation = Compilation(Fused(), "default")
    compilation.runs(torch.rand(1000))
    (kernel,) = compilation.graphs[0].kernels
    shares = {part.spot.module: part.share for part in kernel.parts}
    read, written = 4000 + 1000 / 10, 4000 + 1000 * 20 / 10
    assert shares == {
        "first": pytest.approx(read / (read + written)),
        "second": pytest.approx(written / (read + written)),
    }


def test_models_of_one_class_are_compiled_apart() -> None:
    """However many: Dynamo gives up a function that it compiled too often."""
    log = DynamoLog()
    with torch._dynamo.config.patch(recompile_limit=2):
        for one in [Compilation(Fused(), "default") for _ in range(3)]:
            one.runs(torch.rand(1000))
            assert len(one.graphs) == 1
    assert not log.recompilations()


@pytest.mark.slow
def test_graph_breaks_are_told_and_every_graph_is_timed() -> None:
    profile = layerbench.profile(Broken(), torch.rand(1000), compile=True, **PLAN)
    made = profile.compilation
    assert made
    assert (made.graphs, made.kernels) == (3, 3)
    assert len({broken.where for broken in made.breaks}) == 2
    assert all(broken.where.startswith("test_compiled_rounds.py:") for broken in made.breaks)
    rows = {row.path: row for row in profile.layers}
    assert rows["first"].kernels == rows["second"].kernels == rows["add()"].kernels == 1
    assert all(kernel.time.min > 0 for kernel in profile.kernels)
    assert sorted(kernel.position for kernel in profile.kernels) == [0, 1, 2]
    assert reporters.render("txt", profile).count("graph break at test_compiled_rounds") == 2


def test_a_guard_on_an_attribute_that_fails_is_told() -> None:
    """Two values take turns: code is compiled for each, once."""
    model = Turning()
    profile = layerbench.profile(model, torch.rand(1000), compile=True, **PLAN)
    made = profile.compilation
    assert made
    assert made.graphs == 2
    (reason,) = made.recompilations
    assert "turn" in reason
    assert f"compiled again: {reason[:9]}" in reporters.render("txt", profile)
    assert model.turn == "first"


class Sized(Fused):
    """Code of its own: Dynamo remembers the sizes that a function has seen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Marked(Fused):
    """The same again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


SIZES = (1000, 500, 300)


@pytest.mark.parametrize(("marked", "again"), [(False, 1), (True, 0)])
def test_sizes_that_change_are_compiled_again_once_and_marked_ones_never(
    marked: bool, again: int
) -> None:
    """Dynamo takes the first size for the only one, unless it is told; then all sizes alike."""
    model = Marked() if marked else Sized()
    log, compilation = DynamoLog(), Compilation(model, "default")
    for size in SIZES:
        x = torch.rand(size)
        if marked:
            torch._dynamo.mark_dynamic(x, 0)
        compilation.runs(x)
    assert len(compilation.graphs) == 1 + again
    reasons = log.recompilations()
    assert len(reasons) == again
    assert all("expected 1000, actual 500" in reason for reason in reasons)
    # A size that may be any has its first value where shares are worked out.
    (kernel,) = compilation.graphs[-1].kernels
    n = SIZES[again]
    read, written = 4 * n + n / 10, 4 * n + 20 * n / 10
    assert kernel.parts[0].spot.module == "second"
    assert kernel.parts[0].share == pytest.approx(written / (read + written))
    with compilation.attached():
        compilation.runs(x)
    assert [calls for calls, _ in compilation.times_ns().values()] == [1]


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_other_modes_have_kernels_on_a_cpu_too(mode: str) -> None:
    compilation = Compilation(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), mode)
    x = torch.rand(4, 8)
    with torch.inference_mode():
        expected = compilation.runs(x)
        with compilation.attached():
            assert torch.equal(compilation.runs(x), expected)
    assert all(taken > 0 for _, taken in compilation.times_ns().values())
    (graph,) = compilation.graphs
    layers = {part.spot.module for kernel in graph.kernels for part in kernel.parts}
    assert layers == {"0", "1"}


@pytest.mark.parametrize("taken", [0, 1, 7, 1_000_003])
def test_shares_of_a_kernel_add_up_to_the_nanosecond(taken: int) -> None:
    parts = [Part(Spot(("", str(at)), ""), 1 / 3) for at in range(3)]
    shared = [nanoseconds for _, nanoseconds in _shared(taken, parts)]
    assert sum(shared) == taken
    assert max(shared) - min(shared) <= 1


@pytest.mark.parametrize(("said", "mode"), [(True, "default"), (False, False)])
def test_records_of_before_there_were_modes_read_as_before(said: bool, mode: object) -> None:
    old = {"model": "m", "input": "1x3", "shape": [1, 3], "batch": 1, "compile": said}
    assert Workload.model_validate(old).compile == mode


def test_what_its_user_compiled_is_timed_whole_and_not_compiled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Callable[..., object]] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        calls.append(graph.forward)
        return graph.forward

    compiled = torch.compile(Fused(), backend=backend)
    compiled(torch.rand(1000))
    monkeypatch.setattr(torch, "compile", None)
    profile = layerbench.profile(compiled, torch.rand(1000), compile=True, **PLAN)
    assert profile.layers == ()
    assert profile.compilation is None
    assert len(calls) >= 1


def test_a_release_that_tells_nothing_compiles_as_its_user_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.delattr(debug, "set_kernel_post_grad_provenance_tracing")
    monkeypatch.setattr(torch, "compile", lambda model, **options: said.append(options) or model)
    profile = layerbench.profile(Fused(), torch.rand(8), compile="max-autotune", **PLAN)
    assert said == [{"mode": "max-autotune"}]
    assert profile.layers == ()
    assert "does not tell" in profile.absent["layers"]
    assert profile.compilation
    assert profile.compilation.mode == "max-autotune"


@pytest.mark.slow
def test_a_torchvision_model() -> None:
    profile = layerbench.profile("alexnet", "1x3x64x64", compile=True, **PLAN)
    made = profile.compilation
    assert made
    assert made.graphs == 1
    assert made.attributed == 1
    ran = {row.path for row in profile.layers if row.kernels}
    layers = {row.path for row in profile.layers if row.kind == "module" and row.calls}
    # In evaluation dropout does nothing, and nothing is left of it.
    assert layers - ran == {"classifier.0", "classifier.3"}
