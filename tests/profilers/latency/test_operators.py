"""Operators as on a GPU: work known by hand, for any batch from one trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerbench
from layerbench.api.inputs import what_runs
from layerbench.errors import ModelRunError, NotTraceable
from layerbench.profilers.latency import operators
from layerbench.profilers.latency.operators import Amount, Operator, OperatorTrace, trace_operators
from layerbench.profilers.memory import run_for_gpu
from layerbench.profilers.memory.batch_line import PRIME_BATCH
from layerbench.records.memory import Optimizer
from layerbench.records.workload import Precision
from layerbench.zoo import Built


def _traced(
    model: str | nn.Module,
    input: str | torch.Tensor | None,
    optimizer: Optimizer | None = None,
    precision: Precision | None = None,
) -> OperatorTrace:
    workload, subject = what_runs(
        model,
        input,
        batch=None,
        channels_last=False,
        seed=0,
        precision=precision,
        mode="eval" if optimizer is None else "train",
    )
    return trace_operators(workload, optimizer=optimizer, subject=subject)


@pytest.fixture(scope="module")
def resnet() -> OperatorTrace:
    """Of ResNet-18, whose published work is 1.814 G multiply-adds an image."""
    return _traced("resnet18", "8x3x224x224", precision="amp")


def _flops(trace: OperatorTrace, batch: int) -> int:
    return sum(operator.flops.at(batch) for operator in trace.operators)


@pytest.mark.slow
def test_one_trace_has_the_published_work_of_any_batch(resnet: OperatorTrace) -> None:
    assert resnet.batch is None
    for batch in (1, 7, 256):
        assert _flops(resnet, batch) == batch * 2 * 1_814_073_344


def test_a_convolution_is_a_product_of_as_many_rows_as_it_has_places(
    resnet: OperatorTrace,
) -> None:
    first = next(one for one in resnet.operators if one.kind == "convolution")
    assert (first.owner, first.phase, first.format) == ("conv1", "forward", "float16")
    assert (first.m.at(2), first.n.at(2), first.k.at(2)) == (2 * 112 * 112, 64, 3 * 7 * 7)
    assert (first.window, first.stride, first.groups) == (49, 2, Amount(1))
    # Image and weight in float16, and the output.
    assert first.read.at(2) == 2 * (2 * 3 * 224 * 224 + 64 * 3 * 49)
    assert first.written.at(2) == 2 * 2 * 64 * 112 * 112


def test_autocast_copies_what_it_casts(resnet: OperatorTrace) -> None:
    casts = [one for one in resnet.operators if one.changed]
    # The images, the weights of 20 convolutions, and the last layer's weight and bias.
    assert len(casts) == 1 + 20 + 2
    assert casts[0].written.at(4) * 2 == casts[0].read.at(4)


def test_views_and_empty_tensors_run_nothing() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            empty = torch.empty_like(x)
            return x.reshape(-1).view(x.shape).transpose(0, 1)[:1].detach() if empty.numel() else x

    assert _traced(Views(), torch.rand(2, 3)).operators == ()


def _by_phase(trace: OperatorTrace) -> dict[str, list[Operator]]:
    phases: dict[str, list[Operator]] = {}
    for operator in trace.operators:
        phases.setdefault(operator.phase, []).append(operator)
    return phases


def test_a_step_has_the_backward_and_what_the_optimizer_moves() -> None:
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    trace = _traced(model, torch.rand(32, 8), optimizer="momentum")
    phases = _by_phase(trace)
    products = {
        phase: sum(one.flops.at(32) for one in operators) for phase, operators in phases.items()
    }
    forward = 2 * 32 * (8 * 16 + 16 * 4)
    assert products["forward"] == forward
    # Nobody asks for the gradient of the images.
    assert products["backward"] == 2 * forward - 2 * 32 * 8 * 16
    sizes = {one.owner: one.read.at(32) for one in phases["optimizer"]}
    assert sizes == {"0": 5 * 4 * 8 * 16, "2": 5 * 4 * 16 * 4}
    assert all(one.backward for one in phases["backward"])


def test_a_module_of_the_users_has_the_operators_of_its_own_batch() -> None:
    trace = _traced(nn.Conv2d(3, 4, 3, groups=1), torch.rand(2, 3, 8, 8))
    (convolution,) = [one for one in trace.operators if one.kind == "convolution"]
    assert trace.batch == 2
    assert convolution.m == Amount(2 * 6 * 6)


def test_kinds_tell_convolutions_and_interpolations_apart() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
            self.grouped = nn.Conv2d(8, 8, 1, groups=2)
            self.larger = nn.Upsample(scale_factor=2, mode="bilinear")
            self.nearest = nn.Upsample(scale_factor=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.nearest(self.larger(self.grouped(self.depthwise(x))))
            return result

    trace = _traced(Several(), torch.rand(2, 4, 6, 6))
    kinds = {one.owner: one for one in trace.operators}
    assert {owner: one.kind for owner, one in kinds.items()} == {
        "depthwise": "depthwise convolution",
        "grouped": "grouped convolution",
        "larger": "interpolation",
        "nearest": "resampling",
    }
    assert (kinds["depthwise"].n, kinds["depthwise"].groups) == (Amount(2), Amount(4))
    assert (kinds["larger"].m, kinds["larger"].n) == (Amount(2 * 8), Amount(8 * 8))


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_gradients_of_a_grouped_convolution_are_as_much_work_as_the_convolution(
    groups: int,
) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 3, groups=groups))
    trace = _traced(model, torch.rand(2, 8, 6, 6), optimizer="sgd")
    work = {one.phase: one.flops for one in trace.operators if one.owner == "1" and one.window == 9}
    forward = 2 * (2 * 16 * 4 * 4) * (8 // groups * 9)
    assert work == {"forward": Amount(forward), "backward": Amount(2 * forward)}


class _Gate(nn.Module):
    """Its way depends on what comes in."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "item":
            return x * x.sum().item()
        if self.how == "flow":
            return x if x.sum() > 0 else -x
        if self.how == "shape":
            return x[x > 0]
        if self.how == "numpy":
            return x * float(x.detach().numpy()[0, 0])
        return torch.relu(x)


@pytest.fixture
def never_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a real run")

    monkeypatch.setattr(run_for_gpu, "_real_run", refuse)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("how", ["item", "flow", "shape", "numpy"])
def test_a_model_that_reads_values_is_refused(
    how: str, mode: str, never_for_real: None, recwarn: pytest.WarningsRecorder
) -> None:
    """The line says where, and nothing of the run stays in the model."""
    model = nn.Sequential(nn.Linear(4, 4), _Gate(how))
    optimizer: Optimizer | None = "sgd" if mode == "train" else None
    with pytest.raises(NotTraceable, match="reads values of its tensors in _Gate at 1") as refused:
        _traced(model, torch.rand(2, 4), optimizer)
    assert "test_operators.py:" in str(refused.value)
    assert "layerbench timer" in str(refused.value)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (torch.jit.trace(nn.Linear(4, 4), torch.rand(2, 4)), "a part of it is scripted or traced"),
        ("tests/faulty/formats.py:kept", "reads values of its tensors in _Kept"),
        ("tests/faulty/formats.py:dynamic", "runs quantized.linear_dynamic.default, which needs"),
    ],
    ids=["scripted", "values", "operator"],
)
def test_what_needs_a_real_run_is_refused(
    model: str | nn.Module, said: str, never_for_real: None
) -> None:
    with pytest.raises(NotTraceable, match=said):
        layerbench.estimate_latency(
            model, torch.rand(2, 4) if isinstance(model, nn.Module) else None, device="t4"
        )


def test_of_a_list_of_images_the_batch_is_no_dimension() -> None:
    """A trace of so many images would have the operators of each."""
    images = [torch.empty(3, 4, 4, device="meta")] * PRIME_BATCH
    batch = torch.empty(PRIME_BATCH, 3, 4, 4, device="meta")
    assert operators._batch_is_seen(Built(nn.ReLU(), ([batch],), {}))
    assert not operators._batch_is_seen(Built(nn.ReLU(), (images,), {}))


@pytest.mark.parametrize("name", ["rates", "positions"])
def test_a_constructor_that_reads_values_says_nothing_of_the_forward(
    name: str, never_for_real: None
) -> None:
    assert len(_traced(f"tests/faulty/formats.py:{name}", None).operators) == 2


def test_a_model_that_does_not_take_its_input_is_not_run_for_real(
    never_for_real: None, capfd: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4))
    with pytest.raises(ModelRunError, match=r"the forward failed in Linear at 1, given \[2, 4\]"):
        _traced(model, torch.rand(2, 4))
    assert capfd.readouterr().err == ""
