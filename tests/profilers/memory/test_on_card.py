"""Memory on a named card: cuDNN's plans, what the card has room for, many cards at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerbench
from layerbench.api.inputs import what_runs
from layerbench.environment import cards
from layerbench.instruments.storage_tracker import Allocation, Trace
from layerbench.profilers.memory import cudnn_plans as plans
from layerbench.profilers.memory.allocator import CachingAllocator, OutOfMemory
from layerbench.profilers.memory.cudnn_plans import Convolution, cudnn_plans
from layerbench.profilers.memory.figures import figures
from layerbench.profilers.memory.for_cards import predict_for_cards
from layerbench.profilers.memory.on_card import on_device
from layerbench.profilers.memory.predicted import predict
from layerbench.profilers.memory.replay import Replays
from layerbench.profilers.memory.run_for_gpu import RunForGpu, run_for_gpu
from layerbench.profilers.memory.runs_by_batch import RunsByBatch, with_batch
from layerbench.reporters import render
from layerbench.store import paths
from layerbench.zoo import resolve
from tests.models import Calls

MIB = 2**20
CARD = cards.get("rtx3060")
HALF = Convolution(
    "forward",
    (64, 64, 56, 56),
    (128, 64, 3, 3),
    (64, 128, 56, 56),
    (1, 1),
    (1, 1),
    (1, 1),
    "float16",
    channels_last=False,
)


@pytest.fixture(scope="module")
def trained() -> RunForGpu:
    """A training step of ResNet-18, traced once."""
    return run_for_gpu(resolve("resnet18", "4x3x64x64", mode="train"), optimizer="adamw")


def test_half_precision_is_copied_into_channels_last_order_and_back() -> None:
    """On tensor cores: the copies of all three tensors, and none where they lie so already."""
    plan = cudnn_plans(CARD).of(HALF)
    assert plan is not None
    assert plan.engine.startswith("eng")
    copies = 2 * (64 * 64 * 56 * 56 + 128 * 64 * 3 * 3 + 64 * 128 * 56 * 56)
    assert plan.workspace == pytest.approx(copies, rel=0.01)
    last = cudnn_plans(CARD).of(HALF._replace(channels_last=True))
    assert last is not None
    assert last.workspace < MIB


def test_a_format_that_a_card_lacks_has_no_plan() -> None:
    assert cudnn_plans(cards.get("t4")).of(HALF._replace(dtype="bfloat16")) is None


def test_plans_that_are_tried_next_are_smaller_and_smaller() -> None:
    smaller = cudnn_plans(CARD).smaller(HALF._replace(dtype="float32"))
    assert sorted(set(smaller), reverse=True) == list(smaller)
    assert smaller[-1] < MIB


def test_a_transposed_convolution_is_the_gradient_of_another() -> None:
    module = nn.ConvTranspose2d(8, 4, 3, stride=2)
    workload, subject = what_runs(
        module, torch.empty(2, 8, 9, 9), batch=None, channels_last=False, mode="eval", seed=0
    )
    run = run_for_gpu(workload, subject=subject)
    (kernel,) = _kernels(run)
    assert kernel.kind == "input gradient"
    assert (kernel.input, kernel.output) == ((2, 4, 19, 19), (2, 8, 9, 9))


def test_gradients_of_input_and_weight_have_workspaces_one_after_the_other(
    trained: RunForGpu,
) -> None:
    """The first is given back before the weight's gradient is there."""
    allocations = trained.traced.trace.allocations
    first = next(
        index
        for index, one in enumerate(allocations)
        if isinstance(one.kernel, Convolution) and one.kernel.kind == "input gradient"
    )
    taken, gradient, second = allocations[first : first + 3]
    assert taken.died is not None
    assert taken.died < gradient.born < second.born
    assert isinstance(second.kernel, Convolution)
    assert second.kernel.kind == "weight gradient"
    assert gradient.bytes == 4 * torch.Size(second.kernel.weight).numel()


def test_without_the_package_the_bounds_of_any_gpu_hold(
    trained: RunForGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(plans, "_frontend", missing)
    monkeypatch.setattr(plans, "_PLANS", {})
    on_card, anywhere = on_device(trained, CARD), on_device(trained, None)
    assert "layerbench[cudnn]" in on_card.notes[0]
    bounds = [
        [(one.bytes, one.low, one.high) for one in device.trace.allocations if _is_of_cudnn(one)]
        for device in (on_card, anywhere)
    ]
    assert bounds[0] == bounds[1]
    assert on_card.doubt == anywhere.doubt


def test_a_full_device_gets_free_segments_back() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    first = allocator.allocate(60 * MIB)
    allocator.release(first)
    allocator.allocate(80 * MIB)
    assert (allocator.reserved, allocator.most_reserved) == (80 * MIB, 80 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.allocate(30 * MIB)


def test_a_workspace_that_cannot_be_had_is_a_smaller_one() -> None:
    """As PyTorch tries the next plan; a tensor that cannot be had means that it does not fit."""
    trace = Trace(
        allocations=[
            Allocation(60 * MIB, "", "forward", "x", "activations", born=1),
            Allocation(50 * MIB, "", "forward", "x", "workspace", born=2, died=3, kernel="one"),
        ]
    )
    run = Replays(trace, 100 * MIB, lambda one: (50 * MIB, 20 * MIB) if one else ()).figure
    assert run.fits
    assert run.reserved == 80 * MIB
    assert not Replays(trace, 50 * MIB).figure.fits


def test_a_run_that_is_read_off_is_the_traced_one() -> None:
    workload = resolve("resnet18", "4x3x64x64", mode="train")
    read_off = RunsByBatch(workload, "sgd").at(11)
    traced = run_for_gpu(with_batch(workload, 11), optimizer="sgd")
    assert read_off.traced.trace.allocations == traced.traced.trace.allocations


def test_a_card_is_in_the_record_its_report_and_its_files_name() -> None:
    record = layerbench.estimate_memory("resnet18", "2x3x64x64", device="Tesla T4")
    assert record.card is not None
    assert (record.device, record.card.title) == ("t4", "NVIDIA T4")
    assert record.fit is not None
    assert record.fit.memory_bytes == record.card.memory_bytes
    assert record.fit.fits == "yes"
    assert any(term.name.startswith("cuDNN eng") for term in record.workspaces)
    assert "predicted for NVIDIA T4 (t4)" in render("txt", record)
    assert paths.place(record, ".").name == "resnet18_2x3x64x64_t4"
    assert type(record).model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("card", "precision", "says"),
    [
        ("t4", "amp-bf16", "NVIDIA T4 does not compute in bf16"),
        ("v100", "tf32", "has no TF32"),
        ("a100", "amp-bf16", ""),
    ],
)
def test_a_format_that_the_card_lacks_is_said(card: str, precision: str, says: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    record = layerbench.estimate_memory(
        model, torch.empty(2, 3, 8, 8), device=card, precision=precision
    )
    assert says in " ".join(record.notes)
    assert bool(record.notes) == bool(says)


def test_the_workspace_of_cublas_depends_on_the_card() -> None:
    linear = Calls(lambda self, x: self.layer(x), layer=nn.Linear(8, 8))
    sizes = {}
    for card in ("a100", "h100"):
        record = layerbench.estimate_memory(linear, torch.empty(4, 8), device=card)
        sizes[card] = record.by_category["workspace"]
    assert sizes == {"a100": 8_519_680, "h100": 32 * MIB}


@pytest.mark.parametrize(
    ("model", "differ"),
    [(nn.ReLU(), False), (nn.Linear(64, 32), True), (nn.Conv2d(64, 64, 3), True)],
)
def test_two_cards_differ_by_their_workspaces_alone(model: nn.Module, differ: bool) -> None:
    """cuBLAS takes more from compute capability 9.0 on, and cuDNN plans for the card."""
    input = torch.empty(8, 64) if isinstance(model, nn.Linear) else torch.empty(8, 64, 32, 32)
    one, other = (layerbench.estimate_memory(model, input, device=name) for name in ("t4", "h100"))
    held, taken = (dict(record.by_category) for record in (one, other))
    more = taken.pop("workspace", 0) - held.pop("workspace", 0)
    assert held == taken
    assert other.peak_bytes - one.peak_bytes == more
    assert (more != 0) == differ


def test_many_cards_at_once_are_as_each_alone(trained: RunForGpu) -> None:
    workload = resolve("resnet18", "4x3x64x64", mode="train")
    chosen = [cards.get(name) for name in ("t4", "a100", "a100-80")]
    found = predict_for_cards(RunsByBatch(workload, "adamw"), chosen)
    assert [one.card.name for one in found] == ["t4", "a100", "a100-80"]
    for one in found:
        alone = predict(workload, optimizer="adamw", card=one.card)
        assert one.reserved_bytes == alone.reserved_bytes
        assert one.peak_bytes == alone.peak_bytes
    t4, small, large = (one.fit.largest_batch or 0 for one in found)
    assert t4 < small < large
    at, above = (
        figures(run_for_gpu(with_batch(workload, batch), optimizer="adamw"), chosen[0])
        for batch in (t4 // 2, 2 * t4)
    )
    assert at.verdict(chosen[0].memory_bytes) == "yes"
    assert above.verdict(chosen[0].memory_bytes) == "no"


def _kernels(run: RunForGpu) -> list[Convolution]:
    kernels = (one.kernel for one in run.traced.trace.allocations)
    return [kernel for kernel in kernels if isinstance(kernel, Convolution)]


def _is_of_cudnn(allocation: Allocation) -> bool:
    return isinstance(allocation.kernel, Convolution)
