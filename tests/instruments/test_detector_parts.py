"""A detector's parts on known times, and operators by part: events made by hand, and real ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerbench.environment import devices
from layerbench.environment.devices.clocks import ManualClock
from layerbench.errors import ModelRunError, TrainingStopped
from layerbench.instruments.detections import DetectionCounter
from layerbench.instruments.detector_parts import ITSELF, POSTPROCESSING, parts_of
from layerbench.instruments.step_timer import StepTimer
from layerbench.records.training_step import STEP_PHASES
from layerbench.records.workload import AUTOCAST
from layerbench.training.detection.memory import made_up
from layerbench.training.detection.operators import profile_steps
from layerbench.training.detection.options import Learning
from layerbench.training.detection.step import Stepper, boxes_in, found_in, part_times
from tests.faulty.compiled import Counting
from tests.instruments.test_step_timer import Passing, Takes, step_of
from tests.models import Small
from tests.support.small_detectors import (
    fingerprint,
    masked,
    one_stage,
    two_stage,
    with_keypoints,
)

FORWARD, BACKWARD = STEP_PHASES.index("forward"), STEP_PHASES.index("backward")
SIZE = (40, 56)


class Transform(Takes):
    def postprocess(self, x: torch.Tensor) -> torch.Tensor:
        return Passing.apply(x, self.clock, 4, 8)


class Heads(nn.Module):
    """Has a layer of its own, and a method that does work of another part."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.layer = nn.Linear(4, 4)
        self.inner = Takes(clock, 40, 80)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.postprocess_detections(self.layer(x))
        return self.inner(x)

    def postprocess_detections(self, x: torch.Tensor) -> torch.Tensor:
        return Passing.apply(x, self.clock, 3, 6)


class Detector(nn.Module):
    """Looks like torchvision's two-stage detectors, with a child of another name."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.scale = nn.Parameter(torch.ones(()))
        self.transform = Transform(clock, 5, 1)
        self.backbone = Takes(clock, 100, 200)
        self.neck = Takes(clock, 9, 18)
        self.rpn = Takes(clock, 10, 20)
        self.roi_heads = Heads(clock)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.neck(self.backbone(self.transform(x * self.scale)))
        x = Passing.apply(x, self.clock, 7, 2)
        return self.transform.postprocess(self.roi_heads(self.rpn(x)))


THERE = {
    ITSELF: 7,
    "transform": 5,
    "backbone": 100,
    "neck": 9,
    "RPN": 10,
    "heads": 40,
    POSTPROCESSING: 3 + 4,
}
BACK = {
    ITSELF: 2,
    "transform": 1,
    "backbone": 200,
    "neck": 18,
    "RPN": 20,
    "heads": 80,
    POSTPROCESSING: 6 + 8,
}


def test_known_times_by_part():
    clock = ManualClock()
    model = Detector(clock)
    found = parts_of(model)
    assert found.names == tuple(THERE)
    timer = StepTimer(found.timed, found.owners, len(found.names), clock)
    step = step_of(model, torch.rand(2, 4), clock)
    steps = [timer.instrumented(step) for _ in range(3)]
    for timed in steps:
        phases = dict(zip(STEP_PHASES, timed.phases_ns, strict=True))
        assert (phases["forward"], phases["backward"]) == (sum(THERE.values()), sum(BACK.values()))
        assert dict(zip(found.names, timed.forward.self_ns.tolist(), strict=True)) == THERE
        assert dict(zip(found.names, timed.backward_ns.tolist(), strict=True)) == BACK
        assert timed.outside_ns == 0
    assert not any("forward" in vars(module) for module in model.modules())
    assert "postprocess" not in vars(model.transform)

    added = part_times(found.names, steps)
    assert added.ratio == 1
    assert added.outside_s == 0
    assert {row.name: round(row.forward.mean * 1e9) for row in added.rows} == THERE
    assert {row.name: round(row.backward.mean * 1e9) for row in added.rows} == BACK

    with torch.inference_mode():
        forward = timer.forward_only(lambda: model(torch.rand(2, 4)))
    assert dict(zip(found.names, forward.self_ns.tolist(), strict=True)) == THERE
    assert forward.inclusive_ns[0] == sum(THERE.values())


def test_what_runs_again_is_told_from_the_backward():
    model = two_stage()
    paths = ("backbone", "roi_heads.box_head")
    stepper = Stepper("small", model, Learning(checkpoint_activations=paths), cpu())
    before = [set(vars(module)) for module in model.modules()]
    batch = made_up(model, 2, SIZE)
    timed = stepper.step(lambda: batch).timed
    again = dict(zip(stepper.parts, timed.again_ns.tolist(), strict=True))
    assert {part for part, time in again.items() if time} == {"backbone", "heads"}
    whole = timed.backward_ns.sum() + timed.again_ns.sum() + timed.outside_ns
    assert whole == timed.phases_ns[BACKWARD]
    added = part_times(stepper.parts, [timed])
    assert added.ratio == 1
    assert round(added.recomputation.mean * 1e9) == sum(again.values())
    assert [set(vars(module)) for module in model.modules()] == before


def test_a_part_that_never_ran_has_no_time():
    clock = ManualClock()
    model = Detector(clock)
    model.unused = nn.Linear(4, 4)
    model.neck.forward = lambda x: x
    found = parts_of(model)
    timer = StepTimer(found.timed, found.owners, len(found.names), clock)
    timed = timer.instrumented(step_of(model, torch.rand(2, 4), clock))
    rows = {row.name: row for row in part_times(found.names, [timed]).rows}
    for part in ("unused", "neck"):
        assert (rows[part].forward, rows[part].backward) == (None, None)
    assert rows["backbone"].forward is not None


def test_parts_that_raise_leave_nothing_behind():
    clock = ManualClock()
    model = Detector(clock)
    found = parts_of(model)
    timer = StepTimer(found.timed, found.owners, len(found.names), clock)
    with pytest.raises(RuntimeError, match="shape"):
        timer.instrumented(step_of(model, torch.rand(2, 5), clock))
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("make", [two_stage, one_stage, masked, with_keypoints, Small])
def test_parameters_belong_to_the_part_that_holds_them(make):
    model = make()
    found = parts_of(model)
    assert found.names[0] == ITSELF
    assert found.owners.keys() == {id(parameter) for parameter in model.parameters()}
    names = {"backbone": "backbone", "rpn": "RPN", "roi_heads": "heads", "head": "heads"}
    for path, parameter in model.named_parameters():
        child = path.partition(".")[0]
        assert found.names[found.owners[id(parameter)]] == names.get(child, child)


def cpu() -> devices.Device:
    return devices.get("cpu")


@pytest.mark.parametrize("make", [two_stage, one_stage, masked, with_keypoints])
def test_parts_of_real_detectors_add_up(make):
    model = make()
    stepper = Stepper("small", model, Learning(), cpu())
    batch = made_up(model, 2, SIZE)
    before = fingerprint(model)
    steps = [stepper.step(lambda: batch) for _ in range(2)]
    for stepped in steps:
        timed = stepped.timed
        assert int(timed.forward.self_ns.sum()) == timed.phases_ns[FORWARD]
        assert int(timed.backward_ns.sum()) + timed.outside_ns == timed.phases_ns[BACKWARD]
        back = dict(zip(stepper.parts, timed.backward_ns.tolist(), strict=True))
        assert back["backbone"] > 0
        assert back["heads"] > 0
        assert (stepped.images, stepped.boxes) == (2, batch.boxes)
        if make is not one_stage:
            # Sixteen an image at most, true boxes among them.
            assert batch.boxes < stepped.proposals <= 2 * 16
        else:
            assert stepped.proposals is None
    assert part_times(stepper.parts, [step.timed for step in steps]).ratio == pytest.approx(1)
    assert boxes_in(steps) == batch.boxes / 2
    found = found_in(steps).proposals
    assert found == (None if make is one_stage else sum(s.proposals for s in steps) / 4)
    after = fingerprint(model)
    changed = {name.rpartition(".")[2] for name in after if after[name] != before.get(name)}
    # The weights moved; what else did is torchvision's own memory of its first images.
    assert {"weight", "bias"} <= changed <= {"weight", "bias", "map_levels", "scales"}


def test_a_compiled_part_is_timed_as_one_and_not_compiled_again(tmp_path):
    torch._dynamo.reset()
    model, backend = two_stage(), Counting()
    batch = made_up(model, 2, SIZE)
    model.backbone.compile(backend=backend)
    model.train()(batch.images, batch.targets)
    graphs = backend.count
    if not graphs:
        pytest.skip("this PyTorch compiles no module of its own")
    stepper = Stepper("small", model, Learning(), cpu())
    for _ in range(2):
        stepped = stepper.step(lambda: batch)
    profile_steps(stepper, lambda: batch, 1, cpu(), tmp_path / "trace.json")
    assert backend.count == graphs
    forward = dict(zip(stepper.parts, stepped.timed.forward.self_ns.tolist(), strict=True))
    assert forward["backbone"] > 0


@pytest.mark.parametrize("part", ["", "rpn", "roi_heads"])
def test_nothing_is_put_into_a_part_that_is_compiled(part):
    model = two_stage()
    model.get_submodule(part).compile(backend="eager")
    before = {path: dict(vars(module)) for path, module in model.named_modules()}
    timed = {(what.module, what.attribute) for what in parts_of(model).timed}
    with DetectionCounter(model).attached(training=True):
        during = {path: dict(vars(module)) for path, module in model.named_modules()}
    assert (model.backbone, "forward") in timed if part else not timed
    assert not any(what is model.get_submodule(part) and name == "forward" for what, name in timed)
    assert (model.roi_heads, "postprocess_detections") in timed or part != "rpn"
    assert {path: attributes.keys() for path, attributes in during.items() if path == part} == {
        path: attributes.keys() for path, attributes in before.items() if path == part
    }
    assert not model.rpn._forward_hooks


def test_a_detector_learns():
    """The same batch again and again: its loss falls."""
    model = two_stage()
    batch = made_up(model, 2, SIZE)
    stepper = Stepper("small", model, Learning(lr=0.02), cpu())
    torch.manual_seed(0)
    losses = [sum(stepper.step(lambda: batch).losses.values()) for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("precision", ["amp-bf16", "amp"])
@pytest.mark.parametrize("make", [two_stage, one_stage])
def test_other_precisions_by_autocast(make, precision):
    model = make()
    batch = made_up(model, 2, SIZE)
    stepper = Stepper("small", model, Learning(precision=precision), cpu())
    kinds = []
    layer = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    layer.register_forward_hook(lambda *heard: kinds.append(heard[2].dtype))
    stepped = stepper.step(lambda: batch)
    assert kinds == [getattr(torch, AUTOCAST[precision])]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(0 < loss < 100 for loss in stepped.losses.values())


def test_a_loss_that_is_no_number_stops_and_moves_no_weight():
    model = two_stage()
    stepper = Stepper("small", model, Learning(), cpu())
    batch = made_up(model, 2, SIZE)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.fill_(torch.nan)
    before = fingerprint(model)["backbone.0.weight"]
    with pytest.raises(TrainingStopped, match="loss_classifier of small is nan: "):
        stepper.step(lambda: batch)
    assert fingerprint(model)["backbone.0.weight"] == before


def test_a_detector_with_nothing_to_learn():
    model = two_stage().requires_grad_(False)
    with pytest.raises(ModelRunError, match="small: no parameter requires a gradient"):
        Stepper("small", model, Learning(), cpu())
