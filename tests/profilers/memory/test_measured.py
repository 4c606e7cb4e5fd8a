"""Measured memory: the life of every tensor on models small enough to work out by hand."""

from __future__ import annotations

import copy
import csv
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.errors import ModelRunError, UsageError
from layerbench.profilers.loss import loss_of
from layerbench.profilers.optimizers import OPTIMIZERS
from layerbench.records.memory import AllocatorFigures, MemoryReport, ProcessMemory
from tests.models import Calls, Small
from tests.support.paths import ROOT
from tests.support.sample_profiles import environment

REFERENCE = {  # a public study's memory reports of MobileNet-V2: elements, MiB in 512-byte blocks
    "cityscapes": (9_830_492, 37.58),
    "pascal": (4_040_036, 15.49),
}
FLOAT = 4


def row(record: MemoryReport, path: str):
    return next(row for row in record.rows if row.path == path)


def assert_adds_up(record: MemoryReport) -> None:
    held = sum(row.self_at_peak or 0 for row in record.rows)
    assert record.resident_bytes + record.outside_bytes + held == record.peak.bytes
    assert sum(record.peak.by_category.values()) == record.peak.bytes
    assert max(point.live_max for point in record.timeline) == record.peak.bytes
    assert max(row.live_peak or 0 for row in record.rows) <= record.peak.bytes
    alive: Counter[int] = Counter()
    for point in record.timeline:
        alive.update(dict(point.changes))
        assert sum(alive.values()) == point.live_end
        assert min(alive.values()) >= 0


def test_a_chain_of_linear_layers_by_hand():
    """8 -> 32 -> 16 -> 4 with a batch of 2: outputs of 256, 128 and 32 bytes.

    A layer's input is alive while it runs and is dropped when the next one has run, so the
    most is alive in the second layer: 256 + 128 beside parameters and input.
    """
    model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 4))
    record = layerbench.memory(model, torch.zeros(2, 8))
    parameters = (8 * 32 + 32 + 32 * 16 + 16 + 16 * 4 + 4) * FLOAT
    resident = parameters + 2 * 8 * FLOAT
    assert record.resident_bytes == resident
    assert record.peak.bytes == resident + 256 + 128
    assert (record.peak.owner, record.peak.phase) == ("1", "forward")
    assert [row(record, str(i)).allocated for i in range(3)] == [256, 128, 32]
    assert [row(record, str(i)).kept for i in range(3)] == [0, 0, 32]
    assert [row(record, str(i)).self_at_peak for i in range(3)] == [256, 128, 0]
    assert row(record, "").at_peak == 384
    assert row(record, "").self_at_peak == 0
    assert [row(record, str(i)).live_peak for i in range(3)] == [
        resident + 256,
        resident + 256 + 128,
        resident + 128 + 32,
    ]
    assert row(record, "").allocated == 256 + 128 + 32
    assert record.peak.by_category == {
        "parameters": parameters,
        "input": 64,
        "activations": 384,
    }
    assert_adds_up(record)


def test_an_in_place_layer_allocates_nothing():
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(inplace=True), nn.ReLU())
    record = layerbench.memory(model, torch.zeros(2, 8))
    assert [row(record, str(i)).allocated for i in range(3)] == [256, 0, 256]


def test_views_allocate_nothing():
    def run(self, x):
        return self.inner(x).view(-1).unsqueeze(0).transpose(0, 1)

    record = layerbench.memory(Calls(run, inner=nn.Linear(8, 32)), torch.zeros(2, 8))
    assert row(record, "").self_allocated == 0


def test_what_is_saved_for_the_backward():
    """Sigmoid saves its output, the first linear layer only its input; the last output is kept."""
    model = nn.Sequential(nn.Linear(8, 32), nn.Sigmoid(), nn.Linear(32, 4))
    record = layerbench.memory(model, torch.zeros(2, 8), training=True)
    assert [row(record, str(i)).self_kept for i in range(3)] == [0, 256, 32]
    assert record.optimizer == "sgd"
    assert_adds_up(record)


def test_gradients_belong_to_the_layers_that_make_them():
    """At the optimizer's step all gradients are alive, one for each parameter."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    record = layerbench.memory(model, torch.zeros(1, 64), training=True)
    parameters = 2 * (64 * 64 + 64) * FLOAT
    assert record.peak.by_category["gradients"] == parameters
    assert [row(record, str(i)).self_at_peak for i in range(2)] >= [parameters // 2] * 2
    assert_adds_up(record)


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [("sgd", 0), ("momentum", 1), ("adam", 2), ("adamw", 2), ("rmsprop", 1), ("adagrad", 1)],
)
def test_optimizer_state(optimizer, copies):
    """Copies of the parameters that each keeps; a step count of 4 bytes may stand beside them."""
    assert optimizer in OPTIMIZERS
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    record = layerbench.memory(model, torch.zeros(1, 64), training=True, optimizer=optimizer)
    parameters = 2 * (64 * 64 + 64) * FLOAT
    held = record.peak.by_category.get("optimizer state", 0)
    assert held - copies * parameters in (0, 4 * FLOAT)
    assert_adds_up(record)


def test_the_backward_of_in_place_layers_and_its_owner():
    """Full-backward hooks would raise here; the wide layer's backward holds the most."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64 * 256, 2, bias=False),
    )
    record = layerbench.memory(model, torch.zeros(4, 3, 16, 16), training=True)
    assert record.peak.phase in ("backward", "optimizer")
    owners = {
        record.rows[p.owner].path
        for p in record.timeline
        if p.phase == "backward" and p.owner is not None
    }
    assert owners >= {"0", "2", "5"}
    assert_adds_up(record)


def test_a_training_run_leaves_a_model_that_was_handed_over_as_it_was():
    model = Small()
    before = copy.deepcopy(model.state_dict())
    layerbench.memory(model, torch.rand(2, 3, 8, 8), training=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_module_called_twice_and_one_not_called():
    linear = nn.Linear(8, 8)
    model = nn.Sequential(linear, nn.Sequential(linear), nn.Identity())
    record = layerbench.memory(model, torch.zeros(2, 8))
    assert row(record, "0").calls == 2
    assert row(record, "0").allocated == 2 * 64
    small = layerbench.memory(Small(), torch.zeros(1, 3, 8, 8))
    assert row(small, "unused").allocated is None
    assert_adds_up(small)


@pytest.mark.parametrize("input", ["pascal", "cityscapes"])
def test_the_studys_totals_for_mobilenet_v2(input):
    record = layerbench.memory("mobilenet_v2", input)
    elements, mebibytes = REFERENCE[input]
    assert record.parameters.elements == 3_504_872
    assert record.total.elements == elements
    assert round(record.total.block_bytes / 2**20, 2) == mebibytes
    assert_adds_up(record)


def test_pytorch_memlab_counts_the_same_elements_and_too_many_bytes():
    """Its reporter multiplies a storage's bytes by the item size: four times too much."""
    from pytorch_memlab import MemReporter

    model = nn.Linear(256, 256)
    record = layerbench.memory(model, torch.zeros(1, 256))
    reporter = MemReporter(model)
    reporter.collect_tensor()
    reporter.get_stats()
    stats = {
        entry[0]: entry for entries in reporter.device_tensor_stat.values() for entry in entries
    }
    ours = {tensor.name: tensor for tensor in record.tensors}
    assert stats["weight"][2] == ours["weight"].elements == 65_536
    assert ours["weight"].block_bytes == 65_536 * FLOAT
    assert stats["weight"][3] == 4 * ours["weight"].block_bytes


def test_the_sum_of_allocations_is_what_pytorchs_profiler_sees():
    """The profiler hooks the CPU's allocator itself; these layers' kernels take nothing inside."""
    from torch.profiler import ProfilerActivity, profile

    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 8), nn.Softmax(-1)).eval()
    x = torch.rand(16, 64)
    record = layerbench.memory(model, x)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model(x)
    allocated = sum(
        event.nbytes()
        for event in seen.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.nbytes() > 0
    )
    assert row(record, "").allocated == allocated


def test_the_resident_set_stands_beside_it():
    model = nn.Sequential(nn.Linear(64, 2**20), nn.ReLU())
    record = layerbench.memory(model, torch.zeros(32, 64))
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux resets the peak")
    assert record.process is not None
    # Two outputs of 128 MiB were alive at once.
    assert record.process.peak - record.process.before > 250 * 2**20


def test_a_detector_is_measured():
    record = layerbench.memory("ssdlite320_mobilenet_v3_large", "1x3x64x64")
    assert record.peak.bytes > record.resident_bytes
    assert_adds_up(record)


def test_losses():
    x = torch.zeros(2, 3, requires_grad=True)
    assert loss_of(x).item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    image = torch.zeros(2, 3, 4, 4, requires_grad=True)
    assert loss_of({"out": image, "aux": image}).item() == pytest.approx(2 * 1.0986123)
    assert loss_of({"a": x.sum() + 1, "b": x.sum() + 2}).item() == 3
    assert loss_of([image + 2]).item() == 4


@pytest.mark.parametrize(
    ("model", "input", "options", "error", "says"),
    [
        (Small(), torch.zeros(2, 5, 8, 8), {}, ModelRunError, "Conv2d at stem"),
        (Small(), torch.zeros(1, 3, 8, 8), {"optimizer": "adam"}, UsageError, "training=True"),
        (
            Small(),
            torch.zeros(1, 3, 8, 8),
            {"optimizer": "sdg", "training": True},
            UsageError,
            "choose from sgd",
        ),
        (nn.ReLU(), torch.zeros(1, 3), {"training": True}, ModelRunError, "cannot be trained"),
    ],
)
def test_bad_input(model, input, options, error, says):
    with pytest.raises(error, match=says):
        layerbench.memory(model, input, **options)


def test_golden_memory(golden):
    """Two training steps of a small model; where it was measured is made up."""
    record = layerbench.memory(Small(), torch.zeros(2, 3, 8, 8), training=True, optimizer="adam")
    elsewhere = {
        "environment": environment(),
        "process": ProcessMemory(before=300 * 2**20, peak=310 * 2**20),
        "allocator": AllocatorFigures(allocated=2**20, reserved=2**21),
    }
    golden(reporters.render("txt", record.model_copy(update=elsewhere)), ".txt")
    golden(reporters.render("md", record), ".md")


def test_the_reference_file_says_what_the_test_says():
    """The study's figures as a file, where it lies beside the project."""
    path = ROOT / "tests/data" / "mobilenet_v2_memory.csv"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = {
        line["input"].split()[0]: (int(line["elements"]), float(line["allocated_mib"]))
        for line in csv.DictReader(lines)
    }
    assert found == REFERENCE


# The input is copied, 65,536 bytes. A sum that is not in place takes the product again.
_PRODUCT = 4 * 8 * 32 * 256


@pytest.mark.parametrize(
    ("run", "most"),
    [
        (lambda m, x: m.layer(x.transpose(1, 2)), 65_536 + _PRODUCT),
        (lambda m, x: m.layer(x.unflatten(2, (4, 8)).permute(0, 2, 3, 1)), 65_536 + _PRODUCT),
        (lambda m, x: x.transpose(1, 2) @ m.layer.weight.t() + m.layer.bias, 2 * _PRODUCT),
        (lambda m, x: torch.vmap(m.layer)(x.transpose(1, 2).unsqueeze(0)), 2 * _PRODUCT),
    ],
    ids=["transposed", "permuted", "the user's own sum", "transformed"],
)
def test_a_linear_layer_adds_its_bias_in_place(run, most):
    """Also where its input does not lie contiguously; the profiler's allocations say the same."""
    model, x = Calls(run, layer=torch.nn.Linear(64, 256)), torch.rand(8, 64, 32)
    measured = layerbench.memory(model, x)
    assert measured.peak.bytes - measured.resident_bytes == most
    predicted = layerbench.estimate_memory(model, x)
    assert predicted.by_category["activations"] == most
