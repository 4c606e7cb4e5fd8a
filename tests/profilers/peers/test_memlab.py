"""pytorch-memlab's account is memlab's own with its bytes corrected, and disturbs nothing."""

from __future__ import annotations

import json
import sys
import weakref

import pytest
import torch
from pydantic import ValidationError
from pytorch_memlab import MemReporter
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.records.memory import MemoryReport
from tests.support.fingerprint import fingerprint


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Nobody looks half a second long who else is busy."""
    monkeypatch.setattr("layerbench.environment.watch.LOOK_S", 0.0)


def rows(record):
    return {row.name: row for row in record.memlab.tensors}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_names_shapes_and_elements_are_memlabs_and_bytes_are_corrected(dtype):
    model = nn.Sequential(nn.Linear(100, 30), nn.BatchNorm1d(30)).to(dtype).eval()
    x = torch.zeros(2, 100, dtype=dtype)
    record = layerbench.memory(model, x, memlab=True)
    reporter = MemReporter(model)
    reporter.collect_tensor()
    reporter.get_stats()
    own = {entry[0]: entry for entry in reporter.device_tensor_stat[torch.device("cpu")]}
    ours = {tensor.name: tensor for tensor in record.tensors}
    assert list(rows(record)) == list(ours)
    for name, _ in model.named_parameters():
        _, shape, elements, said = own[name]
        row = rows(record)[name]
        assert row.shape == shape
        assert ours[name].elements == elements
        assert row.bytes == ours[name].block_bytes
        assert said == -(-elements * x.element_size() ** 2 // 512) * 512
    report = record.memlab
    assert report.elements == record.total.elements
    assert report.bytes == record.total.block_bytes
    assert report.uncorrected_bytes > report.bytes
    assert f"Elements agree: {report.elements:,}" in report.agreement
    assert f"Bytes agree: {report.bytes:,}" in report.agreement
    text = reporters.render("txt", record)
    assert "multiplies a storage's bytes by the element size" in text
    assert "rounds each storage up to 512 bytes" in " ".join(text.split())


def test_gradients_and_optimizer_state_are_listed_and_gone_afterwards():
    model = nn.Linear(8, 4)
    x = torch.zeros(2, 8)
    inputs = (x,)
    before = fingerprint(model, inputs)
    record = layerbench.memory(model, x, training=True, optimizer="adam", memlab=True)
    assert list(rows(record)) == [
        *("weight", "weight.grad", "bias", "bias.grad", "input"),
        *(f"Adam.weight.{name}" for name in ("step", "exp_avg", "exp_avg_sq")),
        *(f"Adam.bias.{name}" for name in ("step", "exp_avg", "exp_avg_sq")),
    ]
    assert rows(record)["weight.grad"].shape == (4, 8)
    made = 3 * 36 + 2  # gradients, two averages, two steps
    assert f"Besides, it lists {made} elements that the run made" in record.memlab.agreement
    assert fingerprint(model, inputs) == before
    assert model.weight.grad is None


def test_a_tensor_in_a_plain_attribute_is_listed_too():
    model = nn.Linear(8, 4)
    model.table = torch.zeros(5)
    record = layerbench.memory(model, torch.zeros(2, 8), memlab=True)
    assert rows(record)["table"].shape == (5,)
    assert "Elements agree: 57" in record.memlab.agreement


def test_what_two_share_is_told():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    record = layerbench.memory(model, torch.zeros(1, 16), memlab=True)
    assert rows(record)["1.weight(->0.weight)"].bytes == 0
    said = record.memlab.agreement
    assert "by ours: it counts what several tensors share in each of them" in said
    assert f"Bytes agree: {record.total.block_bytes:,}" in said


def test_a_sparse_buffer_is_two_tensors():
    model = nn.Linear(8, 4)
    model.register_buffer("mask", torch.eye(40).to_sparse())
    record = layerbench.memory(model, torch.zeros(2, 8), memlab=True)
    assert record.memlab.reason == ""
    sizes = [row.bytes for row in record.memlab.tensors if row.shape in ((2, 40), (40,))]
    assert sorted(sizes) == [512, 1024]
    assert "it does not see all of sparse, nested and packed tensors" in record.memlab.agreement


def test_a_process_that_memlab_cannot_go_through_has_the_reason_and_all_the_rest():
    model, somebody = nn.Linear(8, 4), nn.Linear(1, 1)
    gone = [weakref.proxy(somebody)]
    del somebody
    x = torch.zeros(2, 8)
    record = layerbench.memory(model, x, memlab=True)
    assert record.memlab.tensors == ()
    assert "weakly-referenced object no longer exists" in record.memlab.reason
    assert record.peak.bytes == layerbench.memory(model, x).peak.bytes
    assert f"Left out: {record.memlab.reason}." in reporters.render("txt", record)
    assert len(gone) == 1


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_memlab", None)
    record = layerbench.memory(nn.Linear(8, 4), torch.zeros(2, 8), memlab=True)
    assert record.memlab.version is None
    assert record.memlab.reason == "pytorch_memlab is not installed: pip install pytorch-memlab"


def test_nothing_is_printed(capfd):
    layerbench.memory(nn.Linear(8, 4), torch.zeros(2, 8), memlab=True)
    assert capfd.readouterr() == ("", "")


def test_a_record_without_it_is_as_before_and_a_false_sum_is_refused():
    record = layerbench.memory(nn.Linear(8, 4), torch.zeros(2, 8))
    assert "memlab" not in json.loads(reporters.render("json", record))
    record = layerbench.memory(nn.Linear(8, 4), torch.zeros(2, 8), memlab=True)
    content = json.loads(reporters.render("json", record))
    assert MemoryReport.model_validate_json(json.dumps(content)) == record
    content["memlab"]["bytes"] += 512
    with pytest.raises(ValidationError, match="do not add up"):
        MemoryReport.model_validate_json(json.dumps(content))
