"""Memory predicted for a GPU: against published peaks, real runs, and itself."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn
from torch.nn import functional

import layerbench
from layerbench import reporters
from layerbench.errors import LayerbenchError, ModelRunError, UsageError
from layerbench.instruments.quick_answers import QuickAnswers
from layerbench.instruments.storage_tracker import Allocation, Trace
from layerbench.profilers.memory import largest_batch
from layerbench.profilers.memory import run_for_gpu as prediction
from layerbench.profilers.memory.kernels import chosen_as_on_gpu
from layerbench.profilers.memory.predicted import predict
from layerbench.profilers.memory.replay import Replays
from layerbench.profilers.memory.runs_by_batch import with_batch
from layerbench.profilers.memory.workspaces import CUBLAS, convolution_workspace
from layerbench.zoo import resolve
from tests.models import Calls, Small
from tests.support.paths import ROOT

MIB = 2**20
VIT, SWIN = "tests/models.py:short_vit", "tests/models.py:short_swin"


def vit_with_100_classes() -> nn.Module:
    """The model whose peaks a public study has published."""
    import timm

    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=100).eval()


def published() -> dict[int, int]:
    text = (ROOT / "tests/data" / "vit_gpu_peak.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {int(line["batch"]): int(line["peak_mib"]) for line in csv.DictReader(lines)}


@pytest.mark.parametrize(("batch", "mebibytes"), published().items())
def test_published_peaks_of_a_vit(batch, mebibytes):
    """The nine peaks lie in the interval, and the figure is within 3 %."""
    model = vit_with_100_classes()
    record = layerbench.estimate_memory(model, torch.empty(batch, 3, 224, 224, device="meta"))
    assert record.how == "fake"
    low, high = record.peak_interval.low / MIB, record.peak_interval.high / MIB
    assert low <= mebibytes <= high
    assert record.peak_bytes / MIB == pytest.approx(mebibytes, rel=0.03)


class _Force(nn.Module):
    """Gradients are taken within an inference, as of an energy by its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.requires_grad_() * 2
            return torch.autograd.grad(self.layer(x).relu().sum(), x)[0]


def test_a_forward_that_takes_gradients_does_not_end_the_process(monkeypatch):
    """It does on CUDA's stand-ins in a PyTorch without this function, if there is no GPU."""
    inputs = torch.rand(32, 64)
    record = layerbench.estimate_memory(_Force(), inputs)
    assert record.how == "fake"
    monkeypatch.delattr(torch._C, "_ensureCUDADeviceGuardSet", raising=False)
    assert "cuda" not in prediction._stand_in_devices(training=False)
    older = layerbench.estimate_memory(_Force(), inputs)
    assert (older.how, older.peak_interval) == ("fake", record.peak_interval)


def test_published_peak_of_a_resnet50():
    """On an A10G, batch 1, evaluation, float32: 109.37 MiB allocated, 142 MiB reserved."""
    record = layerbench.estimate_memory("resnet50", "imagenet")
    assert record.peak_interval.low / MIB <= 109.37 <= record.peak_interval.high / MIB
    assert record.reserved_interval.low / MIB <= 142 <= record.reserved_interval.high / MIB


def test_fake_and_real_tensors_tell_the_same_story():
    """Without blocks and workspaces a prediction is the measured run: same layers, same bytes."""
    model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 256)).eval()
    x = torch.zeros(8, 512)
    measured = layerbench.memory(model, x)
    predicted = layerbench.estimate_memory(model, x)
    # All sizes here are multiples of 512 bytes below 1 MiB, so blocks are what was asked for.
    assert [(r.path, r.allocated, r.kept) for r in predicted.rows] == [
        (r.path, r.allocated, r.kept) for r in measured.rows
    ]
    assert predicted.peak_owner == measured.peak.owner


@pytest.mark.slow
@pytest.mark.skipif(
    not prediction._cuda_bears_a_graph(), reason="there meta tensors stand in for all"
)
@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ("resnet18", "float32"),
        ("mobilenet_v3_small", "float16"),
        (VIT, "float32"),
        (SWIN, "float16"),
    ],
)
def test_fake_cpu_tensors_stand_in_for_fake_cuda_tensors(model, dtype, monkeypatch):
    """What training is predicted with gives the same inference, but for a few small statistics."""
    estimates = []
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(prediction, "_stand_in_devices", lambda training, d=device: (d,))
        record = predict(resolve(model, "2x3x224x224", dtype=dtype))
        assert record.how == "fake"
        estimates.append(record)
    cuda, cpu = estimates
    assert cpu.peak_bytes == pytest.approx(cuda.peak_bytes, rel=1e-3)
    assert cpu.reserved_bytes == pytest.approx(cuda.reserved_bytes, abs=2 * MIB)
    assert cpu.peak_owner == cuda.peak_owner
    assert len(cpu.rows) == len(cuda.rows)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", VIT, SWIN])
def test_meta_tensors_stand_in_for_fake_ones_in_training(model, monkeypatch):
    """They are several times faster, and the same to the byte."""
    estimates = []
    for device in ("meta", "cpu"):
        monkeypatch.setattr(prediction, "_stand_in_devices", lambda training, d=device: (d,))
        work = resolve(model, "2x3x224x224", mode="train")
        estimates.append(predict(work, optimizer="adamw"))
    assert estimates[0] == estimates[1]
    assert estimates[0].how == "fake"


def test_training_is_predicted_alike_with_and_without_a_gpu(monkeypatch):
    tried = []
    usual = prediction.without_memory

    def without_memory(built, device, mode=None):
        tried.append(device)
        if device == prediction.DEVICE:
            raise RuntimeError("without a GPU autograd would end the process")
        return usual(built, device, mode)

    monkeypatch.setattr(prediction, "without_memory", without_memory)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    records = []
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        records.append(layerbench.estimate_memory(model, torch.zeros(2, 4), training=True))
    assert tried == ["meta", "meta"]
    assert records[0] == records[1]


def test_training_by_hand():
    """Adam: parameters, their gradients, two states, and one temporary of the same size."""
    model = nn.Sequential(nn.Linear(512, 512, bias=False), nn.Linear(512, 512, bias=False))
    record = layerbench.estimate_memory(model, torch.zeros(1, 512), training=True, optimizer="adam")
    assert record.peak_phase == "optimizer"
    parameters = 2 * MIB
    assert record.by_category["parameters"] == parameters
    assert record.by_category["gradients"] == parameters
    assert record.by_category["optimizer state"] == 2 * parameters
    # Libraries' workspaces of both threads, and the square roots of one state.
    temporary = record.by_category["workspace"] + record.by_category["activations"]
    assert temporary - 2 * CUBLAS.bytes == pytest.approx(parameters, abs=8 * 512)


def test_it_adds_up():
    for training in (False, True):
        record = layerbench.estimate_memory("resnet18", "8x3x64x64", training=training)
        assert sum(record.by_category.values()) == record.peak_bytes
        assert record.peak_interval.low <= record.peak_bytes <= record.peak_interval.high
        assert record.peak_bytes <= record.reserved_bytes
        low, high = record.reserved_interval.low, record.reserved_interval.high
        assert low <= record.reserved_bytes <= high
        assert record.reserved_bytes < record.total_bytes
        assert max(point.live_max for point in record.timeline) == record.peak_bytes


def test_the_batch_costs_nothing():
    """256 images of 3x1024x2048 would take 6 GiB, their activations far more than there is."""
    record = layerbench.estimate_memory("mobilenet_v2", "256x3x1024x2048")
    assert record.how == "fake"
    assert record.by_category["input"] == 256 * 3 * 1024 * 2048 * 4
    small = layerbench.estimate_memory("mobilenet_v2", "128x3x1024x2048")
    grown = record.by_category["activations"] / small.by_category["activations"]
    assert grown == pytest.approx(2, rel=0.01)


def test_half_precision_halves():
    full = layerbench.estimate_memory("resnet50", "64x3x224x224")
    half = layerbench.estimate_memory("resnet50", "64x3x224x224", dtype="float16")
    # Each small parameter takes a block of 512 bytes all the same.
    assert half.by_category["parameters"] / full.by_category["parameters"] == pytest.approx(
        0.5, rel=0.02
    )
    assert half.by_category["activations"] / full.by_category["activations"] == pytest.approx(
        0.5, rel=0.05
    )


def test_attention_takes_the_kernel_of_a_gpu():
    """The plain products would hold scores of [8, 12, 1024, 1024], 384 MiB."""
    heads, width = 12, 64

    def run(self, x):
        query, key, value = (
            self.inner(x).reshape(8, 1024, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        )
        return functional.scaled_dot_product_attention(query, key, value)

    model = Calls(run, inner=nn.Linear(heads * width, 3 * heads * width))
    record = layerbench.estimate_memory(model, torch.empty(8, 1024, heads * width, device="meta"))
    assert record.by_category["activations"] < 130 * MIB
    assert record.how == "fake"


def test_attention_elsewhere_is_untouched():
    before = functional.scaled_dot_product_attention
    query = torch.rand(1, 2, 5, 8)
    with chosen_as_on_gpu():
        inside = functional.scaled_dot_product_attention(query, query, query)
    assert functional.scaled_dot_product_attention is before
    assert torch.equal(inside, before(query, query, query))


def test_a_detector_is_replayed_from_a_real_run():
    record = layerbench.estimate_memory("ssdlite320_mobilenet_v3_large", "1x3x64x64")
    assert record.how == "replayed"
    assert "real run" in record.notes[0]


def test_a_model_that_was_handed_over_stays_on_the_cpu():
    model = Small().train()
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    layerbench.estimate_memory(model, torch.zeros(2, 3, 8, 8), training=True, optimizer="adam")
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == identities
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())


def test_workspaces_of_a_convolution():
    """3x3, 256 to 256 channels on 14x14, batch 1: copies of input, weight and output."""
    taken = convolution_workspace((1, 256, 14, 14), (256, 256, 3, 3), (1, 256, 14, 14), (1, 1), 4)
    assert taken.bytes == 4 * (256 * 196 + 256 * 256 * 9 + 256 * 196)
    assert taken.low == 0
    # The Fourier transform's are the largest.
    assert taken.high == 2080 * (65_536 + 256) + 2304 * 256
    strided = convolution_workspace((1, 8, 8, 8), (8, 8, 3, 3), (1, 8, 4, 4), (2, 2), 4)
    assert strided.high == 2 * strided.bytes
    last = convolution_workspace(
        (1, 8, 8, 8), (8, 8, 3, 3), (1, 8, 8, 8), (1, 1), 2, channels_last=True
    )
    assert last.bytes == 0


def test_replay_of_a_trace_by_hand():
    trace = Trace(
        [
            Allocation(3 * MIB, None, "load", "", "parameters", 1),
            Allocation(5 * MIB, "", "forward", "a", "activations", 2, 4),
            Allocation(MIB, "", "forward", "b", "workspace", 3, 5, low=0, high=2 * MIB),
        ]
    )
    replays = Replays(trace)
    assert replays.low.sizes == [3 * MIB, 5 * MIB, 0]
    assert replays.figure.sizes == [3 * MIB, 5 * MIB, MIB]
    assert replays.figure.reserved == 22 * MIB
    assert replays.high.sizes == [3 * MIB, 5 * MIB, 2 * MIB]


def test_the_bounds_of_reserved_memory_try_mixtures_of_kernels():
    """Neither no workspace nor the largest reserves the most: one of 35 MiB, left free, is too
    small for the tensor of 40 MiB that comes after it.
    """
    trace = Trace(
        [
            Allocation(0, "", "forward", "first", "workspace", 1, 2, low=0, high=40 * MIB),
            Allocation(30 * MIB, "", "forward", "a", "activations", 3, 20),
            Allocation(0, "", "forward", "second", "workspace", 4, 5, low=0, high=40 * MIB),
            Allocation(40 * MIB, "", "forward", "b", "activations", 6, 21),
        ]
    )
    replays = Replays(trace)
    assert replays.low.reserved == 70 * MIB
    assert replays.high.reserved == 80 * MIB
    low, high = replays.reserved_bounds()
    assert low == 50 * MIB
    assert high > (80 + 20) * MIB
    assert (low, high) == Replays(trace).reserved_bounds()


def test_golden_estimate(golden):
    record = layerbench.estimate_memory(Small(), torch.zeros(2, 3, 8, 8), gpu_memory="2GiB")
    fixed = record.model_copy(update={"torch": "2.8.0", "layerbench": "0.1.0"})
    golden(reporters.render("txt", fixed), ".txt")
    golden(reporters.render("md", fixed), ".md")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quick_answers_are_those_of_the_cpu(mode, dtype):
    """Shapes, strides and types of what batch normalization and its backward return."""
    given = torch.randn(3, 4, 5, 6).to(dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = given.contiguous(memory_format=layout)
        real = _normalized(x, training=mode == "train")
        with QuickAnswers():
            meta = _normalized(x.to("meta"), training=mode == "train")
        assert [_looks(one) for one in meta] == [_looks(one) for one in real]


def _normalized(x, *, training):
    weight, bias, mean, var = (torch.ones(4, device=x.device) for _ in range(4))
    out, saved, inverse = torch.ops.aten.native_batch_norm(
        x, weight, bias, mean, var, training, 0.1, 1e-5
    )
    gradients = torch.ops.aten.native_batch_norm_backward(
        out, x, weight, mean, var, saved, inverse, training, 1e-5, [True, True, False]
    )
    return [out, *gradients] + ([saved, inverse] if training else [])


def _looks(tensor):
    return None if tensor is None else (tuple(tensor.shape), tensor.stride(), tensor.dtype)


# --- does it fit ----------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("limit", [0, 119, 120, 5_000, 12_345])
def test_the_largest_batch_is_exact_and_quickly_found(start, limit):
    asked = []

    def peak(batch):
        asked.append(batch)
        return 100 + 20 * batch

    found = largest_batch._search(peak, start, limit)
    assert found == max(0, (limit - 100) // 20)
    assert len(set(asked)) < 16


def test_the_largest_batch_where_memory_grows_in_steps():
    def peak(batch):
        return 100 + 1000 * ((batch + 9) // 10) ** 2

    assert largest_batch._search(peak, 1, 1100 + 24_000) == 50


def test_does_it_fit():
    model = "alexnet"
    record = layerbench.estimate_memory(model, "4x3x64x64", gpu_memory="4GiB")
    assert record.fit is not None
    assert record.fit.fits == "yes"
    batch = record.fit.largest_batch
    assert batch is not None
    workload = resolve(model, "4x3x64x64")
    at = predict(with_batch(workload, batch)).total_interval.high
    above = predict(with_batch(workload, batch + 1)).total_interval.high
    assert at <= 4 * 2**30 < above
    assert record.fit.largest_batch_peak == at
    tight = layerbench.estimate_memory(model, "4x3x64x64", gpu_memory="100MiB")
    assert tight.fit is not None
    assert (tight.fit.fits, tight.fit.largest_batch) == ("no", 0)


@pytest.mark.parametrize(
    ("model", "input", "options", "error", "says"),
    [
        ("resnet18", "imagenet", {"device": "abacus"}, UsageError, "no GPU .abacus. is known"),
        ("resnet18", "imagenet", {"gpu_memory": "much"}, UsageError, "24GiB"),
        ("resnet18", "2x5x64x64", {}, ModelRunError, "Conv2d at conv1"),
        (Small(), torch.zeros(2, 5, 8, 8), {}, ModelRunError, "Conv2d at stem"),
    ],
)
def test_bad_input(model, input, options, error, says):
    with pytest.raises(error, match=says):
        layerbench.estimate_memory(model, input, **options)
    assert issubclass(error, LayerbenchError)
