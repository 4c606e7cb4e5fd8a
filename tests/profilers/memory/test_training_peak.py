"""The peak of a training step as the profiler's own count of allocations has it.

Without a dispatch mode autograd adds gradients up in place, and formulas scatter into zeros in
place; measured and predicted figures must be those of a run that nobody looks at.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile, record_function

import layerbench
from layerbench import zoo
from layerbench.environment.precision import autocast
from layerbench.instruments.fake_tensors import without_memory
from layerbench.instruments.memory_attribution import peak_bytes
from layerbench.profilers.loss import loss_of
from layerbench.profilers.memory.traced_run import trace_run
from layerbench.profilers.optimizers import make_optimizer
from layerbench.records.workload import FORMATS, Precision
from layerbench.zoo import Built
from tests.models import Calls

Model = tuple[nn.Module, torch.Tensor]
ROWS, WIDTH = 512, 32
FLOAT = 4


class Heads(nn.Module):
    """Many heads on one body: as many gradients are added up in one place."""

    def __init__(self, width: int = 128, heads: int = 6) -> None:
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        return torch.cat([head(h) for head in self.heads], 1).square().mean()


class Hooked(nn.Module):
    """A hook adds to a gradient, which is out of place in every run, and another one is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        h.register_hook(lambda gradient: gradient + torch.ones_like(gradient))
        h.retain_grad()
        return self.c(self.b(h) + h.sigmoid() + h.tanh())


class _Square(torch.autograd.Function):
    """Adds two tensors of its own up in its backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        half = gradient * x
        return half + gradient * x


def _on_hidden(run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Model]:
    """A model that does something to a layer's output before a last layer."""

    def build() -> Model:
        model = Calls(
            lambda m, x: m.last(run(m.first(x))),
            first=nn.Linear(WIDTH, WIDTH),
            last=nn.Linear(WIDTH, 4),
        )
        return model, torch.rand(ROWS, WIDTH)

    return build


def _forked() -> Model:
    """The state of the random numbers is more than all else that it holds."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            return m.a(x)

    return Calls(run, a=nn.Linear(8, 8)), torch.rand(2, 8)


def _heads() -> Model:
    return Heads(), torch.rand(4096, 128)


def _hooked() -> Model:
    return Hooked(), torch.rand(ROWS, WIDTH)


def _recurrent() -> Model:
    """One weight over and over; the first two gradients are views and are added out of place."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        states = [x.new_zeros(8, 128)]
        for step in range(6):
            states.append(m.cell(x[:, step], states[-1]))
        return m.last(torch.stack(states, 1).mean(1) + states[3])

    model = Calls(run, cell=nn.RNNCell(128, 128), last=nn.Linear(128, 4))
    return model, torch.rand(8, 6, 128)


def _normalized() -> Model:
    model = nn.Sequential(nn.Linear(WIDTH, 64), nn.BatchNorm1d(64), nn.Linear(64, 4))
    return model, torch.rand(ROWS, WIDTH)


def _squeezenet() -> Model:
    built = zoo.build(zoo.resolve("squeezenet1_1", "2x3x32x32", mode="train"))
    return built.module, built.args[0]


COLUMNS = torch.zeros(ROWS, WIDTH, dtype=torch.int64)
MODELS: dict[str, Callable[[], Model]] = {
    "heads": _heads,
    "hooked": _hooked,
    "recurrent": _recurrent,
    "residual": _on_hidden(lambda h: functional.relu(h) + h + h.tanh()),
    "itself twice": _on_hidden(lambda h: h * h + (h + h)),
    "custom": _on_hidden(lambda h: _Square.apply(h) + h),
    "slices": _on_hidden(lambda h: torch.cat([h[:, :16] * h[:, 16:], h[:, 8:24]], 1)),
    "transposed": _on_hidden(lambda h: h.t()[:, :WIDTH] + h.t()[:, :WIDTH].tanh()),
    "rows": _on_hidden(lambda h: h[torch.arange(0, ROWS, 2)]),
    "gather": _on_hidden(lambda h: h.gather(1, COLUMNS)),
    "largest": _on_hidden(lambda h: h.max(1, keepdim=True)[0].expand(-1, WIDTH) * h),
    "random state": _forked,
    "index_select": _on_hidden(lambda h: h.index_select(0, torch.arange(100))),
    "squeezenet": _squeezenet,
}


def seen_by_profiler(build: Callable[[], Model], run: Callable[[Any], None] | None = None) -> int:
    """The most bytes alive in the second training step, of the allocator's own events.

    Another ``run`` puts the part that counts under the name ``step``.
    """
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            (run or two_steps)(build)
    finally:
        gc.enable()
    events = list(_flat(seen.profiler.kineto_results.experimental_event_tree()))
    begin = max(event.start_time_ns for event in events if event.name == "step")
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        if event.name == "[memory]":
            alive += event.extra_fields.alloc_size
            most = max(most, alive) if event.start_time_ns >= begin else most
    return most


def two_steps(build: Callable[[], Model]) -> None:
    torch.manual_seed(0)
    model, x = build()
    optimizer = make_optimizer("sgd", list(model.train().parameters()))
    output = loss = None
    for _ in range(2):
        with record_function("step"):
            pass
        optimizer.zero_grad(set_to_none=True)
        output = model(x)
        loss = loss_of(output)
        loss.backward()
        optimizer.step()


def two_steps_within(precision: Precision) -> Callable[[Callable[[], Model]], None]:
    """As people write it: forward and loss within autocast, and float16's loss is scaled."""

    def run(build: Callable[[], Model]) -> None:
        torch.manual_seed(0)
        model, x = build()
        optimizer = make_optimizer("sgd", list(model.train().parameters()))
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=precision == "amp")
        output = loss = None
        for _ in range(2):
            with record_function("step"):
                pass
            optimizer.zero_grad(set_to_none=True)
            with autocast(precision, "cpu"):
                output = model(x)
            with autocast(precision, "cpu"):
                loss = loss_of(output)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return run


def _flat(events: list[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _flat(event.children)


def traced(build: Callable[[], Model], fake: bool, precision: Precision | None = None) -> int:
    torch.manual_seed(0)
    model, x = build()
    built = Built(model.train(), (x,))
    with without_memory(built, "cpu") if fake else nullcontext(built) as run:
        trace = trace_run(run, optimizer="sgd", device="cpu", precision=precision).trace
    return peak_bytes(trace, [allocation.bytes for allocation in trace.allocations])


@pytest.mark.parametrize("name", [name for name in MODELS if name != "squeezenet"])
def test_the_peak_is_that_of_a_run_that_nobody_looks_at(name):
    true = seen_by_profiler(MODELS[name])
    assert traced(MODELS[name], fake=False) == true
    assert traced(MODELS[name], fake=True) == true


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *product(["recurrent", "residual", "custom", "index_select"], ["amp", "amp-bf16"]),
        ("squeezenet", "amp-bf16"),
    ],
)
def test_the_peak_within_autocast(name, precision):
    """The cached casts of the weights are there until the forward ends, or the backward is done.

    Without oneDNN, whose kernels for bfloat16 take memory of their own within an operator.
    """
    with torch.backends.mkldnn.flags(enabled=False):
        true = seen_by_profiler(MODELS[name], two_steps_within(precision))
        assert traced(MODELS[name], fake=False, precision=precision) == true
        assert traced(MODELS[name], fake=True, precision=precision) == true


def test_statistics_of_a_normalization_with_float32_weights():
    """They are float32 though the input is not, which PyTorch's own fake tensors do not know."""
    found = {traced(_normalized, fake, "amp-bf16") for fake in (False, True)}
    assert len(found) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_peak_of_a_converted_model(precision):
    """By hand, in numbers of two bytes: weights, gradients and both of AdamW's moments; its counts
    of steps are float32. The loss is float32, in which the mean square is taken."""
    model, x = nn.Linear(64, 128), torch.rand(8, 64)
    dtype = getattr(torch, FORMATS[precision])
    count, half = 64 * 128 + 128, FLOAT // 2
    report = layerbench.memory(
        Calls(lambda m, x: m.a(x), a=model).to(dtype), x.to(dtype), training=True, optimizer="adamw"
    )
    by_category = report.peak.by_category
    assert by_category["parameters"] == half * count
    assert by_category["gradients"] == half * count
    assert by_category["optimizer state"] == 2 * half * count + 2 * FLOAT


def test_cast_weights_are_kept_until_the_forward_ends():
    """One layer twice: its weights are cast once, and so they are there at the second call."""
    model, x = Calls(lambda m, x: m.a(m.a(x)), a=nn.Linear(64, 64)), torch.rand(2, 64)
    held = FLOAT * (64 * 64 + 64 + 2 * 64)  # weights and biases, and the input
    cast = FLOAT // 2 * (64 * 64 + 64)
    half = FLOAT // 2 * 2 * 64  # the input cast, and each output
    for fake in (False, True):
        subject = Built(model, (x,))
        with without_memory(subject, "cpu") if fake else nullcontext(subject) as run:
            trace = trace_run(run, device="cpu", precision="amp-bf16").trace
        assert peak_bytes(trace, [one.bytes for one in trace.allocations]) == held + cast + 2 * half
    report = layerbench.memory(model, x, precision="amp-bf16")
    assert report.peak.bytes == held + cast + 2 * half
    plain = layerbench.memory(model, x)
    assert plain.peak.bytes == held + 2 * FLOAT * 2 * 64
    # What oneDNN takes within an operator is no tensor: said where it computes in bfloat16.
    onednn = torch.backends.mkldnn.is_available()
    assert any("oneDNN" in note for note in report.notes) == onednn
    assert not any("oneDNN" in note for note in plain.notes)


def test_six_heads_add_no_gradient_of_their_body():
    model, x = _heads()
    report = layerbench.memory(model, x, training=True)
    assert report.peak.bytes == 8_559_160


def test_tangents_that_are_not_there_take_no_memory():
    """Forward mode stands zeros without memory for the tangents of weight and bias."""

    def tangent(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(lambda y: m.a(y).tanh(), (x,), (torch.ones_like(x),))[1]

    model, x = Calls(tangent, a=nn.Linear(64, 128)), torch.rand(8, 64)
    # With the model and the input: ones like it, and five results as large as the output.
    held = 64 * 128 + 128 + 2 * 8 * 64
    assert layerbench.memory(model, x).peak.bytes == FLOAT * (held + 5 * 8 * 128)


def test_weights_that_a_forward_casts_give_their_memory_back():
    """What keeps the model as it was holds none of the memory that the forward lets go."""

    def cast(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a.double()(x.double())
        m.a.float()
        return y

    model, x = Calls(cast, a=nn.Linear(4, 5)), torch.rand(2, 4)
    model.a.rows = nn.Parameter(model.a.weight[1:])
    before = model.a.weight.tolist()
    # Weights, biases, rows and the output in double precision; of the first ones only those
    # weights that are cast back while all these are there.
    double = 2 * FLOAT * (5 * 4 + 5 + 4 * 4 + 2 * 5)
    assert layerbench.memory(model, x).peak.bytes == FLOAT * 2 * 4 + double + FLOAT * 5 * 4
    assert model.a.weight.tolist() == before
    assert model.a.rows.data_ptr() == model.a.weight[1].data_ptr()


def test_the_state_of_random_numbers_that_a_forward_keeps_takes_memory():
    """No operator makes it; the regions of a checkpoint keep it in the same way."""
    (model, x), read = _forked(), torch.get_rng_state
    held = FLOAT * (8 * 8 + 8 + 2 * 8 + 2 * 8) + read().nbytes
    assert layerbench.memory(model, x).peak.bytes == held
    assert torch.get_rng_state is read
