"""Compiled layers on an accelerator: stated lengths of kernels come out as those of layers.

The code is as Inductor writes it for CUDA (`tests.simulated.inductor`), and the device simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._C._profiler import _RecordFunctionFast as RecordFunction

import layerbench
from layerbench import reporters
from layerbench.instruments.compilation import CompiledKernel
from layerbench.instruments.compiled_kernels import by_name, recognized
from layerbench.instruments.kernels import RANGE, HostEvent, Kernel, added_up
from layerbench.instruments.provenance import Part, Spot
from layerbench.profilers import compiled_rounds, timing
from layerbench.records.timing import Profile
from layerbench.records.view import View
from tests.simulated import Simulator
from tests.simulated.inductor import Chain, Library, Triton, compilation_of, module_of
from tests.simulated.process import on_sim

FIRST, SECOND, RELU = (Spot(("", path), "") for path in ("first", "second", "relu"))
# The first ReLU's kernel has a part of the layer before it.
MADE = {
    1: CompiledKernel("extern_kernels.mm", (Part(FIRST, 1.0, 0, frozenset("a")),)),
    2: CompiledKernel(
        "triton_poi_fused_relu_0",
        (Part(RELU, 0.75, 1, frozenset("b")), Part(FIRST, 0.25, 0, frozenset("a"))),
    ),
    3: CompiledKernel("extern_kernels.mm", (Part(SECOND, 1.0, 2, frozenset("c")),)),
    4: CompiledKernel("triton_poi_fused_relu_0", (Part(RELU, 1.0, 3, frozenset("d")),)),
    5: CompiledKernel(
        "torch.ops.aten.sort.default", (Part(Spot(("",), "sort"), 1.0, 4, frozenset("e")),)
    ),
}
# An addition takes time where it is tried whether kernels are seen.
RULES: dict[str, Any] = {
    "kernel_ns": 0,
    "named_ns": {"aten::sort": 2_000, "aten::copy_": 70, "aten::add": 30},
}

TIMES = {
    "": 2_070,
    "first": 5_014 + 250,
    "second": 5_014,
    "relu": 750 + 1_000,
    "sort()": 2_000,
    "between_kernels()": 70,
}


def profile_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, wrap: Callable[..., Any] | None = None
) -> Profile:
    names = {
        "triton_poi_fused_relu_0": Triton("triton_poi_fused_relu_0", 1_000),
        "extern_kernels": Library("gemm", (5_003, 11)),
    }
    module = module_of(folder / "code.py", names)
    monkeypatch.setattr(compiled_rounds, "Compilation", compilation_of(module, MADE, wrap))
    # Inductor takes seconds to load, and has no part in this.
    monkeypatch.setattr(timing, "why_unknown", lambda: "")
    model, x = Chain().to("sim:0").eval(), torch.rand(4, 4).to("sim:0")
    before = module.partition_0.__code__
    try:
        return layerbench.profile(
            model, x, compile=True, warmup=1, iterations=4, threads=1, ceilings=False
        )
    finally:
        assert module.partition_0.__code__ is before
        assert not any(name.startswith("_layerbench") for name in vars(module))


def times_of(record: Profile) -> dict[str, int]:
    """Self times in nanoseconds."""
    return {row.path: round(row.self_.median * 1e9) for row in record.layers if row.self_}


@on_sim
def test_layers_have_their_shares_of_the_devices_kernels(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sim.rules(**RULES)
    record = profile_of(monkeypatch, tmp_path)
    assert times_of(record) == TIMES
    rounds, root = record.device_rounds, record.root
    assert rounds
    assert rounds.span
    assert rounds.idle
    assert root
    assert root.inclusive
    assert rounds.how == "kernels"
    assert root.inclusive.median + rounds.idle.median == pytest.approx(
        rounds.span.median, abs=1e-12
    )
    assert record.reconciliation
    assert record.reconciliation.self_sum_ratio == 1
    assert [(one.name, one.calls, round(one.time.median * 1e9)) for one in record.kernels] == [
        ("extern_kernels.mm", 1, 5_014),
        ("extern_kernels.mm", 1, 5_014),
        ("torch.ops.aten.sort.default", 1, 2_000),
        ("triton_poi_fused_relu_0", 1, 1_000),
        ("triton_poi_fused_relu_0", 1, 1_000),
    ]
    made = record.compilation
    assert made
    assert (made.kernels, made.fused, made.attributed) == (5, 1, 1)
    rows = {row.path: row for row in record.layers}
    assert rows["first"].shared == pytest.approx(250 / 5_264, abs=1e-4)
    # The host's time of a layer is that of the code of its kernels.
    hosts = [row.host_self for row in record.layers if row.kind == "module"]
    assert root.host_inclusive
    assert sum(host.mean for host in hosts if host) == pytest.approx(
        root.host_inclusive.mean, abs=1e-9
    )
    assert rows["first"].host_self
    assert rows["first"].host_self.mean > 0
    text = reporters.render("txt", record, View(kernels=True, full=True))
    assert "between_kernels()" in text
    assert "timed whole" not in text


class Replayed:
    """Stands for what Inductor makes of a partition for CUDA graphs: it runs once, and then its
    kernels are replayed."""

    def __init__(self, sim: Simulator, partition: Callable[..., Any]) -> None:
        self._sim, self._partition = sim, partition
        self._kernels: list[tuple[str, int]] = []

    def __call__(self, args: list[torch.Tensor]) -> Any:
        if not self._kernels:
            first = self._sim.kernel_count
            self._result = self._partition(args)
            self._kernels = [(one.name, one.length_ns) for one in self._sim.kernels(first)][1:]
        else:
            with RecordFunction("aten::_foreach_copy_"):
                self._sim.launch("copy of the inputs", 70)
            for name, nanoseconds in self._kernels:
                self._sim.launch(name, nanoseconds)
        return self._result


@on_sim
def test_a_replayed_graphs_kernels_are_known_by_name_and_order(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sim.rules(**RULES)
    record = profile_of(monkeypatch, tmp_path, lambda partition: Replayed(sim, partition))
    assert times_of(record) == TIMES
    assert any(
        note.startswith("7 kernels of a forward are known by their names and their order alone")
        and note.endswith("a CUDA graph runs none")
        for note in record.notes
    )


@on_sim
def test_without_kernels_the_whole_is_timed(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sim.rules(**RULES)
    monkeypatch.setattr(timing, "why_unseen", lambda _: "no permission")
    record = profile_of(monkeypatch, tmp_path)
    assert record.layers == record.kernels == ()
    assert record.absent["layers"].endswith("only the whole compiled model is timed: no permission")
    assert round(record.whole.median * 1e9) == 2_070 + 2 * (5_014 + 1_000)


@pytest.mark.parametrize(
    ("replayed", "names", "found"),
    [
        (["t0", "t1", "t0"], ["t0", "t1", "t0"], [0, 1, 2]),
        # A library's kernels between two of Inductor's are its only function's there.
        (["a", "b", "t0", "c"], ["mm", "t0", "conv"], [0, 0, 1, 2]),
        # As many as functions: in their order. More of them than functions: whose they are is open.
        (["a", "b", "t0"], ["mm", "conv", "t0"], [0, 1, 2]),
        (["a", "b", "c", "t0", "d"], ["mm", "conv", "t0", "mm"], [None, None, None, 2, 3]),
        # Kernels where no function is called.
        (["t0", "a"], ["t0"], [0, None]),
        # Inductor's own kernels in another order: these are of other code.
        (["t1", "t0"], ["t0", "t1"], [None, None]),
        (["a"], ["mm"], [0]),
        ([], ["t0"], []),
        ([], [], []),
    ],
)
def test_names_and_order(replayed: list[str], names: list[str], found: list[int | None]) -> None:
    assert by_name(replayed, names) == found


def test_kernels_that_the_profiler_links_to_nothing_are_known_by_name() -> None:
    """As some releases do with what Triton launches; a library's kernels are within operators."""
    ranges = [HostEvent(f"{RANGE}{at}", 10 + at, 1, 100 * at, 100 * at + 90) for at in (1, 2, 3)]
    host = [
        HostEvent(f"{RANGE}0", 10, 1, 0, 1000),
        *ranges,
        HostEvent("aten::mm", 20, 1, 110, 120),
        HostEvent("aten::clone", 21, 1, 10, 20),
    ]
    kernels = [
        Kernel("copy", 21, 1_000, 1_001),
        Kernel("gemm", 20, 1_010, 1_030),
        Kernel("t0", 0, 1_030, 1_035),
        Kernel("t1", 0, 1_040, 1_047),
        Kernel("t9", 0, 1_050, 1_100),
    ]
    seen = recognized(host, kernels, ["extern_kernels.mm", "t0", "t1"])
    forward = added_up([*host, *seen.ranges], seen.kernels, 4)
    # The copy is between kernels, and the last one, whose name nobody has given.
    assert forward.self_ns.tolist() == [1 + 50, 20, 5, 7]
    assert forward.calls.tolist() == [1, 1, 1, 1]
    assert (seen.by_name, seen.unknown) == (3, 1)
