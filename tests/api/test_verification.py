"""What no machine can change, worked out anew: of committed reports, and of fresh ones."""

from __future__ import annotations

import shutil

import pytest
import torch

import layerbench
from layerbench import reporters
from layerbench.analysis.views import finest
from layerbench.api import verification
from layerbench.errors import RecordError
from layerbench.profilers import dry_run
from layerbench.records.bundle import Bundle
from layerbench.records.view import View
from layerbench.records.workload import Plan
from layerbench.store import reading, writing
from tests.models import Small
from tests.support.paths import ROOT
from tests.support.sample_comparisons import one_slower
from tests.support.sample_devices import launch_bound

FOLDERS = ("stats", "cpu/stats", "model_structures", "memory_reports")
REPORTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.json"))


@pytest.fixture
def once(monkeypatch):
    """Reports of one model on one input, of several machines or threads, take one look at it."""

    def looked_at(workload, plan, *, counted):
        key = (workload.model_dump_json(), plan.granularity, plan.function_iterations > 0, counted)
        if key not in LOOKED_AT:
            LOOKED_AT[key] = dry_run.dry_run(workload, plan, counted=counted)
        return LOOKED_AT[key]

    monkeypatch.setattr(verification, "dry_run", looked_at)


LOOKED_AT = {}


@pytest.mark.slow
@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("path", REPORTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_committed_report_says_what_comes_out(path):
    assert list(verification.checked([path])) == [(path, None, None)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "input"),
    [
        (
            "tests/models.py:small_attention",
            "1x3x32x32",
        ),  # whose fast path must stay
        ("swin_t", "1x3x64x64"),
        ("googlenet", "1x3x96x96"),
        ("tests.models:small_with_input", None),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "1x3x64x64"),  # looks at values
    ],
)
def test_rows_looked_at_without_memory_are_those_of_a_measurement(spec, input):
    plan = {"warmup": 0, "iterations": 1, "function_iterations": 1}
    measured = layerbench.profile(spec, input, device="cpu", threads=1, **plan)
    assert verification.half(verification.again(measured)) == verification.half(measured)
    assert any(row.kind == "function" for row in measured.layers)


@pytest.mark.parametrize(
    ("spec", "input", "optimizer"),
    [
        ("tests/models.py:small", "2x3x16x16", None),
        ("tests/models.py:small", "2x3x16x16", "adam"),
        ("tests/models.py:small_attention", "1x3x32x32", None),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "1x3x64x64", None),
    ],
)
def test_memory_worked_out_again_is_the_measured_one(spec, input, optimizer):
    measured = layerbench.memory(spec, input, training=optimizer is not None, optimizer=optimizer)
    assert verification.again(measured) == measured


def test_a_prediction_comes_out_again():
    predicted = layerbench.estimate_memory("tests/models.py:small", "2x3x16x16", gpu_memory="2GiB")
    assert verification.half(verification.again(predicted)) == verification.half(predicted)


def test_a_training_profile_comes_out_again():
    plan = {"threads": 1, "warmup": 0, "iterations": 1}
    measured = layerbench.profile_training("tests/models.py:small", "2x3x16x16", **plan)
    assert verification.half(verification.again(measured)) == verification.half(measured)
    edited = measured.model_copy(update={"parameters": 7})
    assert verification.half(verification.again(edited)) != verification.half(edited)


def test_an_export_beside_a_record_is_no_stranger(tmp_path):
    source = next(path for path in REPORTS if path.parent.name == "layers")
    shutil.copy(source, tmp_path / "x.json")
    record = reading.read(source)
    for made, view in ((record, View()), (finest(record), View(folded=False))):
        writing.write_text(tmp_path / "x.md", reporters.render("md", made, view))
        assert list(verification.checked([tmp_path])) == [(tmp_path / "x.json", None, None)]
    (tmp_path / "x.md").write_bytes(b"\xff\xfe")
    (one,) = verification.checked([tmp_path])
    assert one.complaint == "x.md is not what the record renders to"


def test_what_is_left_out_of_a_profile_is_what_was_measured():
    record = reading.read(next(path for path in REPORTS if path.parent.name == "layers"))
    half = verification.half(record)
    assert half.keys() == {
        "record", "schema_version", "workload", "model_type", "parameters", "layers"
    }  # fmt: skip
    assert half["layers"][0].keys() == {
        "path", "type", "kind", "depth", "calls", "block", "position", "input_shapes",
        "output_shapes", "parameters", "own_parameters", "flops", "self_flops", "note",
    }  # fmt: skip
    other = record.model_copy(update={"plan": Plan(iterations=7), "whole": record.layers[1].self_})
    assert verification.half(other) == half


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_report_of_another_torch_is_compared_with_its_text_alone(folder, tmp_path, monkeypatch):
    source = next(path for path in REPORTS if (ROOT / folder) in path.parents)
    path = tmp_path / "x.json"
    shutil.copy(source, path)
    (made_with,) = {*verification._made_with(reading.read(path))}
    monkeypatch.setattr(verification, "torch_version", lambda: f"{made_with}.1")
    monkeypatch.setattr(verification, "again", None)  # nothing is made anew
    assert list(verification.checked([path])) == [(path, None, made_with)]
    path.with_suffix(".txt").write_text("edited by hand\n", encoding="utf-8")
    (one,) = verification.checked([path])
    assert one.complaint == "x.txt is not what the record renders to"


def test_the_build_of_torch_makes_no_difference_and_a_comparison_was_made_with_none():
    record = reading.read(next(path for path in REPORTS if path.parent.name == "layers"))
    environment = record.environment
    packages = {**environment.software.packages, "torch": "2.4.0+cpu"}
    software = environment.software.model_copy(update={"packages": packages})
    update = {"environment": environment.model_copy(update={"software": software})}
    bundle = Bundle(profile=record.model_copy(update=update))
    assert list(verification._made_with(bundle)) == ["2.4.0"]
    assert list(verification._made_with(one_slower())) == []


def test_a_comparison_has_nothing_to_work_out():
    assert verification.again(one_slower()) == one_slower()


def test_graphs_are_compared_where_a_record_has_them():
    record = layerbench.structure("tests/models.py:small_attention", "1x3x32x32")
    made = verification.again(record)
    assert verification._change(record, made) is None
    before = record.model_copy(update={"graphs": None})
    assert verification.again(before).graphs is None
    first, *others = record.graphs
    wrong = record.model_copy(
        update={"graphs": (first.model_copy(update={"edges": first.edges[:-1]}), *others)}
    )
    # Of a long line the end that differs.
    assert str(list(first.edges[-1].shape)) in verification._change(wrong, made)


def test_a_place_that_is_not_there():
    with pytest.raises(RecordError, match="there is no record"):
        list(verification.checked([ROOT / "nowhere.json"]))


def test_what_an_accelerator_measured_is_left_out_of_a_profile_too(tmp_path):
    """Functions as well: there they are the operators that launched its kernels."""
    model, x = Small().eval(), torch.zeros(1, 3, 16, 16)
    record = layerbench.profile(model, x, warmup=0, iterations=2, ceilings=False)
    spec = record.workload.model_copy(update={"model": "tests/models.py:small", "weights": None})
    rows = [
        row.model_copy(update={"type": "conv", "kernels": 3})
        if row.kind == "function"
        else row.model_copy(update={"kernels": 3})
        for row in record.layers
    ]
    there = launch_bound()
    measured = record.model_copy(
        update={
            "workload": spec,
            "layers": tuple(rows),
            "device_rounds": there.device_rounds,
            "kernels": there.kernels,
        }
    )
    assert verification._change(measured, verification.again(measured)) is None
    other = measured.layers[2].model_copy(update={"calls": 7})
    wrong = measured.model_copy(
        update={"layers": (*measured.layers[:2], other, *measured.layers[3:])}
    )
    assert "says" in verification._change(wrong, verification.again(wrong))
