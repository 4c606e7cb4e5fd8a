"""What a model's own state, mode and chance mean for what is told of it."""

from __future__ import annotations

import io
import random
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.api import verification
from layerbench.instruments import chance
from layerbench.instruments.python_state import PythonState
from layerbench.instruments.random_state import SameDraws
from layerbench.instruments.tensor_state import _set_version
from layerbench.store import writing
from tests.models import Calls

FEW = {"warmup": 0, "iterations": 2}


def keeps_table(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if not hasattr(model, "table"):
        model.table = torch.ones(8)
    return model.fc(x) * model.table


def test_what_forward_kept_can_be_saved_for_backward() -> None:
    model, x = Calls(keeps_table, fc=nn.Linear(8, 8)), torch.rand(2, 8)
    model(x)
    layerbench.profile(model, x, function_iterations=1, **FEW)
    model(x).sum().backward()
    assert model.fc.weight.grad is not None


class Looks(nn.Module):
    """Keeps a table and reads a value: the run on shapes alone leaves off after the table."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.ones(8, device=x.device)
        out = self.fc(x * self.table)
        return out if out.sum().item() > 0 else -out


def test_a_second_try_finds_the_model_as_the_first_one_did() -> None:
    model, x = Looks(), torch.rand(2, 8)
    record = layerbench.structure(model, x)
    assert (record.how, record.flops) == ("cpu", 2 * 2 * 8 * 8)
    assert layerbench.estimate_memory(model, x).how == "replayed"
    assert model.table is None


def counts(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    model.steps += 1
    return model.fc(x)


def test_a_counter_in_eval_mode_and_the_inputs_gradient() -> None:
    model, x = Calls(counts, fc=nn.Linear(4, 4)).eval(), torch.rand(2, 4, requires_grad=True)
    model.register_buffer("steps", torch.zeros((), dtype=torch.int64))
    layerbench.profile(model, x, function_iterations=0, **FEW)
    layerbench.memory(model, x)
    assert int(model.steps) == 0
    layerbench.memory(model, x, training=True)
    layerbench.profile_training(model, x, **FEW)
    assert x.grad is None


def grows(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    model.largest.resize_(4).copy_(x.amax(0))
    return model.fc(x)


def test_a_buffer_that_was_empty_is_empty_again() -> None:
    model, x = Calls(grows, fc=nn.Linear(4, 4)), torch.rand(2, 4)
    model.register_buffer("largest", torch.empty(0))
    layerbench.memory(model, x)
    assert model.largest.shape == (0,)
    assert model.largest.untyped_storage().nbytes() == 0


def forces(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(torch.tanh(model.net(x)).sum(), x)[0]


def test_gradients_taken_in_the_forward() -> None:
    model, x = Calls(forces, net=nn.Linear(3, 1)), torch.rand(5, 3)
    record = layerbench.profile(model, x, function_iterations=1, **FEW)
    assert record.whole.median > 0
    compared = layerbench.compare_live(model, model, x, warmup=0, iterations=10)
    assert compared.whole is not None


def pops(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    return model.fc(batch.pop("x"))


def overwrites(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if float(x.max()) > 1:  # An `assert` of pytest's would reach all that pytest knows.
        raise AssertionError
    return model.fc(x.mul_(100))


@pytest.mark.parametrize(
    ("run", "given"), [(pops, {"x": torch.rand(2, 4)}), (overwrites, torch.rand(2, 4))]
)
def test_every_forward_has_a_fresh_batch(run: Any, given: Any) -> None:
    model = Calls(run, fc=nn.Linear(4, 4))
    layerbench.profile(model, (given,), function_iterations=1, **FEW)
    layerbench.profile_training(model, (given,), **FEW)
    report = layerbench.memory(model, (given,), training=True)
    assert report.total.elements == 20 + 8


def test_an_empty_batch() -> None:
    model, x = nn.Linear(4, 3), torch.rand(0, 4)
    assert layerbench.structure(model, x).flops == 0
    assert layerbench.memory(model, x).inputs.bytes == 0
    record = layerbench.profile(model, x, function_iterations=0, **FEW)
    assert (record.workload.batch, record.workload.shape) == (0, (0, 4))


class Frozen(nn.Sequential):
    """Trains, but for its normalization."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self[1].eval()


def test_frozen_parts_stay_frozen_in_training_and_are_named() -> None:
    model, x = Frozen(), torch.rand(1, 4)  # in train mode this normalization refuses one image
    note = "in eval mode, as the model has them: 1"
    assert note in layerbench.profile_training(model, x, **FEW).notes
    assert note in layerbench.memory(model, x, training=True).notes
    assert note in layerbench.structure(model, x, mode="train").notes
    assert not layerbench.structure(model, x).notes


def random_depth(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    model.forwards += 1
    random.random()  # what is drawn decides; here it is sure to decide otherwise each time
    for _ in range(model.forwards % 2 + 1):
        x = model.fc(x)
    return x


def test_work_that_hangs_on_chance_is_said() -> None:
    model, x = Calls(random_depth, fc=nn.Linear(4, 4)), torch.rand(2, 4)
    model.forwards = 0
    said = "calls varied between forwards, as the work depends on data, state or chance: fc"
    assert said in layerbench.structure(model, x).notes
    assert said in layerbench.profile_training(model, x, warmup=0, iterations=3).notes


def test_a_caller_in_inference_mode() -> None:
    model = nn.Linear(4, 4)
    with torch.inference_mode():
        x = torch.rand(2, 4)
        report = layerbench.memory(model, x, training=True)
        record = layerbench.profile_training(model, x, **FEW)
    assert report.training
    assert record.step.median > 0


def test_what_cannot_be_put_back_is_said_before() -> None:
    model = Calls(lambda m, x: m.fc(x) + next(m.steps), fc=nn.Linear(4, 4))
    model.steps = (float(step) for step in range(1000))
    with pytest.warns(UserWarning, match="cannot be put back after a run: generator 'steps'"):
        layerbench.memory(model, torch.rand(2, 4))


class Asserts(nn.Module):
    """Its code names pytest, which rewrites assertions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 2
        return x


def test_an_assertion_in_a_test_does_not_lead_into_pytest() -> None:
    assert "@pytest_ar" in Asserts.forward.__code__.co_names
    seen = PythonState([Asserts()])._seen.values()
    assert Asserts in seen
    modules = {getattr(value, "__module__", None) for value in seen}
    assert not [name for name in modules if str(name).startswith("_pytest")]


class Owner:
    """Something that a layer may refer to without keeping it."""


def test_a_reference_to_what_is_gone_does_no_harm() -> None:
    model, x, owner = nn.Sequential(nn.Linear(4, 4)), torch.rand(2, 4), Owner()
    model.owner, model[0].owner = weakref.proxy(owner), weakref.proxy(owner)
    for record in (layerbench.memory(model, x), layerbench.structure(model, x)):
        assert record.rows[1].path == "0"
    del owner
    for record in (layerbench.memory(model, x), layerbench.structure(model, x)):
        assert record.rows[1].path == "0"
    assert layerbench.profile(model, x, **FEW).layers
    assert layerbench.estimate_memory(model, x).peak_bytes > 0


DRAWN_DEPTH = """
import random, numpy as np, torch
from torch import nn
own = np.random.default_rng(1)
class Net(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.layers, self.draw = nn.ModuleList(nn.Linear(8, 8) for _ in range(8)), draw
        self.last = nn.Linear(8, 8)
    def forward(self, x):
        for layer in self.layers:
            x = layer(torch.cat([x, x])) if self.draw(x) < 0.3 else x
        return self.last(x)
def of_the_process():
    return Net(lambda x: random.random() * np.random.rand() * 3), torch.rand(2, 8)
def after_noise(): return Net(lambda x: (torch.rand_like(x), torch.rand(1).item())[1]), torch.rand(2, 8)
def files_own(): return Net(lambda x: own.random()), torch.rand(2, 8)
"""  # noqa: E501


def calls_of(record: Any) -> dict[str, int]:
    return {row.path: row.calls for row in record.rows}


@pytest.mark.parametrize("source", ["of_the_process", "after_noise", "files_own"])
def test_runs_by_name_draw_alike(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first forward of a process can take seconds of loading.
    monkeypatch.setattr(chance, "LONGEST_S", 600.0)
    (tmp_path / "net.py").write_text(DRAWN_DEPTH)
    name = f"{tmp_path / 'net.py'}:{source}"
    before = random.getstate()
    measured, structure = layerbench.memory(name), layerbench.structure(name)
    records = (
        measured,
        structure,
        layerbench.profile(name, function_iterations=2, **FEW),
        layerbench.profile_training(name, **FEW),
    )
    assert random.getstate() == before
    random.random(), np.random.rand(), torch.rand(1)
    for number, record in enumerate(records):
        text = reporters.render("json", record)
        writing.write_text(tmp_path / "records" / f"{number}.json", text)
    said = [one.complaint for one in verification.checked([tmp_path / "records"])]
    assert said == [None] * len(records)
    again, predicted = layerbench.memory(name), layerbench.estimate_memory(name)
    for record in (structure, again, predicted):
        assert calls_of(record) == calls_of(measured)
    assert again.peak == measured.peak
    assert any("calls varied" in note for note in measured.notes)


def noted(seen: io.StringIO) -> Any:
    """Writes into a file: a list that the forward closes over would come back as it was."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        print(random.random() + float(torch.rand(1)), file=seen)
        return model.fc(x)

    return forward


def test_both_models_of_a_comparison_draw_alike() -> None:
    files = io.StringIO(), io.StringIO()
    models = [Calls(noted(file), fc=nn.Linear(4, 4)) for file in files]
    layerbench.compare_live(*models, torch.rand(2, 4), warmup=0, iterations=30)
    drawn = [file.getvalue().split() for file in files]
    assert sorted(drawn[0]) == sorted(drawn[1])
    assert max(Counter(drawn[0]).values()) < len(drawn[0]) / 2  # but not in all rounds alike


def alternates(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As a clock or the system's random bytes might have it; nothing is drawn."""
    model.forwards += 1
    return model.fc(x) if model.forwards % 2 else model.fc(model.fc(x[1:]))


def test_a_forward_that_differs_from_the_next_is_named() -> None:
    model = Calls(alternates, fc=nn.Linear(4, 4))
    model.forwards = 0
    said = {
        "calls varied between forwards, as the work depends on data, state or chance: fc",
        "shapes varied between forwards: the model, fc",
    }
    x = torch.rand(2, 4)
    assert said <= {*layerbench.structure(model, x).notes}
    assert said <= {*layerbench.memory(model, x).notes}
    assert said <= {*layerbench.memory(model, x, training=True).notes}
    assert model.forwards == 0


def test_a_step_that_fails_by_chance_is_explained_by_what_it_drew() -> None:
    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        # Seldom: drawn anew, it would not fail again.
        if random.random() < 0.2:
            raise ValueError("unlucky")
        return model.fc(x)

    model = Calls(forward, fc=nn.Linear(4, 4))
    for seed in range(6):
        random.seed(seed)
        with pytest.raises(
            layerbench.errors.ModelRunError, match=r"the forward failed in .*unlucky"
        ):
            layerbench.profile_training(model, torch.rand(2, 4), warmup=0, iterations=30)


def test_a_version_is_put_back_as_an_older_torch_has_it(monkeypatch):
    usual = torch._C._autograd._unsafe_set_version_counter

    def one_by_one(tensor, version):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError("incompatible function arguments")
        try:
            usual((tensor,), (version,))
        except TypeError:  # this is one
            usual(tensor, version)

    tensor = torch.zeros(2).add_(1)
    monkeypatch.setattr(torch._C._autograd, "_unsafe_set_version_counter", one_by_one)
    _set_version(tensor, 0)
    assert tensor._version == 0


def test_forwards_of_a_round_draw_alike_and_states_are_left_alone_where_none_are_drawn() -> None:
    draws, asked = SameDraws(), random.getstate

    def round_of(draw: Callable[[], object]) -> list[object]:
        draws.begin()
        drawn = []
        for _ in range(2):
            draws.put_back()
            drawn.append(draw())
        draws.end()
        return drawn

    one, other = round_of(random.random), round_of(random.random)
    assert one[0] == one[1] != other[0] == other[1]
    # It draws no more: seen at the next look, and nothing is put back from then on.
    for _ in range(2 * SameDraws.LOOK_EVERY):
        round_of(int)
    state = asked()
    draws.begin()
    random.random()
    draws.put_back()
    assert asked() != state
    # It draws again: from the next look on alike.
    rounds = [round_of(random.random) for _ in range(2 * SameDraws.LOOK_EVERY)]
    assert rounds[-1][0] == rounds[-1][1]
    assert rounds[0][0] != rounds[0][1]
