"""Operators of a detector's step by part: events made by hand, and real ones."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from layerbench.errors import OutputError
from layerbench.instruments.detector_parts import ITSELF, POSTPROCESSING
from layerbench.records.training_step import STEP_PHASES
from layerbench.training.detection import operators
from layerbench.training.detection.batches import NoMoreBatches, Readable
from layerbench.training.detection.memory import made_up
from layerbench.training.detection.operators import AGAIN, PART, PHASE, profile_steps, summarized
from layerbench.training.detection.options import Learning
from layerbench.training.detection.step import Stepper
from tests.instruments.test_detector_parts import SIZE, cpu
from tests.support.small_detectors import (
    read_trace,
    two_stage,
)


class Events:
    """A profile as torch has it, put together by hand. Times are in microseconds."""

    def __init__(self) -> None:
        self.all: list[SimpleNamespace] = []

    def add(self, name, start, end, parent=None, own=None, number=-1, **more):
        given = {
            "id": len(self.all),
            "name": name,
            "device_type": DeviceType.CPU,
            "time_range": SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start),
            "cpu_parent": parent,
            "sequence_nr": number,
            "thread": 1,
            "self_cpu_time_total": end - start if own is None else own,
            "self_device_time_total": 0,
            "cpu_memory_usage": 0,
            "device_memory_usage": 0,
        }
        event = SimpleNamespace(**{**given, **more})
        self.all.append(event)
        return event


NODE = "autograd::engine::evaluate_function: "


def one_step(at: float = 0, **kernel: float) -> list[SimpleNamespace]:
    """A step of 235 us: a convolution in the backbone, heads with post-processing inside."""
    events = Events()
    bounds = (0, 10, 11, 111, 115, 215, 235)
    phases = {
        name: events.add(PHASE + name, at + start, at + end, own=1)
        for name, start, end in zip(STEP_PHASES, bounds, bounds[1:], strict=False)
    }
    events.add("aten::to", at + 10, at + 11, phases["copy"])
    backbone = events.add(
        PART + "backbone", at + 20, at + 60, phases["forward"], own=0,
        cpu_memory_usage=1000, device_memory_usage=5000,
    )  # fmt: skip
    conv = events.add("aten::conv2d", at + 25, at + 55, backbone, own=10, number=5)
    events.add("aten::convolution", at + 30, at + 50, conv, number=5, self_device_time_total=15)
    heads = events.add(
        PART + "heads", at + 60, at + 100, phases["forward"], own=0,
        cpu_memory_usage=500, device_memory_usage=500,
    )  # fmt: skip
    inside = events.add(
        f"{PART}{POSTPROCESSING}", at + 80, at + 90, heads, own=0,
        cpu_memory_usage=100, device_memory_usage=200,
    )  # fmt: skip
    events.add("torchvision::nms", at + 80, at + 90, inside)
    events.add("aten::mul", at + 101, at + 105, phases["forward"], number=7)
    events.add("aten::stack", at + 111, at + 115, phases["loss"], number=8)
    # The backward runs in a thread that no range is in, the last node first.
    for number, name, begins, takes in ((8, "Stack", 116, 4), (7, "Mul", 120, 10)):
        node = events.add(f"{NODE}{name}Backward0", at + begins, at + begins + takes, own=1,
                          number=number, thread=2)  # fmt: skip
        events.add(f"{name}Backward0", at + begins, at + begins + takes - 1, node, thread=2,
                   number=number)  # fmt: skip
    node = events.add(f"{NODE}ConvolutionBackward0", at + 130, at + 190, own=0, number=5, thread=2)
    events.add("aten::convolution_backward", at + 131, at + 189, node, thread=2, number=5,
               self_device_time_total=30)  # fmt: skip
    # What accumulates a gradient has no number.
    node = events.add(f"{NODE}torch::autograd::AccumulateGrad", at + 190, at + 200, own=0, thread=2)
    events.add("aten::add_", at + 190, at + 200, node, thread=2)
    # The loss's own node, which no part's forward made, after one that a part made.
    node = events.add(f"{NODE}SumBackward0", at + 200, at + 206, own=0, number=9, thread=2)
    events.add("SumBackward0", at + 200, at + 206, node, thread=2, number=9)
    optimizer = events.add("Optimizer.step#SGD.step", at + 215, at + 235, phases["optimizer"],
                           own=2)  # fmt: skip
    events.add("aten::_foreach_add_", at + 216, at + 234, optimizer)
    events.add("ProfilerStep#1", at, at + 235, own=0)
    events.add("aten::between", at + 240, at + 245)
    events.add("a kernel", at + 30, at + 45, device_type=DeviceType.CUDA)
    return events.all


def test_operators_belong_to_the_part_whose_forward_made_the_node():
    found = summarized(one_step(), 1, on_cpu=True)
    assert found.steps == 1
    assert found.step_s == pytest.approx(235e-6)
    rows = {(row.part, row.phase, row.name): round(row.host_s * 1e6) for row in found.operators}
    assert rows == {
        ("", "copy", "aten::to"): 1,
        ("backbone", "forward", "aten::conv2d"): 10,
        ("backbone", "forward", "aten::convolution"): 20,
        (POSTPROCESSING, "forward", "torchvision::nms"): 10,
        (ITSELF, "forward", "aten::mul"): 4,
        ("", "loss", "aten::stack"): 4,
        ("", "backward", f"{NODE}StackBackward0"): 1,
        ("", "backward", "StackBackward0"): 3,
        (ITSELF, "backward", f"{NODE}MulBackward0"): 1,
        (ITSELF, "backward", "MulBackward0"): 9,
        ("backbone", "backward", f"{NODE}ConvolutionBackward0"): 0,
        ("backbone", "backward", "aten::convolution_backward"): 58,
        ("backbone", "backward", f"{NODE}torch::autograd::AccumulateGrad"): 0,
        ("backbone", "backward", "aten::add_"): 10,
        ("", "backward", f"{NODE}SumBackward0"): 0,
        ("", "backward", "SumBackward0"): 6,
        ("", "optimizer", "Optimizer.step#SGD.step"): 2,
        ("", "optimizer", "aten::_foreach_add_"): 18,
    }
    assert all(row.calls == 1 and row.device_s is None for row in found.operators)
    # Of the 224 us that are worked in, what operators took: not what is Python in the optimizer.
    worked = 10 + 20 + 10 + 4 + 4 + 1 + 3 + 1 + 9 + 58 + 10 + 6 + 18
    assert found.busy == pytest.approx(worked / 224)
    assert found.kernels_s is None
    assert found.kept == {"backbone": 1000, "heads": 400, POSTPROCESSING: 100}
    # The largest part and phase first, and its longest operator.
    assert (found.operators[0].part, found.operators[0].name) == (
        "backbone",
        "aten::convolution_backward",
    )


def test_operators_of_several_steps_are_means():
    # Numbers of events come twice: those of operators and those of a driver overlap.
    second = one_step(at=1000)
    extra = Events()
    forward = next(event for event in second if event.name == f"{PHASE}forward")
    extra.add("aten::mul", 1106, 1112, forward, number=9)
    found = summarized([*second, *extra.all, *one_step()], 2, on_cpu=True)
    rows = {(row.part, row.phase, row.name): row for row in found.operators}
    mul = rows[ITSELF, "forward", "aten::mul"]
    assert (mul.calls, round(mul.host_s * 1e6)) == (1.5, 7)
    assert found.step_s == pytest.approx(235e-6)
    assert found.kept["backbone"] == 1000


def test_what_a_forward_runs_again_is_no_backward_and_leaves_nothing_behind():
    events = one_step()
    backward = next(event for event in events if event.name == PHASE + "backward")
    more = Events()
    node = more.add(NODE + "Conv", 120, 160, backward, own=0, number=5)
    again = more.add(AGAIN + "backbone", 121, 150, node, own=0)
    inner = more.add(f"{PART}heads", 130, 145, again, own=0, cpu_memory_usage=400)
    more.add("aten::sin", 122, 130, again)
    more.add("aten::cos", 131, 140, inner)
    more.add("aten::cos_backward", 151, 159, node)
    found = summarized([*events, *more.all], 1, on_cpu=True)
    places = {row.name: (row.part, row.phase) for row in found.operators}
    assert places["aten::sin"] == ("backbone", "recomputation")
    assert places["aten::cos"] == ("heads", "recomputation")
    assert places["aten::cos_backward"] == ("backbone", "backward")
    assert found.kept == summarized(events, 1, on_cpu=True).kept


def test_on_an_accelerator_kernels_count():
    found = summarized(one_step(), 1, on_cpu=False)
    assert found.kernels_s == pytest.approx(45e-6)
    assert found.busy == pytest.approx(45 / 224)
    assert found.kept["backbone"] == 5000
    assert found.kept["heads"] == 300
    rows = {(row.phase, row.name): row.device_s for row in found.operators}
    assert rows["forward", "aten::convolution"] == pytest.approx(15e-6)
    assert rows["backward", "aten::convolution_backward"] == pytest.approx(30e-6)
    assert rows["forward", "aten::mul"] == 0
    assert found.operators[0].name == "aten::convolution_backward"


def test_an_accelerator_whose_kernels_are_not_seen():
    for event in (events := one_step()):
        event.self_device_time_total = 0
    found = summarized(events, 1, on_cpu=False)
    assert (found.kernels_s, found.busy) == (None, None)


def test_no_more_operators_than_a_reader_takes(monkeypatch):
    monkeypatch.setattr(operators, "MOST_OPERATORS", 1)
    found = summarized(one_step(), 1, on_cpu=True)
    places = [(row.part, row.phase) for row in found.operators]
    assert len(places) == len(set(places))
    assert "aten::convolution" in {row.name for row in found.operators}


def test_a_profile_without_events():
    found = summarized([], 1, on_cpu=True)
    assert (found.operators, found.busy, found.kept) == ((), None, {})


# --- real ones ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["trace.json", "trace.json.gz"])
def test_a_real_profile(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(operators, "MOST_OPERATORS", 1000)
    model = two_stage()
    batch = made_up(model, 2, SIZE)
    stepper = Stepper("small", model, Learning(), cpu())
    before = {path: dict(vars(module)) for path, module in model.named_modules()}
    heard: list[int] = []
    trace = tmp_path / "made" / ending
    found = profile_steps(stepper, lambda: batch, 2, cpu(), trace, heard.append)
    assert heard == [2, 2, 2]
    assert found.steps == 2
    assert 0 < found.busy <= 1
    assert found.step_s > 0
    after = {path: dict(vars(module)) for path, module in model.named_modules()}
    assert {p: a.keys() for p, a in after.items()} == {p: b.keys() for p, b in before.items()}

    rows = {(row.part, row.phase, row.name): row for row in found.operators}
    # One convolution in the backbone, three in the proposal network; two images, none twice.
    for phase, name in (("forward", "aten::conv2d"), ("backward", "aten::convolution_backward")):
        assert rows["backbone", phase, name].calls == 1
        assert rows["RPN", phase, name].calls == 3
        assert {part for part, *rest in rows if rest == [phase, name]} == {"backbone", "RPN"}
    assert rows["heads", "forward", "torchvision::roi_align"].calls == 1
    assert rows["heads", "backward", "torchvision::_roi_align_backward"].calls == 1
    assert any(phase == "optimizer" and part == "" for part, phase, _ in rows)
    assert not any(name.startswith((PART, PHASE)) for *_, name in rows)
    assert found.kept["backbone"] > 0
    assert set(found.kept) <= set(stepper.parts)

    content = json.loads(read_trace(trace))
    names = {event.get("name") for event in content["traceEvents"]}
    assert names >= {f"{PHASE}{phase}" for phase in STEP_PHASES}
    assert names >= {f"{PART}{part}" for part in ("transform", "backbone", "RPN", "heads")}
    assert [path.name for path in trace.parent.iterdir()] == [ending]


def test_a_trace_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    model = two_stage()
    batch = made_up(model, 2, SIZE)
    stepper = Stepper("small", model, Learning(), cpu())
    with pytest.raises(OutputError, match=r"cannot write .*trace\.json: "):
        profile_steps(stepper, lambda: batch, 1, cpu(), tmp_path / "file" / "trace.json")


def test_no_batch_for_a_profiled_step(tmp_path):
    stepper = Stepper("small", two_stage(), Learning(), cpu())
    reading = Readable(iter(()), "fatal")
    with pytest.raises(NoMoreBatches):
        profile_steps(stepper, reading.next, 1, cpu(), tmp_path / "trace.json")
    with pytest.raises(NoMoreBatches):
        stepper.step(reading.next)
    assert list(tmp_path.iterdir()) == []
