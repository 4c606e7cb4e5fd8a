"""A CUDA graph's replay beside the forward without it.

`Cuda`, the class for NVIDIA's GPUs, runs on the simulated device; a stand-in for
`torch.cuda.CUDAGraph` launches the kernels again that it saw. Lengths are stated, so all is known.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from layerbench import reporters, zoo
from layerbench.api.timing import measure
from layerbench.environment import devices
from layerbench.environment.devices.cuda import Cuda
from layerbench.errors import ModelRunError, UsageError
from layerbench.instruments.cuda_graph import check_graphs, why_unlike
from layerbench.instruments.kernels import Kernel
from layerbench.profilers import replay_rounds
from layerbench.profilers.paired import Task, measure_pair
from layerbench.profilers.progress import MEASURING, Silent
from layerbench.records.timing import Profile
from layerbench.records.view import View
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.as_cuda import Graph, as_cuda
from tests.simulated.process import on_sim

PLAN = Plan(warmup=1, iterations=4)
RULES: dict[str, Any] = {
    "kernel_ns": 10,
    "launch_ns": 20_000,
    "named_ns": {"aten::convolution": 5_003, "aten::relu_": 101},
}


def built(model: nn.Module | None = None) -> Built:
    module = (model or Small()).to("sim:0").eval()
    return zoo.Built(module, (torch.rand(2, 3, 8, 8).to("sim:0"),))


def profile_of(gpu: Cuda, subject: Built, **options: Any) -> Profile:
    workload = zoo.describe(subject, cuda_graph=True, **options)
    return measure(workload, PLAN, gpu, subject=subject).profile


def nanoseconds(record: Profile, path: str) -> int:
    (row,) = (row for row in record.layers if row.path == path)
    assert row.self_
    return round(row.self_.median * 1e9)


@on_sim
def test_layers_have_the_kernels_of_the_replay(sim: Simulator) -> None:
    sim.rules(**RULES)
    with as_cuda() as gpu:
        record = profile_of(gpu, built())
    root, rounds, beside = record.root, record.device_rounds, record.cuda_graph
    assert record.workload.cuda_graph
    assert root
    assert root.inclusive
    assert root.kernels
    assert rounds
    assert rounds.span
    assert rounds.idle
    assert beside
    # All is launched at once in a replay, and one by one without the graph.
    needed = round(root.inclusive.median * 1e9)
    assert round(record.whole.median * 1e9) == 20_000 + needed
    assert round(beside.eager.median * 1e9) == pytest.approx(20_000 * root.kernels, abs=10)
    assert nanoseconds(record, "blocks.0.conv") == 5_003
    assert nanoseconds(record, "blocks.0.relu") == 101
    assert nanoseconds(record, "blocks.0.add()") == 10
    assert (
        sum(
            nanoseconds(record, row.path)
            for row in record.layers
            if row.kind == "module" and row.calls
        )
        == needed
    )
    assert rounds.idle.max == 0
    assert all(row.host_self is None for row in record.layers)
    text = reporters.render("txt", record, View(full=True))
    assert "That is a CUDA graph's replay. Without the graph the forward takes" in text
    assert "CUDA graph" in reporters.render("md", record)
    read = Profile.model_validate_json(reporters.render("json", record))
    assert read.cuda_graph == beside
    for name in ("csv", "html", "screen"):
        reporters.render(name, record)


@on_sim
def test_other_kernels_in_the_graph_leave_the_whole(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a library takes other algorithms while it is captured."""
    sim.rules(**RULES)
    replay = Graph.replay

    def other(self: Graph) -> None:
        self._kernels[0] = self._kernels[0]._replace(name="implicit_gemm")
        replay(self)

    monkeypatch.setattr(Graph, "replay", other)
    with as_cuda() as gpu:
        record = profile_of(gpu, built())
    assert record.layers == ()
    assert record.cuda_graph
    assert record.absent["layers"] == (
        "only the whole replay of the CUDA graph is timed: kernel 1 is implicit_gemm in the "
        "graph, and aten::convolution without it"
    )
    assert "Both take turns" in reporters.render("txt", record, View(full=True))


@on_sim
def test_without_kernels_the_whole_replay_is_timed(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.rules(**RULES)
    monkeypatch.setattr(replay_rounds, "why_unseen", lambda _: "no permission")
    with as_cuda() as gpu:
        record = profile_of(gpu, built())
    assert record.layers == ()
    assert record.absent["layers"].endswith("no permission")
    assert record.cuda_graph


@on_sim
def test_a_pair_with_and_without_a_graph(sim: Simulator) -> None:
    sim.rules(**RULES)
    with as_cuda() as gpu:
        subjects = built(), built()
        first, second = (
            zoo.describe(subject, cuda_graph=graph)
            for subject, graph in zip(subjects, (False, True), strict=True)
        )
        plan = PLAN.model_copy(update={"iterations": 6, "warmup": 0})
        tasks = Task(first, plan, gpu), Task(second, plan, gpu)
        pair = measure_pair(tasks, subjects=subjects)
    assert pair[1].facts.device_times == "kernels"
    assert (pair[0].arrays["inclusive"] == pair[1].arrays["inclusive"]).all()
    assert (pair[1].arrays["untouched"] < pair[0].arrays["untouched"]).all()
    assert (pair[1].arrays["eager"] == pair[0].arrays["untouched"]).all()


class Interrupting(Silent):
    """Somebody interrupts in the midst of the third replay's round."""

    def step(self, phase: str, done: int, total: int) -> None:
        if phase == MEASURING and done == 3:
            raise KeyboardInterrupt


@on_sim
def test_an_interrupted_measurement_keeps_its_rounds(sim: Simulator) -> None:
    sim.rules(**RULES)
    with as_cuda() as gpu:
        subject = built()
        workload = zoo.describe(subject, cuda_graph=True)
        made = measure(
            workload, PLAN, gpu, subject=subject, progress=Interrupting(), keep_interrupted=True
        )
    assert made.profile.stop == "interrupted"
    assert made.profile.whole.n == 3
    assert made.profile.cuda_graph
    assert made.profile.cuda_graph.eager.n == 3
    assert nanoseconds(made.profile, "blocks.0.conv") == 5_003


class Uncapturable(nn.Linear):
    """Reads a value while it is captured."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if CAPTURING:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return super().forward(x)


CAPTURING: list[None] = []


@on_sim
def test_a_forward_that_cannot_be_captured_is_one_line(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.rules(**RULES)
    monkeypatch.setattr(Graph, "__init__", lambda _: CAPTURING.append(None))
    model = Uncapturable(8, 8)
    try:
        with as_cuda() as gpu, pytest.raises(ModelRunError) as error:
            profile_of(gpu, built(model))
    finally:
        CAPTURING.clear()
    assert str(error.value) == (
        "Uncapturable cannot be captured as a CUDA graph: operation not permitted when stream is "
        "capturing"
    )
    assert "forward" not in vars(model)


def test_a_device_without_graphs_and_a_compiled_model_are_refused() -> None:
    shape = (1, 3, 8, 8)
    workload = Workload(model="m", input="1x3x8x8", shape=shape, batch=1, cuda_graph=True)
    with pytest.raises(UsageError, match="cpu has no such graphs"):
        check_graphs(workload, devices.get("cpu"))
    compiled = workload.model_copy(update={"compile": "default"})
    with pytest.raises(UsageError, match="take --compile=reduce-overhead"):
        check_graphs(compiled, Cuda(0))
    check_graphs(workload, Cuda(0))


def kernels(names: str) -> list[Kernel]:
    return [Kernel(name, 0, at, at + 1) for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("eager", "replayed", "why"),
    [
        ("abc", "abc", ""),
        ("abc", "", "the profiler shows no kernel of a graph"),
        ("abc", "abd", "kernel 3 is d in the graph, and c without it"),
        ("abc", "ab", "the graph has 2 kernels, and the forward without it 3"),
        ("ab", "abc", "the graph has 3 kernels, and the forward without it 2"),
    ],
)
def test_why_kernels_are_not_those_of_the_forward(eager: str, replayed: str, why: str) -> None:
    assert why_unlike(kernels(eager), kernels(replayed)) == why
