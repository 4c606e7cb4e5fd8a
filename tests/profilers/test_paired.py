"""Two workloads measured in turn: who runs when, on how many threads, and who is who."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from layerbench import zoo
from layerbench.environment import devices
from layerbench.errors import ModelRunError
from layerbench.instruments.attach import mode_set
from layerbench.profilers.paired import Task, measure_pair
from layerbench.records.samples import FUNCTIONS, INCLUSIVE, UNTOUCHED
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built

ROUNDS = 6


class Noting(nn.Module):
    """Has its name, the threads and whether gradients are on noted at each forward.

    In a file: a list would come back as it was.
    """

    def __init__(self, name: str, notes: io.StringIO) -> None:
        super().__init__()
        self.name, self.notes = name, notes
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(self.name, torch.get_num_threads(), torch.is_grad_enabled(), file=self.notes)
        return self.inner(x) + x


def task(threads: int | None = None, **changes: Any) -> Task:
    workload = Workload(model="Noting", input="own", shape=(1, 3, 8, 8), batch=1)
    plan = Plan(warmup=2, iterations=ROUNDS, function_iterations=3, threads=threads)
    return Task(workload.model_copy(update=changes), plan, devices.get("cpu"))


def read(notes: io.StringIO) -> list[tuple[str, int, bool]]:
    lines = [line.split() for line in notes.getvalue().splitlines()]
    return [(name, int(threads), grad == "True") for name, threads, grad in lines]


def pair(notes: io.StringIO) -> tuple[Built, Built]:
    a, b = (Built(Noting(name, notes).eval(), (torch.rand(1, 3, 8, 8),), {}) for name in "ab")
    return a, b


def test_each_side_runs_as_often_and_in_an_order_that_is_drawn() -> None:
    notes = io.StringIO()
    first, second = measure_pair((task(), task()), subjects=pair(notes))
    for run in (first, second):
        assert run.arrays[UNTOUCHED].shape == (ROUNDS,)
        assert run.arrays[INCLUSIVE].shape == (ROUNDS, 2)
        assert run.arrays[FUNCTIONS].shape == (3, 1)
    names = [name for name, _, _ in read(notes)]
    assert names.count("a") == names.count("b")
    measured = names[2:]  # after one look at each
    rounds = [tuple(measured[i : i + 2]) for i in range(0, 4 * (2 + ROUNDS), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}
    again = io.StringIO()
    measure_pair((task(), task()), subjects=pair(again))
    assert [name for name, _, _ in read(again)] == names


def test_each_side_has_its_threads_and_mode_and_the_callers_come_back() -> None:
    notes = io.StringIO()
    before = torch.get_num_threads()
    subjects = pair(notes)
    tasks = (task(threads=1), task(threads=2, mode="train"))
    first, second = measure_pair(tasks, subjects=subjects)
    assert {(threads, grad) for name, threads, grad in read(notes) if name == "a"} == {(1, False)}
    assert {(threads, grad) for name, threads, grad in read(notes) if name == "b"} == {(2, True)}
    assert first.facts.environment.machine.threads == 1
    assert second.facts.environment.machine.threads == 2
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()
    assert not any(subject.module.training for subject in subjects)


@pytest.mark.parametrize("contender_first", [False, True])
def test_whoever_is_built_first_the_baseline_comes_first(monkeypatch, contender_first) -> None:
    built: list[str] = []
    real = zoo.build

    def build(workload: Workload, **options: Any) -> Built:
        built.append(workload.model)
        return real(workload, **options)

    monkeypatch.setattr(zoo, "build", build)
    specs = ("tests/models.py:small", "resnet18")
    plan = Plan(warmup=0, iterations=1, function_iterations=0, threads=1)
    tasks = [Task(zoo.resolve(spec, "1x3x32x32"), plan, devices.get("cpu")) for spec in specs]
    runs = measure_pair((tasks[0], tasks[1]), contender_first=contender_first)
    assert [run.facts.model_type for run in runs] == ["Small", "ResNet"]
    assert built == list(specs[::-1] if contender_first else specs)


def test_a_side_that_raises_leaves_nothing_behind() -> None:
    notes = io.StringIO()
    good, bad = pair(notes)
    bad = Built(bad.module, (torch.rand(1, 5, 8, 8),), {})
    before = [dict(module.__dict__) for module in good.module.modules()]
    with pytest.raises(ModelRunError, match="Conv2d at inner"):
        measure_pair((task(threads=1), task()), subjects=(good, bad))
    assert [set(module.__dict__) for module in good.module.modules()] == [set(b) for b in before]
    with mode_set(good.module, False):
        assert good.module(*good.args).shape == (1, 3, 8, 8)
