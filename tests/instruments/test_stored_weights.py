"""Quantized, pruned and sparse models: parameters, bytes and FLOPs as counted by hand."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import layerbench
from layerbench.analysis.roofline import bytes_least
from layerbench.errors import ModelImportError

IMAGES = torch.rand(2, 3, 8, 8)
ROWS = torch.rand(4, 64)
# Of both layers: elements of the weights and of the biases, and multiply-adds of four rows.
WEIGHTS, BIASES, FLOPS = 2 * 64 * 32, 32 + 64, 2 * 4 * 2 * 64 * 32


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64)).eval()


class Small(nn.Module):
    """A convolution of 8 filters, 6 x 6 pixels of each, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8 * 6 * 6, 5)

    def forward(self, x):
        return self.fc(torch.flatten(torch.relu(self.conv(x)), 1))


CONV_FLOPS, FC_FLOPS = 2 * 2 * 8 * 36 * 27, 2 * 2 * 288 * 5


def quantized(name: str) -> nn.Module:
    """By torchao, which keeps numbers in tensors of a class of its own."""
    torchao = pytest.importorskip("torchao.quantization")
    model = dense()
    torchao.quantize_(model, getattr(torchao, name)())
    return model


def by_graph() -> nn.Module:
    """Quantized statically: torch.ao packs weights into objects of its own."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = quantize_fx.prepare_fx(
            Small().eval(), get_default_qconfig_mapping("x86"), (IMAGES,)
        )
        model(IMAGES)
        return quantize_fx.convert_fx(model)


def pruned() -> nn.Module:
    """Half of the first weight single elements, a quarter of the second whole rows."""
    model = dense()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[2], "weight", 0.25, n=2, dim=0)
    return model


def sparse(layout: torch.layout) -> nn.Module:
    model = pruned()
    for layer in (model[0], model[2]):
        prune.remove(layer, "weight")
    held = model[0].weight.detach().to_sparse(layout=layout)
    model[0].weight = nn.Parameter(held, requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("name", "held", "extra"),
    [
        # A scale of float32 for each row of a weight, and with integers a zero point.
        ("Int8WeightOnlyConfig", "Int8Tensor (int8, float32)", 5 * BIASES),
        ("Int8DynamicActivationInt8WeightConfig", "Int8Tensor (int8, float32)", 5 * BIASES),
        ("Float8WeightOnlyConfig", "Float8Tensor (float8_e4m3fn, float32)", 4 * BIASES),
    ],
)
def test_tensors_of_a_class_of_their_own(name, held, extra):
    model = quantized(name)
    kept = WEIGHTS + extra
    record = layerbench.structure(model, ROWS)
    assert (record.parameters, record.flops, record.uncounted) == (WEIGHTS + BIASES, FLOPS, ())
    assert record.parameter_bytes == kept + 4 * BIASES
    assert any(note.startswith("4,096 elements in ") and held in note for note in record.notes)
    report = layerbench.memory(model, ROWS)
    assert (report.parameters.elements, report.parameters.bytes) == (
        WEIGHTS + BIASES,
        kept + 4 * BIASES,
    )
    assert {row.note for row in report.tensors if row.name.endswith("weight")} == {held.split()[0]}
    before = [type(one) for one in model.parameters()]
    profile = layerbench.profile(model, ROWS, warmup=0, iterations=1, function_iterations=1)
    assert [type(one) for one in model.parameters()] == before
    first = next(row for row in profile.layers if row.path == "0")
    stored = 64 * 32 + 32 * (extra // BIASES) + 4 * 32
    assert (first.self_flops, first.own_parameter_bytes) == (FLOPS // 2, stored)
    assert bytes_least(first, 4) == 4 * (4 * 64 + 4 * 32) + stored
    assert any(held in note for note in profile.notes)


def test_packed_weights_by_layer():
    record = layerbench.structure(by_graph(), IMAGES)
    rows = {row.path: row for row in record.rows}
    assert (rows["conv"].flops, rows["fc"].flops) == (CONV_FLOPS, FC_FLOPS)
    assert not record.uncounted
    # A byte for each weight, four for each bias; a convolution's stride and padding are no weights.
    assert rows["conv"].own_parameter_bytes == 8 * 27 + 4 * 8
    assert rows["fc"].own_parameter_bytes == 5 * 288 + 4 * 5
    assert (rows["conv"].own_parameters, rows["fc"].own_parameters) == (8 * 27 + 8, 5 * 288 + 5)
    assert (record.parameters, record.trainable) == (1669, 0)
    assert record.parameter_bytes == sum(rows[path].own_parameter_bytes for path in ("conv", "fc"))
    # What the pack lies in has none of its own, so that the rows add up.
    assert sum(row.own_parameters for row in record.rows) == 1669
    assert any(note.startswith("1,669 elements in 1.67 KiB") for note in record.notes)
    profile = layerbench.profile(by_graph(), IMAGES, warmup=0, iterations=1, granularity="layers")
    assert any("packed by a library" in note for note in profile.notes)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(64, 16, bidirectional=True)
        self.fc = nn.Linear(32, 5, bias=False)

    def forward(self, x):
        return self.fc(self.cells(x)[0])


# A byte for each weight, or two; the biases stay float32.
@pytest.mark.parametrize(("dtype", "item"), [(torch.qint8, 1), (torch.float16, 2)])
def test_packed_weights_of_what_runs_dynamically(dtype, item):
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = quantize_dynamic(Recurrent().eval(), {nn.LSTM, nn.Linear}, dtype=dtype)
    record = layerbench.structure(model, ROWS.reshape(2, 2, 64))
    rows = {row.path: row for row in record.rows}
    weights, biases = 2 * 4 * 16 * (64 + 16), 2 * 4 * 16 * 2
    assert rows["cells"].own_parameters == weights + biases
    assert rows["cells"].own_parameter_bytes == item * weights + 4 * biases
    assert (rows["fc"].own_parameters, rows["fc"].own_parameter_bytes) == (160, item * 160)
    assert record.parameters == weights + biases + 160
    assert record.parameter_bytes == item * (weights + 160) + 4 * biases
    assert (rows["fc"].flops, record.uncounted) == (2 * 4 * 160, ())
    report = layerbench.memory(model, ROWS.reshape(2, 2, 64))
    found = report.parameters
    assert (found.elements, found.bytes) == (record.parameters, record.parameter_bytes)


class Int4(nn.Module):
    """64 x 64 weights, two in a byte, with scale and zero point for each 32 of a row."""

    def __init__(self):
        super().__init__()
        weight = torch.randint(0, 15, (64, 64), dtype=torch.int32)
        self.register_buffer("weight", torch._convert_weight_to_int4pack_for_cpu(weight, 1))
        self.register_buffer("scales", torch.ones(2, 64, 2, dtype=torch.bfloat16))

    def forward(self, x):
        return torch._weight_int4pack_mm_for_cpu(x.bfloat16(), self.weight, 32, self.scales)


class Float8(nn.Module):
    def __init__(self):
        super().__init__()
        weight = torch.rand(64, 64).to(torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        scale = torch.ones(())
        return torch._scaled_mm(x.to(self.weight.dtype), self.weight.t(), scale, scale)


@pytest.mark.parametrize(
    ("make", "held"), [(Int4, (0, 64 * 64 // 2 + 2 * 2 * 64 * 2)), (Float8, (64 * 64, 0))]
)
def test_products_with_weights_of_a_byte_or_less(make, held):
    record = layerbench.structure(make(), ROWS)
    assert (record.flops, record.uncounted) == (2 * 4 * 64 * 64, ())
    assert (record.parameter_bytes, record.buffer_bytes) == held


def test_a_graph_with_quantized_constants():
    pytest.importorskip("torchao.quantization.pt2e")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = prepare_pt2e(torch.export.export(Small().eval(), (IMAGES,)).module(), quantizer)
        model(IMAGES)
        model = convert_pt2e(model)
    record = layerbench.structure(model, IMAGES)
    assert record.flops == CONV_FLOPS + FC_FLOPS
    assert not record.uncounted  # bringing numbers to another format is no product
    report = layerbench.memory(model, IMAGES)
    frozen = [row for row in report.tensors if row.name.startswith("_frozen_param")]
    assert sorted((row.dtype, row.bytes) for row in frozen) == [("int8", 8 * 27), ("int8", 5 * 288)]


def test_masks_are_buffers_and_what_they_leave_is_held_too():
    model = pruned()
    weight, hooks = model[0].weight, list(model[0]._forward_pre_hooks.values())
    expected = copy.deepcopy([one.detach() for one in model.parameters()])
    record = layerbench.structure(model, ROWS)
    # A kernel for dense matrices multiplies by the zeros as well.
    assert (record.parameters, record.buffers, record.flops) == (WEIGHTS + BIASES, WEIGHTS, FLOPS)
    report = layerbench.memory(model, ROWS)
    assert report.parameters.bytes == 4 * (WEIGHTS + BIASES)
    assert report.buffers.bytes == 2 * 4 * WEIGHTS  # the masks, and the weights times them
    layerbench.profile(model, ROWS, warmup=0, iterations=1)
    layerbench.estimate_memory(model, ROWS)
    assert model[0].weight is weight
    assert weight.requires_grad
    assert list(model[0]._forward_pre_hooks.values()) == hooks
    assert all(map(torch.equal, expected, model.parameters()))


def test_a_sparse_weight_counts_what_it_stores():
    model = sparse(torch.sparse_csr)
    half = 64 * 32 // 2
    # Values; their columns, and where each row begins, as int64.
    stored = 4 * half + 8 * half + 8 * (32 + 1)
    record = layerbench.structure(model, ROWS)
    rows = {row.path: row for row in record.rows}
    assert (rows["0"].flops, rows["2"].flops) == (2 * 4 * half, FLOPS // 2)
    assert rows["0"].own_parameter_bytes == stored + 4 * 32
    assert rows["2"].own_parameter_bytes is None
    assert record.parameter_bytes == stored + 4 * 32 + 4 * (64 * 32 + 64)
    assert any("held as sparse_csr (int64, float32)" in note for note in record.notes)


FILE = """
from tests.instruments.test_stored_weights import pruned, sparse
import torch

instance = pruned()

def make():
    return instance, torch.rand(4, 64)
"""


def test_an_instance_that_cannot_be_copied_is_one_line(tmp_path):
    place = tmp_path / "mine.py"
    place.write_text(FILE)
    with pytest.raises(ModelImportError, match="cannot be copied: name a function") as caught:
        layerbench.structure(f"{place}:instance", input="1x4x64")
    assert "\n" not in str(caught.value)
    assert layerbench.structure(f"{place}:make").flops == FLOPS
