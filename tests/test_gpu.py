"""On a machine with an accelerator: real events, real memory."""

from __future__ import annotations

import pytest
import torch

import layerbench
from layerbench.environment import devices
from layerbench.errors import NotEnoughMemory
from layerbench.records.workload import CompileMode
from tests.models import Small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_device_and_host_times_stand_side_by_side() -> None:
    profile = layerbench.profile(
        "resnet18", "8x3x224x224", device="cuda", warmup=5, iterations=20, function_iterations=5
    )
    assert profile.environment.device.kind == "cuda"
    assert profile.whole_host is not None
    assert profile.reconciliation
    assert profile.reconciliation.self_sum_ratio == 1
    timed = [row for row in profile.layers if row.kind == "module" and row.calls]
    assert all(row.inclusive and row.host_inclusive for row in timed)


def test_a_cuda_graphs_replay_has_layers() -> None:
    x = torch.rand(4, 3, 64, 64, device="cuda")
    profile = layerbench.profile(
        Small().cuda().eval(), x, cuda_graph=True, warmup=2, iterations=5, ceilings=False
    )
    assert profile.cuda_graph
    assert not profile.absent.get("layers")
    rows = {row.path: row for row in profile.layers}
    assert rows["stem"].kernels
    assert rows["stem"].inclusive


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_layers_on_the_gpu(mode: CompileMode) -> None:
    x = torch.rand(4, 3, 64, 64, device="cuda")
    profile = layerbench.profile(
        Small().cuda().eval(), x, compile=mode, warmup=2, iterations=5, ceilings=False
    )
    assert not profile.absent.get("layers")
    assert profile.compilation
    assert (profile.compilation.attributed or 0) > 0.9
    assert profile.device_rounds
    assert profile.device_rounds.how == "kernels"
    root, rounds = profile.root, profile.device_rounds
    assert root
    assert root.inclusive
    assert rounds.span
    assert rounds.idle
    worked = root.inclusive.mean + rounds.idle.mean
    assert worked == pytest.approx(rounds.span.mean, abs=1e-9)


def test_a_live_loop_on_the_gpu() -> None:
    model = Small().cuda().eval()
    with torch.inference_mode(), layerbench.time_layers(model) as layers:
        for _ in range(10):
            model(torch.rand(4, 3, 64, 64, device="cuda"))
    rows = {row.path: row for row in layers.rows}
    assert rows["stem"].inclusive
    assert rows["stem"].inclusive.median > 0
    assert rows["stem"].host_inclusive


def test_too_large_an_input_is_explained() -> None:
    free = devices.get("cuda").memory().free_bytes
    batch = free // (3 * 224 * 224 * 4) + 1
    with pytest.raises(NotEnoughMemory, match="free on cuda"):
        layerbench.profile("resnet18", f"{batch}x3x224x224", device="cuda", iterations=1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v2", "vit_b_16", "swin_t"])
def test_predicted_memory_holds_on_this_gpu(model: str, training: bool) -> None:
    """The allocator's own peaks lie in the predicted intervals."""
    torch.cuda.empty_cache()
    work = {"batch": 8, "training": training}
    predicted = layerbench.estimate_memory(model, "imagenet", **work)  # type: ignore[arg-type]
    measured = layerbench.memory(model, "imagenet", device="cuda", **work)  # type: ignore[arg-type]
    assert measured.allocator is not None
    allocated, reserved = measured.allocator.allocated, measured.allocator.reserved
    assert predicted.peak_interval.low <= allocated <= predicted.peak_interval.high
    assert predicted.reserved_interval.low <= reserved <= predicted.reserved_interval.high
    # What the layers' tensors take is part of what the allocator handed out.
    assert measured.peak.bytes <= allocated
